// Where two segments of a video meet: frames shared, colours matched, drift measured.
//
// Private to the engine's sources. A Joiner takes one segment's frames as they are decoded and
// hands out those that are final; what it leaves to the next segment is in Carried. One thread.
#pragma once

#include "engine/engine.h"
#include "engine/segment_run.h"

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace zoetrope {

// Sums over frames, from which statistics follow.
class ColorSums {
public:
    void add(const at::Tensor& frames);  // [3, n, H, W] in [0, 1]
    ColorStatistics statistics() const;

private:
    std::int64_t count_ = 0;  // pixels
    std::array<double, 3> sum_{}, squares_{};
};

// Gives frames of one mean and deviation those of another, channel by channel, on the values as
// they are shown: the statistics of Reinhard et al., "Color Transfer between Images" (2001), in
// RGB, since what drifts is each channel's scale and offset.
class ColorTransfer {
public:
    ColorTransfer(const ColorStatistics& from, const ColorStatistics& to);
    at::Tensor apply(const at::Tensor& frames) const;  // [3, n, H, W] -> the same, in [0, 1]

private:
    std::array<float, 3> scale_{}, offset_{};
};

// How much of the later segment each of n shared frames has: linear (i + 1) / (n + 1), cosine
// (1 - cos(pi (i + 1) / (n + 1))) / 2. Neither is 0 or 1: every shared frame is of both.
std::vector<float> fusion_weights(OverlapFusion fusion, int n);

class Joiner {
public:
    // For the segment carried.next_segment. Borrows everything. The sink may be empty.
    Joiner(const ResolvedRequest& request, Carried& carried, const FrameCallback& sink);

    // Decoded frames of the segment in order: [3, n, H, W] fp32 in [0, 1].
    void push(int output, const at::Tensor& frames);
    // After the last: everything in `carried` is then that of the next segment, but for the latents
    // and the generator.
    void finish();

private:
    void join_head();
    void add(const at::Tensor& frames);
    void hand_out(const at::Tensor& frames);

    const ResolvedRequest& request_;
    const plan::Segment& segment_;
    Carried& carried_;
    const FrameCallback& sink_;
    bool next_carries_;  // the segment behind goes on from this one
    bool measured_;      // one of several segments
    int output_ = 0;
    int position_ = 0;              // frames of the segment taken so far
    int timeline_ = 0;              // frame of the joined timeline that is handed out next
    std::vector<at::Tensor> head_;  // shared frames taken so far
    at::Tensor recent_;             // the last frames of the joined timeline
    bool waiting_ = false;          // `recent_` is not handed out yet
    std::optional<ColorTransfer> transfer_;
    ColorSums segment_sums_, after_sums_;
    int after_ = 0;  // frames in after_sums_
    Report::Drift drift_;
};

}  // namespace zoetrope
