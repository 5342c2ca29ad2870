// Convolutions of the VAE: causal in time, over clips given in chunks. Pure functions, any thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

namespace zoetrope::ops {

struct CausalConv3dArgs {
    at::Tensor x;        // [B, C, T, H, W]
    at::Tensor history;  // [B, C, n, H, W], the frames before x; undefined: none
    at::Tensor weight;   // [O, C, kt, kh, kw], dtype of x
    at::Tensor bias;     // [O]; undefined: none
    std::array<std::int64_t, 3> stride = {1, 1, 1};
    std::int64_t time_padding = 0;     // zero frames in front; history counts against them
    std::int64_t spatial_padding = 0;  // zeros on each side of height and width
};

// -> [B, O, T', H', W'] with T' = (n' + T - kt) / stride + 1, n' = max(n, time_padding)
at::Tensor causal_conv3d(const CausalConv3dArgs& args);

// 2D convolution of each frame. x: [B, C, T, H, W]; weight: [O, C, kh, kw] -> [B, O, T, H', W'].
// `padding` is left, right, top, bottom.
struct FrameConv2dArgs {
    at::Tensor x;
    at::Tensor weight;
    at::Tensor bias;
    std::int64_t stride = 1;
    std::array<std::int64_t, 4> padding = {0, 0, 0, 0};
};
at::Tensor frame_conv2d(const FrameConv2dArgs& args);

// x / max(|x|, 1e-12) over channels, times sqrt(C), times gamma; then SiLU where asked for: the
// VAE's norm. The norm is computed in float32. x: [B, C, T, H, W]; gamma: C elements, dtype of x.
at::Tensor channel_rms_norm(const at::Tensor& x, const at::Tensor& gamma, bool silu);

// Each pixel twice in height and width (nearest). x: [B, C, T, H, W] -> [B, C, T, 2H, 2W]
at::Tensor upsample2x(const at::Tensor& x);

}  // namespace zoetrope::ops
