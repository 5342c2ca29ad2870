// Weights of convolutions in the order of a product kernel.
#include "base/error.h"
#include "ops/brgemm.h"
#include "ops/conv_cpu.h"
#include "ops/peak.h"
#include "ops/share_out.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>

namespace zoetrope::ops {
namespace {

using kernels::Isa;

struct Row {
    Isa isa;
    kernels::GemmKernel (*gemm)();
    kernels::ConvKernel (*conv)();
};

constexpr Row kKernels[] = {
    {Isa::amx, gemm_amx, kernels::conv_avx512bf16},
    {Isa::avx512fp16, kernels::gemm_avx512fp16, kernels::conv_avx512fp16},
    {Isa::avx512bf16, kernels::gemm_avx512bf16, kernels::conv_avx512bf16},
    {Isa::avx512, kernels::gemm_avx512, kernels::conv_avx512},
    {Isa::ref, kernels::gemm_ref, kernels::conv_ref},
};

const Row& row_of(Isa isa) {
    for (const Row& row : kKernels) {
        if (row.isa == isa) return row;
    }
    fail(ErrorKind::internal, "no convolution kernel for {}", kernels::name_of(isa));
}

// The three taps of a side on pixels of twice the size, of which two are the same pixel before
// upsampling: for the even results the last two, for the odd ones the first two.
at::Tensor two_taps(const at::Tensor& taps, std::int64_t dim, std::int64_t parity) {
    const auto tap = [&](std::int64_t i) { return taps.select(dim, i); };
    return parity == 0 ? at::stack({tap(0), tap(1) + tap(2)}, dim)
                       : at::stack({tap(0) + tap(1), tap(2)}, dim);
}

bool can_double(const std::array<std::int64_t, 5>& weight, const ConvOptions& options) {
    return weight[2] == 1 && weight[3] == 3 && weight[4] == 3 &&
           options.stride == std::array<std::int64_t, 3>{1, 1, 1} &&
           options.padding == std::array<std::int64_t, 4>{1, 1, 1, 1};
}

std::vector<ConvPhase> phases_of(const PackedConv& conv) {
    const auto [out, in, kt, kh, kw] = conv.spec.weight;
    std::vector<ConvPhase> phases;
    if (conv.spec.options.upsample) {
        for (const std::int64_t line : {0, 1}) {
            for (const std::int64_t pixel : {0, 1}) {
                phases.push_back({.line = line,
                                  .pixel = pixel,
                                  .strips = {{.line = line, .pixel = pixel, .pixels = 2},
                                             {.line = line + 1, .pixel = pixel, .pixels = 2}}});
            }
        }
        return phases;
    }
    std::vector<ConvStrip> strips;
    for (std::int64_t t = 0; t < kt; ++t) {
        for (std::int64_t line = 0; line < (conv.spread ? 1 : kh); ++line)
            strips.push_back({.frame = t, .line = line, .pixels = conv.spread ? 1 : kw});
    }
    for (std::int64_t part = 0; part < conv.spec.frames_per_step; ++part)
        phases.push_back({.first_channel = part * conv.channels, .frame = part, .strips = strips});
    return phases;
}

// All but the numbers.
PackedConv plan(const ConvSpec& spec, Isa isa) {
    const auto [out, in, kt, kh, kw] = spec.weight;
    const auto& stride = spec.options.stride;
    ZT_CHECK((!spec.options.upsample || can_double(spec.weight, spec.options)) &&
                 out % spec.frames_per_step == 0,
             internal, "no kernel for a convolution of [{}]", fmt::join(spec.weight, ", "));
    const Row& row = row_of(isa);
    PackedConv conv{.gemm = row.gemm(), .conv = row.conv(), .spec = spec};
    conv.words = gemm_words(conv.gemm.layout, in);
    const std::int64_t columns = conv.gemm.layout.columns;
    // Adding the products up pays where there are far fewer panels of them.
    conv.spread = spec.spread_taps &&
                  3 * ceil_div(out * kh * kw, columns) <= ceil_div(out, columns) * kh * kw &&
                  !spec.options.upsample && stride[1] == 1 && stride[2] == 1 &&
                  spec.frames_per_step == 1;
    conv.channels = conv.spread ? out * kh * kw : out / spec.frames_per_step;
    conv.panels = ceil_div(conv.channels, columns);
    conv.phases = phases_of(conv);
    std::int64_t bytes = 0, factors = 0;
    for (ConvPhase& phase : conv.phases) {
        phase.first_byte = bytes;
        phase.first_factor = factors;
        const std::int64_t strips = conv.panels * static_cast<std::int64_t>(phase.strips.size());
        factors += strips;
        bytes += strips * gemm_panel_bytes(conv.gemm.layout, phase.strips[0].pixels * conv.words);
    }
    conv.bytes = bytes;
    conv.factors.assign(static_cast<std::size_t>(factors), 1.0F);
    return conv;
}

// [channels, strips, numbers of a strip]
at::Tensor weight_of(const PackedConv& conv, const ConvPhase& phase, at::Tensor w) {
    const std::int64_t padded = conv.words * conv.gemm.layout.elements;
    if (conv.spec.options.upsample) w = two_taps(two_taps(w, 3, phase.line), 4, phase.pixel);
    w = at::constant_pad_nd(w.permute({0, 2, 3, 4, 1}), {0, padded - conv.spec.weight[1]});
    const auto strips = static_cast<std::int64_t>(phase.strips.size());
    if (conv.spread)
        w = w.permute({2, 3, 0, 1, 4});
    else
        w = w.narrow(0, phase.first_channel, conv.channels);
    return w.reshape({conv.channels, strips, -1}).contiguous();
}

void pack_phase(PackedConv& conv, const ConvPhase& phase, const at::Tensor& weight) {
    const at::Tensor w = weight_of(conv, phase, weight);
    const std::int64_t strips = w.size(1), numbers = w.size(2);
    const kernels::GemmLayout& layout = conv.gemm.layout;
    const std::int64_t bytes = gemm_panel_bytes(layout, phase.strips[0].pixels * conv.words);
    auto* panels = static_cast<std::uint8_t*>(conv.data.mutable_data_ptr()) + phase.first_byte;
    parallel_for(0, conv.panels * strips, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t first = i / strips * layout.columns;
            conv.gemm.pack_columns(
                {.source = w.const_data_ptr<float>() + (first * strips + i % strips) * numbers,
                 .type = kernels::GemmSource::fp32,
                 .stride = strips * numbers,
                 .columns = static_cast<int>(
                     std::min<std::int64_t>(layout.columns, conv.channels - first)),
                 .elements = static_cast<int>(numbers),
                 .panel = panels + i * bytes,
                 .factor = &conv.factors[static_cast<std::size_t>(phase.first_factor + i)]});
        }
    });
}

}  // namespace

Isa conv_cpu_isa(bool bf16_products) {
    if (!kernels::has(Isa::avx512) || kernels::isa() < Isa::avx512) return Isa::ref;
    if (!bf16_products) return Isa::avx512;
    const Isa fastest = amx_is_fastest() ? Isa::amx : fastest_bf16_products();
    return fastest < Isa::avx512 ? Isa::ref : fastest;
}

PackedConv pack_conv(const at::Tensor& weight, const at::Tensor& bias, const ConvSpec& spec,
                     Isa isa) {
    ZT_CHECK(weight.is_cpu() && weight.sizes().equals(spec.weight), internal,
             "a convolution's weight is [{}], wanted [{}]", fmt::join(weight.sizes(), ", "),
             fmt::join(spec.weight, ", "));
    PackedConv conv = plan(spec, isa);
    conv.data = at::empty({conv.bytes}, at::kByte);
    if (bias.defined()) conv.bias = bias.to(at::kFloat).contiguous();
    for (const ConvPhase& phase : conv.phases) pack_phase(conv, phase, weight.to(at::kFloat));
    return conv;
}

ConvCpuBytes conv_cpu_bytes(const ClipShape& x, const ConvSpec& spec, Isa isa) {
    const PackedConv conv = plan(spec, isa);
    const auto& [left, right, top, bottom] = spec.options.padding;
    const std::int64_t pixels = (top + x.height + bottom) * (left + x.width + right);
    return {.weight = conv.bytes,
            .frame = 4 * pixels * conv.words,
            .products = conv.spread ? 4 * pixels * conv.channels : 0};
}

}  // namespace zoetrope::ops
