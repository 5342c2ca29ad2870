#include "denoise/loop.h"

#include "base/error.h"
#include "base/timer.h"
#include "ops/trace.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>

namespace zoetrope {
DenoiseLoop::DenoiseLoop(DenoiseOptions options, std::unique_ptr<Scheduler> scheduler,
                         at::Generator generator)
    : options_(std::move(options)),
      scheduler_(std::move(scheduler)),
      generator_(std::move(generator)) {
    branches_.push_back({options_.text, {}});
    if (options_.negative.defined()) branches_.push_back({options_.negative, {}});
}

LoopState DenoiseLoop::begin(at::Tensor latents, int step) const {
    SchedulerState scheduler;
    scheduler.next_step = step;
    return {step, std::move(latents), std::move(scheduler), generator_.get_state()};
}

void DenoiseLoop::run(LoopState& state, int to_step, const RunControl& control,
                      const std::function<void(double)>& on_step) {
    const int first = state.step;
    ZT_CHECK(first <= to_step && to_step <= static_cast<int>(scheduler_->timesteps().size()),
             internal, "denoise: steps {} to {} of {}", first, to_step,
             scheduler_->timesteps().size());
    scheduler_->restore(state.scheduler);
    generator_.set_state(state.generator);
    const Timer timer;
    Progress progress{.stage = Stage::denoise, .step = first, .steps = to_step};
    control.report(progress);
    while (state.step < to_step) {
        const Timer step_timer;
        const float timestep = scheduler_->timesteps()[static_cast<std::size_t>(state.step)];
        const double boundary = options_.boundary_ratio * scheduler_->num_train_timesteps();
        const bool low = options_.two_experts && timestep < boundary;
        use(low ? ExpertKind::low_noise : ExpertKind::high_noise, state.latents);
        const at::Tensor sample = with_kept_frames(
            state.latents, scheduler_->sigmas()[static_cast<std::size_t>(state.step)]);
        const at::Tensor predicted = velocity(
            sample, timestep, low ? options_.guidance_scale_2 : options_.guidance_scale, control);
        state.latents = scheduler_->step(predicted, state.step, sample, generator_);
        ops::trace("latents", state.latents);
        state.step += 1;
        state.scheduler = scheduler_->state();
        state.generator = generator_.get_state();
        if (on_step) on_step(step_timer.seconds());
        progress.step = state.step;
        progress.seconds = timer.seconds();
        progress.predicted_seconds_left =
            progress.seconds / (state.step - first) * (to_step - state.step);
        control.report(progress);
    }
    const bool finished = to_step == static_cast<int>(scheduler_->timesteps().size());
    if (finished) state.latents = with_kept_frames(with_known_frames(state.latents), 0);
}

void DenoiseLoop::use(ExpertKind kind, const at::Tensor& latents) {
    if (in_use_ == kind) return;
    for (Branch& branch : branches_) branch.prepared.reset();  // before its expert may go
    expert_ = options_.expert(kind);
    in_use_ = kind;
    const LatentSize size{latents.size(2), latents.size(3), latents.size(4)};
    const Lease lease = expert_.residency->lease(expert_.dit->outer_params());
    for (Branch& branch : branches_) {
        at::Tensor faces = options_.faces;
        const bool unconditional = &branch != &branches_.front();
        if (faces.defined() && unconditional) faces = at::full_like(faces.narrow(2, 0, 1), -1);
        branch.prepared = expert_.dit->prepare({.text = branch.text,
                                                .size = size,
                                                .image = options_.image,
                                                .channels = options_.channels,
                                                .control = options_.control,
                                                .control_scale = options_.control_scale,
                                                .pose = options_.pose,
                                                .faces = faces},
                                               lease);
    }
}

at::Tensor DenoiseLoop::with_known_frames(const at::Tensor& latents) const {
    const at::Tensor& known = options_.known_frames;
    if (!known.defined()) return latents;
    at::Tensor whole = latents.clone();
    whole.narrow(2, 0, known.size(2)).copy_(known);
    return whole;
}

at::Tensor DenoiseLoop::with_kept_frames(const at::Tensor& latents, double sigma) const {
    const at::Tensor& kept = options_.kept_frames;
    if (!kept.defined()) return latents;
    at::Tensor whole = latents.clone();
    whole.narrow(2, 0, kept.size(2)).copy_(kept * (1 - sigma) + options_.kept_noise * sigma);
    return whole;
}

at::Tensor DenoiseLoop::velocity(const at::Tensor& latents, float timestep, double guidance_scale,
                                 const RunControl& control) {
    const Dit& dit = *expert_.dit;
    const Lease outer = expert_.residency->lease(dit.outer_params());
    FrameTimesteps timesteps{.values = {timestep}, .frame_value = {}};
    if (options_.known_frames.defined()) {
        timesteps.values.push_back(0);
        timesteps.frame_value.assign(static_cast<std::size_t>(latents.size(2)), 0);
        std::fill_n(timesteps.frame_value.begin(), options_.known_frames.size(2), 1);
    }
    std::vector<at::Tensor> samples;
    for (const at::Tensor& sample : with_known_frames(latents).split(1)) {
        std::vector<Dit::State> states;
        for (Branch& branch : branches_) {
            states.push_back(dit.embed(sample, timesteps, *branch.prepared, outer));
        }
        for (std::int64_t i = 0; i < dit.num_blocks(); ++i) {
            control.throw_if_stopped();
            const Lease block = expert_.residency->lease(dit.params(i));
            for (Dit::State& state : states) dit.blocks(i, i + 1, state, block);
        }
        at::Tensor predicted = dit.head(states[0], outer);
        if (states.size() > 1) {
            const at::Tensor unconditional = dit.head(states[1], outer);
            predicted = unconditional + (predicted - unconditional) * guidance_scale;
        }
        samples.push_back(predicted);
    }
    return samples.size() == 1 ? samples[0] : at::cat(samples);
}

}  // namespace zoetrope
