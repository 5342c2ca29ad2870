#include "ops/norm.h"

#include "base/error.h"
#include "ops/stats.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rms_norm.h>

namespace zoetrope::ops {
namespace {

// Elements that are worked on at a time, so that float32 temporaries stay in the cache: 1 MiB each.
constexpr std::int64_t kBlockElements = std::int64_t{1} << 18;

// Tokens [first, first + count) of one sample that share one row of modulation.
struct Block {
    std::int64_t sample, first, count, row;
};

// Cuts [B, L, C] into blocks of tokens of at most one latent frame each, and calls `work` with them
// in order.
template <typename Work>
void for_blocks(const at::Tensor& x, const FrameIndex& frames, const Work& work) {
    const std::int64_t tokens = x.size(1);
    const bool by_frame = !frames.rows.empty();
    const std::int64_t frame_tokens = by_frame ? frames.frame_tokens : tokens;
    ZT_CHECK(!by_frame || std::ssize(frames.rows) * frame_tokens == tokens, internal,
             "modulation: {} tokens are not {} frames of {}", tokens, frames.rows.size(),
             frame_tokens);
    // A GPU takes a frame at once: it has no cache to stay in, and a price for every call.
    const std::int64_t step =
        x.is_cpu() ? std::max<std::int64_t>(1, kBlockElements / x.size(2)) : tokens;
    for (std::int64_t sample = 0; sample < x.size(0); ++sample) {
        for (std::int64_t frame = 0; frame * frame_tokens < tokens; ++frame) {
            const std::int64_t row = by_frame ? frames.rows[static_cast<std::size_t>(frame)] : 0;
            const std::int64_t end = (frame + 1) * frame_tokens;
            for (std::int64_t first = frame * frame_tokens; first < end; first += step) {
                work(Block{sample, first, std::min(step, end - first), row});
            }
        }
    }
}

at::Tensor tokens_of(const at::Tensor& x, const Block& block) {
    return x.select(0, block.sample).narrow(0, block.first, block.count);
}

}  // namespace

at::Tensor layer_norm_modulate(const at::Tensor& x, const at::Tensor& shift,
                               const at::Tensor& scale, const FrameIndex& frames, double eps,
                               at::ScalarType dtype) {
    const OperatorScope scope("layer_norm_modulate");
    at::Tensor out = at::empty(x.sizes(), x.options().dtype(dtype));
    const at::Tensor factor = scale + at::ones({}, scale.options());
    for_blocks(x, frames, [&](const Block& block) {
        at::Tensor normed =
            at::layer_norm(tokens_of(x, block).to(at::kFloat), {x.size(2)}, {}, {}, eps);
        normed.mul_(factor[block.row]).add_(shift[block.row]);
        tokens_of(out, block).copy_(normed);
    });
    return out;
}

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      double eps, at::ScalarType dtype) {
    const OperatorScope scope("layer_norm");
    at::Tensor out = at::empty(x.sizes(), x.options().dtype(dtype));
    for_blocks(x, {}, [&](const Block& block) {
        tokens_of(out, block)
            .copy_(
                at::layer_norm(tokens_of(x, block).to(at::kFloat), {x.size(2)}, weight, bias, eps));
    });
    return out;
}

void add_gated(at::Tensor& residual, const at::Tensor& x, const at::Tensor& gate,
               const FrameIndex& frames) {
    const OperatorScope scope("add_gated");
    for_blocks(residual, gate.defined() ? frames : FrameIndex{}, [&](const Block& block) {
        at::Tensor sum = tokens_of(residual, block);
        const at::Tensor part = tokens_of(x, block).to(at::kFloat);
        if (gate.defined()) {
            sum.addcmul_(part, gate[block.row]);
        } else {
            sum.add_(part);
        }
    });
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
    const OperatorScope scope("rms_norm");
    const at::Tensor rows = x.reshape({1, -1, x.size(-1)});
    at::Tensor out = at::empty(rows.sizes(), rows.options());
    for_blocks(rows, {}, [&](const Block& block) {
        tokens_of(out, block)
            .copy_(at::rms_norm(tokens_of(rows, block).to(at::kFloat), {x.size(-1)}, weight, eps));
    });
    return out.view(x.sizes());
}

at::Tensor rms_norm_rotary(const at::Tensor& x, const at::Tensor& weight, double eps,
                           const RotaryTable& rotary) {
    const OperatorScope scope("rms_norm_rotary");
    const std::int64_t pairs = rotary.cos.size(1);
    at::Tensor out =
        at::empty({x.size(0), x.size(1), x.size(2) / (2 * pairs), 2 * pairs}, x.options());
    for_blocks(x, {}, [&](const Block& block) {
        const at::Tensor normed =
            at::rms_norm(tokens_of(x, block).to(at::kFloat), {x.size(2)}, weight, eps)
                .view({block.count, -1, pairs, 2});
        const at::Tensor even = normed.select(3, 0);
        const at::Tensor odd = normed.select(3, 1);
        const at::Tensor cos = rotary.cos.narrow(0, block.first, block.count).unsqueeze(1);
        const at::Tensor sin = rotary.sin.narrow(0, block.first, block.count).unsqueeze(1);
        const at::Tensor rotated = tokens_of(out, block).view({block.count, -1, pairs, 2});
        rotated.select(3, 0).copy_(even * cos - odd * sin);
        rotated.select(3, 1).copy_(even * sin + odd * cos);
    });
    return out;
}

}  // namespace zoetrope::ops
