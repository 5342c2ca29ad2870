// Norms, modulation, gates and rotary embedding: the element-wise work between the matrix products.
//
// Statistics, modulation and rotation are computed in float32 and rounded once to the dtype of the
// result, which is what Diffusers does. Modulation comes as a few distinct rows (one per distinct
// time step) and an index per latent frame, never per token. On the CPU, float32 and bf16 whose
// channels lie side by side (columns of a wider matrix too) take one pass over memory. Results do
// not depend on the number of threads. Pure functions, any thread; they use the operator threads.
#pragma once

#include "kernels/norm.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace zoetrope::ops {

// Which row of a modulation table [T, C] belongs to which token: the tokens of latent frame f use
// rows[f]. No rows at all means row 0 for every token (T == 1).
struct FrameIndex {
    std::vector<std::int64_t> rows;  // one per frame
    std::int64_t frame_tokens = 0;   // tokens of a frame
};

// LayerNorm without weights, times (1 + scale), plus shift.
// x: [B, L, C] any float dtype; shift, scale: [T, C] fp32 -> [B, L, C] in `dtype`
at::Tensor layer_norm_modulate(const at::Tensor& x, const at::Tensor& shift,
                               const at::Tensor& scale, const FrameIndex& frames, double eps,
                               at::ScalarType dtype);

// LayerNorm with weight and bias. x: [B, L, C] any float dtype; weight, bias: [C] fp32 -> `dtype`
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      double eps, at::ScalarType dtype);

// residual += x * gate, in place. residual: [B, L, C] fp32, contiguous; x: [B, L, C] any float
// dtype; gate: [T, C] fp32, undefined: 1
void add_gated(at::Tensor& residual, const at::Tensor& x, const at::Tensor& gate,
               const FrameIndex& frames);

// RMSNorm over the last dimension. x: [..., C]; weight: [C] fp32 -> `dtype`, without it x's.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps,
                    std::optional<at::ScalarType> dtype = {});

// cos and sin of the rotation angles of each pair of channels, fp32: [L, D / 2].
struct RotaryTable {
    at::Tensor cos;
    at::Tensor sin;
};

// RMSNorm over all heads' channels, then the rotation of neighbouring channel pairs.
// x: [B, L, H * D]; weight: [H * D] fp32 -> [B, L, H, D] in x's dtype
at::Tensor rms_norm_rotary(const at::Tensor& x, const at::Tensor& weight, double eps,
                           const RotaryTable& rotary);

// out = activation(x), computed in float32 and rounded once; out may be x. x, out: the same shape,
// contiguous, any float dtype
void activate(const at::Tensor& x, kernels::Activation which, at::Tensor& out);

}  // namespace zoetrope::ops
