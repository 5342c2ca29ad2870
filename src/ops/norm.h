// Norms, modulation, gates and rotary embedding: the element-wise work between the matrix products.
//
// Statistics, modulation and rotation are computed in float32 and rounded once to the dtype of x,
// which is what Diffusers does. Modulation comes as a few distinct rows (one per distinct time
// step) and an index per latent frame, never per token. Pure functions, any thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace zoetrope::ops {

// Which row of a modulation table [T, C] belongs to which token: tokens of frame f use row
// index[f]. An undefined index means row 0 for all (T == 1).
struct FrameIndex {
    at::Tensor index;               // [frames] int64, on the device of the table; may be undefined
    std::int64_t frame_tokens = 0;  // tokens per latent frame
};

// LayerNorm without weights, times (1 + scale), plus shift.
// x: [B, L, C]; shift, scale: [T, C] fp32 -> [B, L, C] in x's dtype
at::Tensor layer_norm_modulate(const at::Tensor& x, const at::Tensor& shift,
                               const at::Tensor& scale, const FrameIndex& frames, double eps);

// LayerNorm with weight and bias in float32. x: [B, L, C]; weight, bias: [C] fp32 (or undefined).
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      double eps);

// x * gate + residual. residual, x: [B, L, C]; gate: [T, C] fp32 -> residual's dtype.
// May write into residual's storage where it is the only owner of its data: use the result only.
at::Tensor add_gated(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& gate,
                     const FrameIndex& frames);

// RMSNorm over the last dimension. x: [..., C]; weight: [C] fp32 -> x's dtype.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// cos and sin of the rotation angles of each pair of channels, fp32: [L, D / 2].
struct RotaryTable {
    at::Tensor cos;
    at::Tensor sin;
};

// RMSNorm over all heads' channels, then the rotation of neighbouring channel pairs.
// x: [B, L, H * D]; weight: [H * D] fp32 -> [B, L, H, D] in x's dtype
at::Tensor rms_norm_rotary(const at::Tensor& x, const at::Tensor& weight, double eps,
                           const RotaryTable& rotary);

}  // namespace zoetrope::ops
