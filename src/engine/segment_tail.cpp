#include "engine/segment_tail.h"

#include "base/timer.h"
#include "engine/join.h"

#include <c10/core/InferenceMode.h>

#include <utility>

namespace zoetrope {

int most_frames_behind(const ResolvedRequest& request) {
    // Of a run of one window, nothing else is done meanwhile: enough to keep both sides busy.
    constexpr int kFramesAhead = 16;
    return request.segments.segments.size() > 1 ? request.segments.longest(request.num_frames)
                                                : kFramesAhead;
}

SegmentTail::SegmentTail(const ResolvedRequest& request, const SegmentHooks& hooks,
                         const FrameCallback& sink, Decode decode, Carried begin,
                         const RunControl& control, Report& report)
    : request_(request),
      hooks_(hooks),
      sink_(sink),
      decode_(std::move(decode)),
      report_(report),
      stop_(control.stop),
      joined_(std::move(begin)),
      stopped_(control.stop, [this] { stop_decoding_.request_stop(); }),
      worker_({.limit = most_frames_behind(request), .parallel_operators = request.decode_behind}) {
}

SegmentTail::~SegmentTail() { stop_decoding_.request_stop(); }

Carried SegmentTail::take(DenoisedSegment segment, const RunControl& control) {
    wait();
    joined_.tail_latents = segment.tail_latents;
    joined_.generator = segment.generator;
    if (request_.decode_behind) {
        Carried next{.tail_latents = segment.tail_latents, .generator = segment.generator};
        mark_ = {report_.stages.size(), report_.step_seconds.size()};
        decode_beside(std::move(segment), control);
        unfinished_ = true;
        return next;
    }
    decode(
        segment,
        [this](int output, const at::Tensor& frames) {
            worker_.push([this, output, frames] { hand_out(output, frames); }, frames.size(1));
        },
        control, report_);
    mark_ = {report_.stages.size(), report_.step_seconds.size()};
    worker_.push([this] { end_frames(); });
    unfinished_ = true;
    return joined_;
}

// As a job of the worker.
void SegmentTail::decode_beside(DenoisedSegment segment, const RunControl& control) {
    RunControl beside;
    beside.stop = stop_decoding_.get_token();
    // While the model computes, its own progress is what counts.
    beside.on_progress = [this, report = control.on_progress](const Progress& progress) {
        if (report && worker_.caller_waits()) report(progress);
    };
    worker_.push([this, segment = std::move(segment), beside] {
        const c10::InferenceMode inference;
        Report unused;
        decode(
            segment, [this](int output, const at::Tensor& frames) { hand_out(output, frames); },
            beside, unused);
        end_frames();
    });
}

void SegmentTail::decode(const DenoisedSegment& segment, const FrameCallback& hand_out,
                         const RunControl& control, Report& report) {
    const Timer timer;
    double handing = 0;
    const FrameCallback timed = [&](int output, const at::Tensor& frames) {
        const Timer one;
        hand_out(output, frames);
        handing += one.seconds();
    };
    Joiner joiner(request_, joined_, sink_ ? timed : sink_);
    decode_(
        segment.latents,
        [&joiner](int output, const at::Tensor& frames) { joiner.push(output, frames); }, control,
        report);
    joiner.finish();
    decode_seconds_.push_back(timer.seconds() - handing);
    joined_.seconds.push_back(segment.seconds + decode_seconds_.back());
}

// Frames that are made are written even if the run is to stop, where its state is kept.
void SegmentTail::hand_out(int output, const at::Tensor& frames) {
    if (!hooks_.after_segment) RunControl{.on_progress = {}, .stop = stop_}.throw_if_stopped();
    const c10::InferenceMode inference;
    const Timer timer;
    sink_(output, frames);
    write_seconds_ += timer.seconds();
}

void SegmentTail::end_frames() {
    const c10::InferenceMode inference;
    const Timer timer;
    if (hooks_.end_frames) hooks_.end_frames();
    write_seconds_ += timer.seconds();
}

void SegmentTail::poll() {
    if (worker_.is_idle()) wait();
}

void SegmentTail::wait() {
    const Timer timer;
    worker_.wait();
    if (!std::exchange(unfinished_, false)) return;
    report_.add_stage(request_.decode_behind ? Stage::decode : Stage::write, timer.seconds());
    const auto done = static_cast<std::size_t>(joined_.next_segment) - 1;
    report_.plan.measured[done] = joined_.seconds.back();
    if (hooks_.after_segment) hooks_.after_segment(joined_, mark_);
}

void SegmentTail::rescue() {
    if (!unfinished_ || !hooks_.after_segment) return;
    try {
        wait();
    } catch (...) {
        // What ended the run is what is told.
    }
}

}  // namespace zoetrope
