// A video segment by segment: conditions, noise, denoising, decoding, the join, frames handed out.
// A video of one window is a run of one segment.
//
// Private to the engine's sources. What one segment leaves to the next is one plain struct, so that
// a run can be saved after any segment and begun again there. One thread calls and is called;
// frames are handed out, and sometimes decoded, by another (segment_tail.h).
#pragma once

#include "denoise/loop.h"
#include "engine/engine.h"
#include "engine/report.h"

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace zoetrope {

// Everything that goes from one segment to the next. Tensors on the CPU; undefined: none.
struct Carried {
    int next_segment = 0;  // index into the plan's segments
    int frames_given = 0;  // handed out so far
    // [3, n, H, W] fp32 in [0, 1]: the last frames of the joined timeline, as many as segments
    // share. Handed out already, but not where joins are blended.
    at::Tensor tail;
    at::Tensor tail_latents;  // [1, z, n, h, w] fp32: those that end with them, for Carry::latents
    at::Tensor generator;     // state of the run's generator before the next segment's noise
    std::optional<ColorStatistics> first;  // of the shot's first segment
    std::vector<Report::Drift> drift;
    std::vector<double> seconds;  // of each segment so far, as in Report::Plan
};

// How much of a report tells of a segment and those before it.
struct ReportMark {
    std::size_t stages = 0;  // of Report::stages
    std::size_t steps = 0;   // of Report::step_seconds
};

// What a run is watched by, and where it begins.
struct SegmentHooks {
    // Behind the last frames of each segment, in the thread that hands them out: the segment is
    // finished when this returns. Not after a last segment that is not decoded.
    std::function<void()> end_frames;
    // After that, with what the next segment begins from. Perhaps between two steps of the next,
    // and before that one's frames are handed out.
    std::function<void(const Carried&, const ReportMark&)> after_segment;
    // After each denoising step of a segment. The one before may not be finished yet.
    std::function<void(int segment, const LoopState&)> after_step;
    // Where to begin, in place of the first segment.
    std::optional<Carried> begin;
    // And inside that segment: the state of its loop. Its noise is drawn all the same.
    std::optional<LoopState> begin_loop;
    double begin_loop_seconds = 0;  // that earlier processes spent on that loop
};

// A task's way to give a segment what it is denoised under.
class SegmentSource {
public:
    virtual ~SegmentSource() = default;
    virtual VisualConditions conditions(const plan::Segment& segment, const Carried& carried,
                                        const RunControl& control, Report& report) = 0;
    // The last segment's latents as generate() gives them.
    virtual at::Tensor result(const at::Tensor& latents) const { return latents; }
};

// Animate and replace. Borrows both.
std::unique_ptr<SegmentSource> animate_source(Engine::Parts& parts, const ResolvedRequest& request);
// All other tasks. Borrows both.
std::unique_ptr<SegmentSource> continuation_source(Engine::Parts& parts,
                                                   const ResolvedRequest& request);

// What the report says about a run's segments before it.
Report::Plan plan_of(const ResolvedRequest& request);

// 1 where a frame is given, 0 where it is to be made, as the channels of latent frames: the first
// stands for one frame, whose channels are alike, the others for `temporal` frames each.
// frames: [n, h, w] fp32, n = temporal k + 1 -> [1, temporal, k + 1, h, w]
at::Tensor mask_of_frames(const at::Tensor& frames, std::int64_t temporal);

// With Carry::latents, puts the latents carried over in the place of those that were encoded from
// the same frames. latents: [1, z, F, h, w] of the segment, F as many as the carried or more
void put_carried_latents(at::Tensor& latents, const plan::Segment& segment, const Carried& carried,
                         const JoinOptions& joins);

}  // namespace zoetrope
