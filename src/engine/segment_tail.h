// What comes behind the denoising of a segment: its frames decoded, joined and handed out, its
// state saved; as far as the data allow beside the work for the next segment.
//
// Private to the engine's sources. Frames are handed out by a thread of its own. That thread
// decodes too where ResolvedRequest::decode_behind says so. One segment at most is behind: the next
// one's frames come when it is finished. Results do not depend on who was faster. One thread calls;
// an error of the other comes out of the next call.
#pragma once

#include "engine/segment_run.h"
#include "engine/worker.h"

#include <ATen/core/Tensor.h>

#include <functional>
#include <stop_token>
#include <vector>

namespace zoetrope {

// A segment that is denoised, and what the next one needs of that.
struct DenoisedSegment {
    at::Tensor latents;       // [B, z, F, h, w]: the video's own frames
    at::Tensor tail_latents;  // as in Carried
    at::Tensor generator;     // as in Carried
    double seconds = 0;       // that it took so far
};

// Frames that may be decoded and not yet handed out.
int most_frames_behind(const ResolvedRequest& request);

class SegmentTail {
public:
    // Gives the frames of latents in order: Engine::decode.
    using Decode = std::function<void(const at::Tensor& latents, const FrameCallback& frames,
                                      const RunControl& control, Report& report)>;

    // begin: what the first segment begins from. Borrows all but that.
    SegmentTail(const ResolvedRequest& request, const SegmentHooks& hooks,
                const FrameCallback& sink, Decode decode, Carried begin, const RunControl& control,
                Report& report);
    ~SegmentTail();  // drops what is not handed out

    // -> what the next segment begins from: all of it, or (decode_behind) latents and generator.
    // control: what the decoding is to be reported to
    Carried take(DenoisedSegment segment, const RunControl& control);

    // Finishes the segment behind, where that needs no waiting: its state is saved.
    void poll();
    // The same with waiting.
    void wait();
    // For a run that ends early: the segment behind is finished if it can be, so that it need not
    // be made again. Throws nothing.
    void rescue();

    // Seconds of each segment's decoding, and of all handing out. Good after wait().
    const std::vector<double>& decode_seconds() const { return decode_seconds_; }
    double write_seconds() const { return write_seconds_; }
    double waited() const { return worker_.waited(); }
    // What the whole run left.
    const Carried& joined() const { return joined_; }

private:
    void decode(const DenoisedSegment& segment, const FrameCallback& hand_out,
                const RunControl& control, Report& report);
    void decode_beside(DenoisedSegment segment, const RunControl& control);
    void hand_out(int output, const at::Tensor& frames);
    void end_frames();

    const ResolvedRequest& request_;
    const SegmentHooks& hooks_;
    const FrameCallback& sink_;
    Decode decode_;
    Report& report_;
    std::stop_token stop_;  // of the run

    Carried joined_;           // behind the last segment that was decoded
    bool unfinished_ = false;  // there is a segment behind
    ReportMark mark_;          // of that segment
    std::vector<double> decode_seconds_;
    double write_seconds_ = 0;

    std::stop_source stop_decoding_;
    std::stop_callback<std::function<void()>> stopped_;  // passes the run's stop on
    Worker worker_;                                      // last: its jobs use all of the above
};

}  // namespace zoetrope
