#include "ops/norm.h"

#include "base/error.h"
#include "kernels/cpu.h"
#include "ops/share_out.h"
#include "ops/stats.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/silu.h>

namespace zoetrope::ops {
namespace {

using kernels::ConstRows;
using kernels::Element;
using kernels::NormCall;
using kernels::Rows;

// Elements that ATen works on at a time, so that float32 temporaries stay in the cache: 1 MiB each.
constexpr std::int64_t kBlockElements = std::int64_t{1} << 18;
// Elements that are worth a thread of their own: some ten microseconds of work.
constexpr std::int64_t kThreadElements = std::int64_t{1} << 15;

// Tokens [first, first + count) of one sample that share one row of modulation.
struct Block {
    std::int64_t sample, first, count, row;
};

// How the tokens of [B, L, C] are cut into blocks of at most one latent frame each.
class Tokens {
public:
    Tokens(const at::Tensor& x, const FrameIndex& frames)
        : samples_(x.size(0)), tokens_(x.size(1)), channels_(x.size(2)), frames_(frames) {
        const bool by_frame = !frames.rows.empty();
        frame_tokens_ = by_frame ? frames.frame_tokens : tokens_;
        ZT_CHECK(!by_frame || std::ssize(frames.rows) * frame_tokens_ == tokens_, internal,
                 "modulation: {} tokens are not {} frames of {}", tokens_, frames.rows.size(),
                 frame_tokens_);
    }

    // Calls work(block) one after the other, with `step` tokens at most.
    template <typename Work>
    void in_order(std::int64_t step, const Work& work) const {
        for_range(0, samples_ * tokens_, step, work);
    }

    // Calls work(block) in the operator threads.
    template <typename Work>
    void share_out(const Work& work) const {
        const std::int64_t grain =
            std::max<std::int64_t>(1, kThreadElements / std::max<std::int64_t>(1, channels_));
        parallel_for(0, samples_ * tokens_, grain, [&](std::int64_t begin, std::int64_t end) {
            for_range(begin, end, end - begin, work);
        });
    }

private:
    template <typename Work>
    void for_range(std::int64_t begin, std::int64_t end, std::int64_t step,
                   const Work& work) const {
        while (begin < end) {
            const std::int64_t first = begin % tokens_, frame = first / frame_tokens_;
            const std::int64_t count =
                std::min({step, end - begin, (frame + 1) * frame_tokens_ - first});
            const auto index = static_cast<std::size_t>(frame);
            work(Block{begin / tokens_, first, count,
                       frames_.rows.empty() ? 0 : frames_.rows[index]});
            begin += count;
        }
    }

    const std::int64_t samples_, tokens_, channels_;
    const FrameIndex& frames_;
    std::int64_t frame_tokens_ = 0;
};

// ---- Kernels of the CPU

bool has_element(at::ScalarType dtype) { return dtype == at::kFloat || dtype == at::kBFloat16; }

Element element_of(const at::Tensor& x) {
    return x.scalar_type() == at::kFloat ? Element::fp32 : Element::bf16;
}

// Whether the kernels read x; a CPU tensor that they do not is counted.
bool kernels_take(const char* name, const at::Tensor& x, at::ScalarType out) {
    if (!x.is_cpu()) return false;
    const bool side_by_side = x.stride(-1) == 1 || x.size(-1) <= 1;
    if (has_element(x.scalar_type()) && has_element(out) && side_by_side) return true;
    count_fallback(fmt::format("{} {} to {}{}: no kernel", name, c10::toString(x.scalar_type()),
                               c10::toString(out), side_by_side ? "" : ", channels apart"));
    return false;
}

const kernels::NormKernels& norm_kernels() {
    if (kernels::isa() >= kernels::Isa::avx512) return kernels::norm_avx512;
    if (kernels::isa() >= kernels::Isa::avx2) return kernels::norm_avx2;
    return kernels::norm_ref;
}

// Rows of [B, L, C] from a block's first token on.
ConstRows rows_of(const at::Tensor& x, const Block& block) {
    const std::int64_t at = block.sample * x.stride(0) + block.first * x.stride(1);
    const auto* data = static_cast<const char*>(x.const_data_ptr());
    return {data + at * static_cast<std::int64_t>(x.element_size()), x.stride(1), element_of(x)};
}

Rows rows_to_write(const at::Tensor& x, const Block& block) {
    const std::int64_t at = block.sample * x.stride(0) + block.first * x.stride(1);
    auto* data = static_cast<char*>(x.mutable_data_ptr());
    return {data + at * static_cast<std::int64_t>(x.element_size()), x.stride(1), element_of(x)};
}

// Rows [T, C] of float32 that kernels read: modulation, weights, angles.
class Table {
public:
    Table(const at::Tensor& table, std::int64_t channels) : table_(table) {
        if (table_.dim() == 1) table_ = table_.unsqueeze(0);
        ZT_CHECK(table_.dim() == 2 && table_.size(1) == channels && table_.is_cpu() &&
                     table_.scalar_type() == at::kFloat,
                 internal, "norm: a table of {} [{}] on {}, wanted float32 [rows, {}] on the CPU",
                 c10::toString(table.scalar_type()), fmt::join(table.sizes(), ", "),
                 table.device().str(), channels);
        if (table_.stride(1) != 1) table_ = table_.contiguous();
    }

    const float* row(std::int64_t index) const {
        ZT_CHECK(index >= 0 && index < table_.size(0), internal,
                 "norm: row {} of a table of {} rows", index, table_.size(0));
        return table_.const_data_ptr<float>() + index * table_.stride(0);
    }

private:
    at::Tensor table_;
};

// LayerNorm times a row of factors, plus a row of offsets. x: [B, L, C] -> [B, L, C]
at::Tensor layer_norm_on_cpu(const at::Tensor& x, const at::Tensor& factor,
                             const at::Tensor& offset, const FrameIndex& frames, double eps,
                             at::ScalarType dtype) {
    at::Tensor out = at::empty(x.sizes(), x.options().dtype(dtype));
    const Table factors(factor, x.size(2)), offsets(offset, x.size(2));
    Tokens(x, frames).share_out([&](const Block& block) {
        norm_kernels().normalize({.x = rows_of(x, block),
                                  .out = rows_to_write(out, block),
                                  .rows = block.count,
                                  .channels = x.size(2),
                                  .factor = factors.row(block.row),
                                  .offset = offsets.row(block.row),
                                  .eps = static_cast<float>(eps)});
    });
    return out;
}

void add_gated_on_cpu(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& gate,
                      const FrameIndex& frames) {
    std::optional<Table> gates;
    if (gate.defined()) gates.emplace(gate, x.size(2));
    Tokens(residual, frames).share_out([&](const Block& block) {
        norm_kernels().add({.sum = rows_to_write(residual, block),
                            .x = rows_of(x, block),
                            .rows = block.count,
                            .channels = x.size(2),
                            .gate = gates ? gates->row(block.row) : nullptr});
    });
}

// x: [B, L, C]; rotary: none, or [L, pairs] -> out: [B, L, C]
void rms_norm_on_cpu(const at::Tensor& x, const at::Tensor& weight, double eps,
                     const RotaryTable* rotary, const at::Tensor& out) {
    const Table weights(weight, x.size(2));
    std::optional<Table> cos, sin;
    const std::int64_t pairs = rotary != nullptr ? rotary->cos.size(1) : 0;
    if (rotary != nullptr) {
        cos.emplace(rotary->cos.contiguous(), pairs);
        sin.emplace(rotary->sin.contiguous(), pairs);
    }
    Tokens(x, {}).share_out([&](const Block& block) {
        NormCall call{.x = rows_of(x, block),
                      .out = rows_to_write(out, block),
                      .rows = block.count,
                      .channels = x.size(2),
                      .factor = weights.row(0),
                      .eps = static_cast<float>(eps)};
        if (rotary != nullptr) {
            call.cos = cos->row(block.first);
            call.sin = sin->row(block.first);
            call.pairs = pairs;
        }
        norm_kernels().normalize(call);
    });
}

// ---- ATen, for GPUs and fp16

// A GPU takes a frame at once: it has no cache to stay in, and a price for every call.
template <typename Work>
void for_blocks(const at::Tensor& x, const FrameIndex& frames, const Work& work) {
    const std::int64_t step =
        x.is_cpu() ? std::max<std::int64_t>(1, kBlockElements / x.size(2)) : x.size(1);
    Tokens(x, frames).in_order(step, work);
}

at::Tensor tokens_of(const at::Tensor& x, const Block& block) {
    return x.select(0, block.sample).narrow(0, block.first, block.count);
}

// normed: [L, C] fp32, cos and sin: [L, pairs] -> out: [L, C]
void rotate(const at::Tensor& normed, const at::Tensor& cos, const at::Tensor& sin,
            const at::Tensor& out) {
    const auto pairs_of = [&](const at::Tensor& x) {
        return x.view({x.size(0), -1, cos.size(1), 2});
    };
    const at::Tensor even = pairs_of(normed).select(3, 0), odd = pairs_of(normed).select(3, 1);
    const at::Tensor c = cos.unsqueeze(1), s = sin.unsqueeze(1);
    pairs_of(out).select(3, 0).copy_(even * c - odd * s);
    pairs_of(out).select(3, 1).copy_(even * s + odd * c);
}

}  // namespace

at::Tensor layer_norm_modulate(const at::Tensor& x, const at::Tensor& shift,
                               const at::Tensor& scale, const FrameIndex& frames, double eps,
                               at::ScalarType dtype) {
    const OperatorScope scope("layer_norm_modulate");
    const at::Tensor factor = scale + at::ones({}, scale.options());
    if (kernels_take("layer_norm_modulate", x, dtype))
        return layer_norm_on_cpu(x, factor, shift, frames, eps, dtype);
    at::Tensor out = at::empty(x.sizes(), x.options().dtype(dtype));
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
    if (kernels_take("layer_norm", x, dtype))
        return layer_norm_on_cpu(x, weight, bias, {}, eps, dtype);
    at::Tensor out = at::empty(x.sizes(), x.options().dtype(dtype));
    for_blocks(x, {}, [&](const Block& block) {
        const at::Tensor wide = tokens_of(x, block).to(at::kFloat);
        tokens_of(out, block).copy_(at::layer_norm(wide, {x.size(2)}, weight, bias, eps));
    });
    return out;
}

void add_gated(at::Tensor& residual, const at::Tensor& x, const at::Tensor& gate,
               const FrameIndex& frames) {
    const OperatorScope scope("add_gated");
    ZT_CHECK(residual.sizes() == x.sizes() && residual.scalar_type() == at::kFloat, internal,
             "add_gated: [{}] to {} [{}]", fmt::join(x.sizes(), ", "),
             c10::toString(residual.scalar_type()), fmt::join(residual.sizes(), ", "));
    const FrameIndex used = gate.defined() ? frames : FrameIndex{};
    if (kernels_take("add_gated", x, at::kFloat) && residual.is_contiguous())
        return add_gated_on_cpu(residual, x, gate, used);
    for_blocks(residual, used, [&](const Block& block) {
        at::Tensor sum = tokens_of(residual, block);
        const at::Tensor part = tokens_of(x, block).to(at::kFloat);
        if (gate.defined()) {
            sum.addcmul_(part, gate[block.row]);
        } else {
            sum.add_(part);
        }
    });
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps,
                    std::optional<at::ScalarType> dtype) {
    const OperatorScope scope("rms_norm");
    const at::Tensor rows = x.reshape({1, -1, x.size(-1)});
    const at::ScalarType type = dtype.value_or(x.scalar_type());
    const at::Tensor out = at::empty(rows.sizes(), rows.options().dtype(type));
    if (kernels_take("rms_norm", rows, type)) {
        rms_norm_on_cpu(rows, weight, eps, nullptr, out);
        return out.view(x.sizes());
    }
    for_blocks(rows, {}, [&](const Block& block) {
        const at::Tensor wide = tokens_of(rows, block).to(at::kFloat);
        tokens_of(out, block).copy_(at::rms_norm(wide, {x.size(-1)}, weight, eps));
    });
    return out.view(x.sizes());
}

at::Tensor rms_norm_rotary(const at::Tensor& x, const at::Tensor& weight, double eps,
                           const RotaryTable& rotary) {
    const OperatorScope scope("rms_norm_rotary");
    const std::int64_t head_size = 2 * rotary.cos.size(1);
    ZT_CHECK(x.size(2) % head_size == 0 && rotary.cos.size(0) == x.size(1) &&
                 rotary.sin.sizes() == rotary.cos.sizes(),
             internal, "rotary embedding of [{}] by angles [{}] and [{}]",
             fmt::join(x.sizes(), ", "), fmt::join(rotary.cos.sizes(), ", "),
             fmt::join(rotary.sin.sizes(), ", "));
    const at::Tensor out = at::empty(x.sizes(), x.options());
    const auto heads = [&] { return out.view({x.size(0), x.size(1), -1, head_size}); };
    if (kernels_take("rms_norm_rotary", x, x.scalar_type())) {
        rms_norm_on_cpu(x, weight, eps, &rotary, out);
        return heads();
    }
    for_blocks(x, {}, [&](const Block& block) {
        const at::Tensor wide = tokens_of(x, block).to(at::kFloat);
        rotate(at::rms_norm(wide, {x.size(2)}, weight, eps),
               rotary.cos.narrow(0, block.first, block.count),
               rotary.sin.narrow(0, block.first, block.count), tokens_of(out, block));
    });
    return heads();
}

void activate(const at::Tensor& x, kernels::Activation which, at::Tensor& out) {
    const OperatorScope scope("activate");
    ZT_CHECK(x.sizes() == out.sizes() && x.is_contiguous() && out.is_contiguous(), internal,
             "activate: [{}] into [{}], or one of them is not contiguous",
             fmt::join(x.sizes(), ", "), fmt::join(out.sizes(), ", "));
    if (kernels_take("activate", x, out.scalar_type())) {
        const at::Tensor from = x.view({1, -1, 1}), to = out.view({1, -1, 1});
        parallel_for(0, x.numel(), kThreadElements, [&](std::int64_t begin, std::int64_t end) {
            const Block block{.sample = 0, .first = begin, .count = end - begin, .row = 0};
            norm_kernels().activate({.x = rows_of(from, block),
                                     .out = rows_to_write(to, block),
                                     .rows = 1,
                                     .channels = end - begin,
                                     .which = which});
        });
        return;
    }
    const bool casts = x.scalar_type() != out.scalar_type();
    switch (which) {
        case kernels::Activation::gelu_tanh:
            casts ? out.copy_(at::gelu(x.to(at::kFloat), "tanh")) : at::gelu_out(out, x, "tanh");
            break;
        case kernels::Activation::silu:
            casts ? out.copy_(at::silu(x.to(at::kFloat))) : at::silu_out(out, x);
            break;
    }
}

}  // namespace zoetrope::ops
