#include "ops/norm.h"

#include "base/error.h"
#include "ops/stats.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/stack.h>

namespace zoetrope::ops {
namespace {

// A modulation table as it broadcasts against x viewed as [B, frames, frame_tokens, C] (or [B, L,
// C] for one row).
at::Tensor rows_of(const at::Tensor& table, const FrameIndex& frames) {
    if (!frames.index.defined()) return table.narrow(0, 0, 1).unsqueeze(0);  // [1, 1, C]
    return table.index_select(0, frames.index).unsqueeze(1).unsqueeze(0);    // [1, frames, 1, C]
}

at::Tensor by_frame(const at::Tensor& x, const FrameIndex& frames) {
    if (!frames.index.defined()) return x;
    const std::int64_t count = frames.index.size(0);
    ZT_CHECK(x.size(1) == count * frames.frame_tokens, internal,
             "modulation: {} tokens are not {} frames of {}", x.size(1), count,
             frames.frame_tokens);
    return x.view({x.size(0), count, frames.frame_tokens, x.size(2)});
}

}  // namespace

at::Tensor layer_norm_modulate(const at::Tensor& x, const at::Tensor& shift,
                               const at::Tensor& scale, const FrameIndex& frames, double eps) {
    const OperatorScope scope("layer_norm_modulate");
    at::Tensor normed = at::layer_norm(x.to(at::kFloat), {x.size(-1)}, {}, {}, eps);
    at::Tensor viewed = by_frame(normed, frames);
    viewed.mul_(rows_of(scale, frames) + 1).add_(rows_of(shift, frames));
    return normed.to(x.scalar_type());
}

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      double eps) {
    const OperatorScope scope("layer_norm");
    return at::layer_norm(x.to(at::kFloat), {x.size(-1)}, weight, bias, eps).to(x.scalar_type());
}

at::Tensor add_gated(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& gate,
                     const FrameIndex& frames) {
    const OperatorScope scope("add_gated");
    const at::Tensor sum = at::addcmul(by_frame(residual.to(at::kFloat), frames),
                                       by_frame(x.to(at::kFloat), frames), rows_of(gate, frames));
    return sum.view(residual.sizes()).to(residual.scalar_type());
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
    const OperatorScope scope("rms_norm");
    return at::rms_norm(x.to(at::kFloat), {x.size(-1)}, weight, eps).to(x.scalar_type());
}

at::Tensor rms_norm_rotary(const at::Tensor& x, const at::Tensor& weight, double eps,
                           const RotaryTable& rotary) {
    const OperatorScope scope("rms_norm_rotary");
    const std::int64_t pairs = rotary.cos.size(1);
    const at::Tensor normed = at::rms_norm(x.to(at::kFloat), {x.size(-1)}, weight, eps)
                                  .view({x.size(0), x.size(1), -1, pairs, 2});
    const at::Tensor even = normed.select(4, 0);
    const at::Tensor odd = normed.select(4, 1);
    const at::Tensor cos = rotary.cos.unsqueeze(1);  // [L, 1, D / 2]
    const at::Tensor sin = rotary.sin.unsqueeze(1);
    const at::Tensor rotated = at::stack({even * cos - odd * sin, even * sin + odd * cos}, 4);
    return rotated.view({x.size(0), x.size(1), -1, 2 * pairs}).to(x.scalar_type());
}

}  // namespace zoetrope::ops
