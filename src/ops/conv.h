// The VAE's operators: convolutions causal in time over clips given in chunks, and its norm.
//
// Clips are [B, C, T, H, W], best in channels-last order (at::MemoryFormat::ChannelsLast3d), in
// which results come. Pure functions, any thread; they use the operator threads. Errors: internal
// for shapes that do not fit.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

namespace zoetrope::ops {

struct ConvOptions {
    std::array<std::int64_t, 3> stride = {1, 1, 1};      // time, height, width
    std::int64_t time_padding = 0;                       // zero frames in front of the clip
    std::array<std::int64_t, 4> padding = {0, 0, 0, 0};  // zeros: left, right, top, bottom
    bool upsample = false;  // first each pixel twice in height and width (nearest)
};

struct CausalConv3dArgs {
    at::Tensor x;        // [B, C, T, H, W]
    at::Tensor history;  // [B, C, n, H, W], the frames before x; undefined: none
    at::Tensor weight;   // [O, C, kt, kh, kw], dtype of x
    at::Tensor bias;     // [O], same dtype; undefined: none
    ConvOptions options;
};

// -> [B, O, T', H', W'] with T' = (n' + T - kt) / stride + 1, n' = max(n, time_padding): history
// counts against the zero frames. Taps that would meet only zero frames are not computed.
at::Tensor causal_conv3d(const CausalConv3dArgs& args);

// One clip, batch 1.
struct ClipShape {
    std::int64_t channels = 0;
    std::int64_t frames = 0;
    std::int64_t height = 0;
    std::int64_t width = 0;

    std::int64_t elements() const { return channels * frames * height * width; }
};

// What causal_conv3d costs on such shapes, without running it.
struct ConvCost {
    ClipShape result;
    double flop = 0;             // multiply-adds times two that are computed
    std::int64_t workspace = 0;  // elements held at the peak beside x, history, weight and result
};
ConvCost causal_conv3d_cost(const ClipShape& x, std::int64_t history_frames,
                            const std::array<std::int64_t, 5>& weight, const ConvOptions& options);

// x / max(|x|, 1e-12) over channels, times sqrt(C) and gamma; then SiLU where asked for. Computed
// in float32 and rounded once. x: [B, C, T, H, W]; gamma: C elements fp32 -> as x
at::Tensor channel_rms_norm(const at::Tensor& x, const at::Tensor& gamma, bool silu);

// Bytes that channel_rms_norm holds at most beside x and its result.
std::int64_t channel_rms_norm_workspace(std::int64_t channels);

}  // namespace zoetrope::ops
