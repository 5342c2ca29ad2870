#include "engine/segment_run.h"

#include "base/timer.h"
#include "engine/driving_clip.h"
#include "engine/join.h"
#include "engine/parts.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>

#include <utility>

namespace zoetrope {
namespace {

// Parts stay in memory from segment to segment.
class Hold {
public:
    Hold(bool& held, bool wanted) : held_(held) { held_ = wanted; }
    ~Hold() { held_ = false; }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

private:
    bool& held_;
};

RunControl with_segment(const RunControl& control, int segment, int segments) {
    RunControl numbered = control;
    numbered.on_progress = [&control, segment, segments](const Progress& progress) {
        Progress with_number = progress;
        with_number.segment = segment;
        with_number.segments = segments;
        control.report(with_number);
    };
    return numbered;
}

}  // namespace

Report::Plan plan_of(const ResolvedRequest& request) {
    const plan::SegmentPlan& segments = request.segments;
    Report::Plan plan{.policy = std::string(plan::name_of(segments.policy)),
                      .overlap = segments.overlap,
                      .carry = std::string(name_of(request.joins.carry)),
                      .overlap_fusion = std::string(name_of(request.joins.fusion)),
                      .color_match = request.joins.color_match,
                      .cuts = request.cuts,
                      .generated_frames = segments.generated_frames,
                      .denoised_frames = segments.denoised_frames,
                      .padded_frames = segments.padded_frames,
                      .dropped_frames = segments.dropped_frames,
                      .segments = {},
                      .cost_source = request.cost_source};
    for (std::size_t i = 0; i < segments.segments.size(); ++i) {
        const plan::Segment& segment = segments.segments[i];
        plan.segments.push_back({.start = segment.start,
                                 .length = segment.length,
                                 .carried_frames = segment.carried_frames,
                                 .padded_frames = segment.padded_frames,
                                 .restart = segment.restart,
                                 .predicted_seconds = request.segment_seconds[i]});
    }
    return plan;
}

at::Tensor mask_of_frames(const at::Tensor& frames, std::int64_t temporal) {
    const std::int64_t height = frames.size(1), width = frames.size(2);
    const at::Tensor first = frames.narrow(0, 0, 1).expand({temporal, height, width});
    const at::Tensor all = at::cat({first, frames.narrow(0, 1, frames.size(0) - 1)});
    return all.view({-1, temporal, height, width}).transpose(0, 1).unsqueeze(0);
}

void put_carried_latents(at::Tensor& latents, const plan::Segment& segment, const Carried& carried,
                         const JoinOptions& joins) {
    if (segment.carried_frames == 0 || joins.carry != Carry::latents) return;
    latents.narrow(2, 0, carried.tail_latents.size(2)).copy_(carried.tail_latents);
}

at::Tensor Engine::run_segments(const ResolvedRequest& request, const FrameCallback& sink,
                                const RunControl& control, Report& report,
                                const SegmentHooks& hooks) {
    const c10::InferenceMode inference;
    Parts& parts = *parts_;
    const std::vector<plan::Segment>& segments = request.segments.segments;
    const int count = static_cast<int>(segments.size());
    Carried carried = hooks.begin.value_or(Carried{});
    const auto row_of = [&report](std::size_t i) -> Report::Segment& {
        return report.plan.segments[i];
    };
    for (std::size_t i = 0; i < carried.seconds.size(); ++i) row_of(i).seconds = carried.seconds[i];
    if (carried.next_segment >= count) {  // all was done before
        report.drift = carried.drift;
        return {};
    }
    const TextEmbeddings text = encode_text(request, control, report);
    const Hold hold(parts.hold, count > 1);
    const auto source = is_driven(request.task) ? animate_source(parts, request)
                                                : continuation_source(parts, request);

    at::Generator generator = at::detail::createCPUGenerator(request.seed);
    if (carried.generator.defined()) generator.set_state(carried.generator);
    const LoopState* begin = hooks.begin_loop ? &*hooks.begin_loop : nullptr;
    const plan::Workload workload = parts.workload_of(request);
    std::vector<plan::Sample> samples;
    at::Tensor latents;
    while (carried.next_segment < count) {
        const int index = carried.next_segment;
        const plan::Segment& segment = segments[static_cast<std::size_t>(index)];
        const RunControl numbered = with_segment(control, index, count);
        plan::Sample sample{.length = segment.length,
                            .work = plan::work_of(workload, segment.length)};
        const Timer encoding;
        const VisualConditions visual = source->conditions(segment, carried, numbered, report);
        sample.vae_seconds = encoding.seconds();
        // The user's own noise is the first segment's, and then none is drawn for it.
        at::Tensor noise =
            index == 0 && !request.request.latents.empty()
                ? draw_noise(request)
                : at::randn(parts.noise_shape(request, segment.length), generator, at::kFloat);
        if (visual.source.defined()) {
            const double sigma =
                parts.scheduler_of(request)->sigmas()[static_cast<std::size_t>(request.first_step)];
            noise = noise.mul(sigma).add_(visual.source, 1 - sigma);
        }
        const bool whole = begin == nullptr;
        const double loaded = parts.load_seconds;
        const Timer denoising;
        latents = parts.run_loop(request, text, visual, request.first_step, request.last_step,
                                 noise, generator, numbered, report,
                                 {hooks.after_step, std::exchange(begin, nullptr)});
        sample.denoise_seconds = denoising.seconds() - (parts.load_seconds - loaded);
        Report::Segment& row = row_of(static_cast<std::size_t>(index));
        row.seconds =
            (whole ? 0 : hooks.begin_loop_seconds) + sample.vae_seconds + sample.denoise_seconds;
        if (!sink && index + 1 == count) break;
        const Timer decoding;
        // Pictures that the model looks at stand before the video's own frames.
        const std::int64_t own = parts.vae_config.latent_frames(segment.length);
        Joiner joiner(request, carried, sink);
        decode(
            latents.narrow(2, latents.size(2) - own, own),
            [&joiner](int output, const at::Tensor& frames) { joiner.push(output, frames); },
            numbered, report);
        joiner.finish();
        sample.vae_seconds += decoding.seconds();
        row.seconds += decoding.seconds();
        carried.seconds.push_back(row.seconds);
        if (whole) samples.push_back(sample);
        if (request.joins.carry == Carry::latents && index + 1 < count) {
            const std::int64_t kept = parts.vae_config.latent_frames(request.segments.overlap);
            carried.tail_latents = latents.narrow(2, latents.size(2) - kept, kept).clone();
        }
        carried.generator = generator.get_state();
        if (hooks.after_segment) hooks.after_segment(carried);
    }
    // What runs beside the preprocessing of a clip is slower than the machine.
    if (!request.clip || request.clip->is_kept()) parts.learn_cost(samples);
    report.drift = carried.drift;
    return source->result(latents);
}

}  // namespace zoetrope
