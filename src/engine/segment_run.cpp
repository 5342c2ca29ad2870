#include "engine/segment_run.h"

#include "base/timer.h"
#include "engine/driving_clip.h"
#include "engine/parts.h"
#include "engine/segment_tail.h"
#include "ops/device.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
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

// The user's own noise is the first segment's, and then none is drawn for it.
at::Tensor noise_of(const Engine& engine, const Engine::Parts& parts,
                    const ResolvedRequest& request, const plan::Segment& segment,
                    const VisualConditions& visual, at::Generator& generator) {
    const bool own = &segment == &request.segments.segments[0] && !request.request.latents.empty();
    const at::Tensor noise =
        own ? engine.draw_noise(request)
            : at::randn(parts.noise_shape(request, segment.length), generator, at::kFloat);
    if (!visual.source.defined()) return noise;
    const double sigma =
        parts.scheduler_of(request)->sigmas()[static_cast<std::size_t>(request.first_step)];
    return noise.mul(sigma).add_(visual.source, 1 - sigma);
}

DenoisedSegment denoised_segment(const Engine::Parts& parts, const ResolvedRequest& request,
                                 int index, const at::Tensor& latents,
                                 const at::Generator& generator, double seconds) {
    const std::vector<plan::Segment>& segments = request.segments.segments;
    const auto last_of = [&latents](std::int64_t n) {
        return latents.narrow(2, latents.size(2) - n, n);
    };
    // Pictures that the model looks at stand before the video's own frames.
    const int length = segments[static_cast<std::size_t>(index)].length;
    DenoisedSegment segment{.latents = last_of(parts.vae_config.latent_frames(length)),
                            .tail_latents = {},
                            .generator = generator.get_state(),
                            .seconds = seconds};
    if (request.joins.carry == Carry::latents && index + 1 < static_cast<int>(segments.size()))
        segment.tail_latents =
            last_of(parts.vae_config.latent_frames(request.segments.overlap)).clone();
    return segment;
}

// What the segments of this process took.
struct Times {
    const Timer whole;
    const ops::ProcessTime before = ops::process_time();
    Report::Pipeline pipeline;
    std::vector<plan::Sample> samples;  // of those that are decoded

    void add(double prepared, double denoised) {
        pipeline.prepare += prepared;
        pipeline.denoise += denoised;
    }
    // All that is behind the denoising is done.
    void add(const SegmentTail& tail) {
        const ops::ProcessTime now = ops::process_time();
        pipeline.seconds = whole.seconds();
        pipeline.cpu_running = std::max(0.0, now.running - before.running);
        pipeline.cpu_waiting = std::max(0.0, now.waiting - before.waiting);
        pipeline.write = tail.write_seconds();
        pipeline.waited = tail.waited();
        for (std::size_t i = 0; i < samples.size(); ++i) {
            pipeline.decode += tail.decode_seconds()[i];
            samples[i].vae_seconds += tail.decode_seconds()[i];
        }
    }
};

}  // namespace

Report::Plan plan_of(const ResolvedRequest& request) {
    return {.segments = request.segments,
            .joins = request.joins,
            .cuts = request.cuts,
            .predicted = request.segment_seconds,
            .measured = std::vector<double>(request.segments.segments.size()),
            .cost_source = request.cost_source};
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
    std::vector<double>& measured = report.plan.measured;
    std::copy(carried.seconds.begin(), carried.seconds.end(), measured.begin());
    const int first = carried.next_segment;
    if (first >= count) {  // all was done before
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
    Times times;
    at::Tensor latents;
    if (request.decode_behind) parts.open_vae();  // before two threads do
    SegmentTail tail(
        request, hooks, sink,
        [this](const at::Tensor& z, const FrameCallback& frames, const RunControl& watched,
               Report& told) { decode(z, frames, watched, told); },
        carried, control, report);
    try {
        for (int index = first; index < count; ++index) {
            const plan::Segment& segment = segments[static_cast<std::size_t>(index)];
            const RunControl numbered = with_segment(control, index, count);
            const Timer preparing;
            const VisualConditions visual = source->conditions(segment, carried, numbered, report);
            const at::Tensor noise = noise_of(*this, parts, request, segment, visual, generator);
            const double prepared = preparing.seconds();

            const double loaded = parts.load_seconds;
            const Timer denoising;
            const LoopHooks watching{[&](const LoopState& state) {
                                         tail.poll();
                                         if (hooks.after_step) hooks.after_step(index, state);
                                     },
                                     std::exchange(begin, nullptr)};
            latents = parts.run_loop(request, text, visual, request.first_step, request.last_step,
                                     noise, generator, numbered, report, watching);
            const double denoised = denoising.seconds() - (parts.load_seconds - loaded);
            times.add(prepared, denoised);
            const double before = index == first ? hooks.begin_loop_seconds : 0;
            const double seconds = before + prepared + denoised;
            measured[static_cast<std::size_t>(index)] = seconds;
            if (!sink && index + 1 == count) break;

            times.samples.push_back({.length = segment.length,
                                     .work = plan::work_of(workload, segment.length),
                                     .denoise_seconds = denoised,
                                     .vae_seconds = prepared});
            carried = tail.take(
                denoised_segment(parts, request, index, latents, generator, seconds), numbered);
        }
        tail.wait();
    } catch (...) {
        tail.rescue();
        throw;
    }
    times.add(tail);
    report.pipeline = times.pipeline;
    report.drift = tail.joined().drift;
    if (hooks.begin_loop && !times.samples.empty())
        times.samples.erase(times.samples.begin());  // only a part of it ran here
    report.samples = std::move(times.samples);
    // What runs beside the preprocessing of a clip is slower than the machine.
    if (!request.clip || request.clip->is_kept()) parts.learn_cost(report);
    return source->result(latents);
}

}  // namespace zoetrope
