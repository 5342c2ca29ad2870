#include "benchmark/kernel_cases.h"

#include "ops/attention_cpu.h"
#include "ops/conv_cpu.h"
#include "ops/device.h"
#include "ops/linear_cpu.h"
#include "ops/norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/scaled_dot_product_attention.h>

namespace zoetrope::benchmark {
namespace {

using kernels::Isa;

// Of the 1.3B model.
constexpr std::int64_t kDim = 1536, kFfnDim = 8960, kHeads = 12, kHeadSize = 128, kText = 512;

at::Tensor random(std::vector<std::int64_t> shape, at::ScalarType dtype) {
    return at::randn(shape, at::kFloat).to(dtype);
}

// Which kernels are wanted: all of this CPU, or those of one instruction set.
struct Wanted {
    std::optional<Isa> only;
    bool operator()(Isa isa) const { return only ? isa == *only : kernels::has(isa); }
};

KernelCase attention_case(std::string name, std::int64_t queries, std::int64_t keys,
                          const Wanted& wanted) {
    KernelCase result{.name = std::move(name),
                      .flop = 4.0 * static_cast<double>(queries * keys * kHeads * kHeadSize)};
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const bool wide = dtype == at::kFloat;
        const at::Tensor q = random({1, queries, kHeads, kHeadSize}, dtype);
        const at::Tensor k = random({1, keys, kHeads, kHeadSize}, dtype);
        const at::Tensor v = random({1, keys, kHeads, kHeadSize}, dtype);
        const ops::AttentionArgs args{.q = q, .k = k, .v = v};
        const auto add = [&](Isa isa, const char* type, const ops::AttentionArgs& call) {
            if (wanted(isa) && ops::attention_cpu_takes(call, isa))
                result.variants.push_back(
                    {isa, type, [call, isa] { ops::attention_cpu(call, isa); }});
        };
        if (wide) {
            for (const Isa isa : {Isa::avx2, Isa::avx512}) add(isa, "fp32", args);
        } else {
            for (const Isa isa : {Isa::avx512bf16, Isa::avx512fp16, Isa::amx})
                add(isa, "bf16", args);
            ops::AttentionArgs int8 = args;
            int8.int8 = true;
            add(Isa::avx512vnni, "int8", int8);
        }
        (wide ? result.aten_fp32 : result.aten_bf16) = [q, k, v] {
            at::scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2),
                                             v.transpose(1, 2));
        };
    }
    return result;
}

KernelCase linear_case(std::string name, std::int64_t rows, std::int64_t in, std::int64_t out,
                       ops::Epilogue epilogue, const Wanted& wanted) {
    KernelCase result{.name = std::move(name), .flop = 2.0 * static_cast<double>(rows * in * out)};
    const at::Tensor x = random({rows, in}, at::kBFloat16);
    const at::Tensor w = random({out, in}, at::kBFloat16).mul_(0.02);
    const at::Tensor bias = random({out}, at::kBFloat16);
    const auto add = [&](Isa isa, std::string dtype, const ops::Matrix& matrix) {
        const ops::LinearArgs args{.x = x, .weight = matrix, .bias = bias, .epilogue = epilogue};
        if (!wanted(isa) || !ops::linear_cpu_takes(args, isa)) return;
        result.variants.push_back(
            {isa, std::move(dtype), [args, isa] { ops::linear_cpu(args, isa); }});
    };
    for (const Isa isa : {Isa::avx512, Isa::avx512bf16, Isa::avx512fp16, Isa::amx})
        add(isa, "bf16", {w});
    if (ops::takes_int8(at::kCPU, at::kBFloat16)) {
        const ops::Matrix packed = ops::quantise_int8(w);
        for (const Isa isa : {Isa::avx512vnni, Isa::amxint8}) add(isa, "int8", packed);
    }
    const bool gelu = epilogue == ops::Epilogue::gelu_tanh;
    result.aten_bf16 = [x, w, bias, gelu] {
        at::Tensor y = at::linear(x, w, bias);
        if (gelu) at::gelu_(y, "tanh");
    };
    return result;
}

// A residual block's convolution at the VAE's widest stage, on a quarter of a 480x832 frame.
KernelCase conv_case(const Wanted& wanted) {
    constexpr std::int64_t kChannels = 96, kFrames = 4, kHeight = 240, kWidth = 416;
    KernelCase result{.name = "vae_conv_3x3x3_96",
                      .flop = 2.0 * 27 * kChannels * kChannels * kFrames * kHeight * kWidth};
    const at::Tensor x = random({1, kChannels, kFrames, kHeight, kWidth}, at::kFloat)
                             .contiguous(at::MemoryFormat::ChannelsLast3d);
    const at::Tensor weight = random({kChannels, kChannels, 3, 3, 3}, at::kFloat).mul_(0.02);
    const at::Tensor bias = random({kChannels}, at::kFloat);
    const ops::ConvSpec spec{.weight = {kChannels, kChannels, 3, 3, 3},
                             .options = {.time_padding = 2, .padding = {1, 1, 1, 1}}};
    for (const Isa isa : {Isa::avx512, Isa::avx512bf16, Isa::avx512fp16, Isa::amx}) {
        if (!wanted(isa)) continue;
        const ops::PackedConv packed = ops::pack_conv(weight, bias, spec, isa);
        result.variants.push_back({isa, isa == Isa::avx512 ? "fp32" : "bf16", [packed, x] {
                                       ops::ConvHistory history;
                                       const ops::ConvStage stage{
                                           .conv = packed, .gamma = {}, .history = &history};
                                       ops::causal_conv3d_cpu(std::span(&stage, 1), {.x = x});
                                   }});
    }
    const auto aten = [](at::Tensor in, at::Tensor w, at::Tensor b) {
        return [in = std::move(in), w = std::move(w), b = std::move(b)] {
            at::conv3d(in, w, b, 1, {2, 1, 1});  // two frames more than ours: zeros behind as well
        };
    };
    result.aten_fp32 = aten(x, weight, bias);
    result.aten_bf16 = aten(x.to(at::kBFloat16), weight.to(at::kBFloat16), bias.to(at::kBFloat16));
    return result;
}

// The passes over memory of a DiT block, with the kernels that operators choose by themselves.
std::vector<std::function<KernelCase()>> memory_cases(std::int64_t tokens) {
    const double elements = static_cast<double>(tokens * kDim);
    const auto make = [=](std::string name, double bytes, std::function<void()> ours,
                          std::function<void()> aten) {
        KernelCase result{.name = std::move(name), .bytes = bytes * elements};
        result.variants.push_back({kernels::isa(), "bf16", std::move(ours)});
        result.aten_bf16 = std::move(aten);
        return result;
    };
    return {
        [=] {
            const at::Tensor x = random({1, tokens, kDim}, at::kFloat);
            const at::Tensor shift = random({1, kDim}, at::kFloat),
                             scale = random({1, kDim}, at::kFloat);
            return make(
                "layer_norm_modulate", 4 + 2,
                [=] { ops::layer_norm_modulate(x, shift, scale, {}, 1e-6, at::kBFloat16); },
                [=] {
                    (at::layer_norm(x, {kDim}, {}, {}, 1e-6) * (1 + scale) + shift)
                        .to(at::kBFloat16);
                });
        },
        [=] {
            const at::Tensor x = random({1, tokens, kDim}, at::kBFloat16);
            const at::Tensor weight = random({kDim}, at::kFloat);
            const ops::RotaryTable table{random({tokens, kHeadSize / 2}, at::kFloat),
                                         random({tokens, kHeadSize / 2}, at::kFloat)};
            return make(
                "rms_norm_rotary", 2 + 2, [=] { ops::rms_norm_rotary(x, weight, 1e-6, table); },
                [=] {
                    const at::Tensor pairs = at::rms_norm(x, {kDim}, weight.to(at::kBFloat16), 1e-6)
                                                 .view({tokens, kHeads, kHeadSize / 2, 2});
                    const at::Tensor a = pairs.select(3, 0), b = pairs.select(3, 1);
                    const at::Tensor cos = table.cos.unsqueeze(1), sin = table.sin.unsqueeze(1);
                    at::Tensor out = at::empty_like(pairs);
                    out.select(3, 0).copy_(a * cos - b * sin);
                    out.select(3, 1).copy_(a * sin + b * cos);
                });
        },
        [=] {
            const at::Tensor x = random({1, tokens, kDim}, at::kBFloat16);
            const at::Tensor gate = random({1, kDim}, at::kFloat);
            at::Tensor sum = random({1, tokens, kDim}, at::kFloat);
            return make(
                "add_gated", 2 + 4 + 4, [=]() mutable { ops::add_gated(sum, x, gate, {}); },
                [=] { sum.add_(x * gate); });
        },
    };
}

}  // namespace

std::vector<std::function<KernelCase()>> kernel_cases(std::int64_t tokens,
                                                      std::optional<Isa> only) {
    using ops::Epilogue;
    const Wanted wanted{only};
    const auto linear = [=](const char* name, std::int64_t rows, std::int64_t in, std::int64_t out,
                            Epilogue epilogue) {
        return [=] { return linear_case(name, rows, in, out, epilogue, wanted); };
    };
    std::vector<std::function<KernelCase()>> cases = {
        [=] { return attention_case("self_attention", tokens, tokens, wanted); },
        [=] { return attention_case("cross_attention", tokens, kText, wanted); },
        linear("linear_qkvo", tokens, kDim, kDim, Epilogue::none),
        linear("linear_ffn_up_gelu", tokens, kDim, kFfnDim, Epilogue::gelu_tanh),
        linear("linear_ffn_down", tokens, kFfnDim, kDim, Epilogue::none),
        linear("linear_text_30_tokens", 30, 4096, 10240, Epilogue::none),
        [=] { return conv_case(wanted); },
    };
    if (only && *only != kernels::isa()) return cases;
    for (auto& pass : memory_cases(tokens)) cases.push_back(std::move(pass));
    return cases;
}

}  // namespace zoetrope::benchmark
