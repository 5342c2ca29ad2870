#include "benchmark/kernels.h"

#include "base/error.h"
#include "benchmark/timing.h"
#include "ops/attention_cpu.h"
#include "ops/device.h"
#include "ops/linear_cpu.h"
#include "ops/peak.h"

#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <functional>
#include <map>

namespace zoetrope::benchmark {
namespace {

using Json = nlohmann::ordered_json;
using kernels::Isa;

// Of the 1.3B model.
constexpr std::int64_t kDim = 1536, kFfnDim = 8960, kHeads = 12, kHeadSize = 128, kText = 512;

struct Variant {
    Isa isa;
    std::string dtype;    // of the tensors
    at::ScalarType peak;  // whose products it is measured against
    std::function<void()> run;
};

struct Case {
    std::string name;
    double flop;
    std::vector<Variant> variants;
    std::function<void()> aten_bf16, aten_fp32;
};

at::Tensor random(std::vector<std::int64_t> shape, at::ScalarType dtype) {
    return at::randn(shape, at::kFloat).to(dtype);
}

at::ScalarType products_of(Isa isa) {
    switch (isa) {
        case Isa::avx512bf16: return at::kBFloat16;
        case Isa::avx512fp16: return at::kHalf;
        case Isa::avx512vnni: return at::kChar;
        default: return at::kFloat;
    }
}

Case attention_case(std::string name, std::int64_t queries, std::int64_t keys) {
    Case result{.name = std::move(name),
                .flop = 4.0 * static_cast<double>(queries * keys * kHeads * kHeadSize)};
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const bool wide = dtype == at::kFloat;
        const at::Tensor q = random({1, queries, kHeads, kHeadSize}, dtype);
        const at::Tensor k = random({1, keys, kHeads, kHeadSize}, dtype);
        const at::Tensor v = random({1, keys, kHeads, kHeadSize}, dtype);
        const ops::AttentionArgs args{.q = q, .k = k, .v = v};
        for (const Isa isa : kernels::available()) {
            const bool has_own = wide ? isa == Isa::avx512 || isa == Isa::avx2
                                      : isa == Isa::avx512bf16 || isa == Isa::avx512fp16;
            if (!has_own || !ops::attention_cpu_takes(args, isa)) continue;
            result.variants.push_back({isa, wide ? "fp32" : "bf16", products_of(isa),
                                       [args, isa] { ops::attention_cpu(args, isa); }});
        }
        (wide ? result.aten_fp32 : result.aten_bf16) = [q, k, v] {
            at::scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2),
                                             v.transpose(1, 2));
        };
    }
    return result;
}

Case linear_case(std::string name, std::int64_t rows, std::int64_t in, std::int64_t out,
                 ops::Epilogue epilogue) {
    Case result{.name = std::move(name), .flop = 2.0 * static_cast<double>(rows * in * out)};
    const at::Tensor x = random({rows, in}, at::kBFloat16);
    const at::Tensor w = random({out, in}, at::kBFloat16).mul_(0.02);
    const at::Tensor bias = random({out}, at::kBFloat16);
    const auto add = [&](Isa isa, std::string dtype, const ops::Matrix& matrix) {
        const ops::LinearArgs args{.x = x, .weight = matrix, .bias = bias, .epilogue = epilogue};
        if (!kernels::has(isa) || !ops::linear_cpu_takes(args, isa)) return;
        result.variants.push_back(
            {isa, std::move(dtype), products_of(isa), [args, isa] { ops::linear_cpu(args, isa); }});
    };
    for (const Isa isa : {Isa::avx512, Isa::avx512bf16, Isa::avx512fp16}) add(isa, "bf16", {w});
    if (ops::takes_int8(at::kCPU, at::kBFloat16))
        add(Isa::avx512vnni, "int8", ops::quantise_int8(w));
    const bool gelu = epilogue == ops::Epilogue::gelu_tanh;
    result.aten_bf16 = [x, w, bias, gelu] {
        at::Tensor y = at::linear(x, w, bias);
        if (gelu) at::gelu_(y, "tanh");
    };
    return result;
}

void measure(const Case& item, const KernelBenchOptions& options,
             const std::map<at::ScalarType, double>& peaks, const RunControl& control, Json& rows) {
    for (const Variant& variant : item.variants) {
        if (!options.isa.empty() && kernels::name_of(variant.isa) != options.isa) continue;
        const auto& aten = variant.dtype == "fp32" ? item.aten_fp32 : item.aten_bf16;
        std::vector<double> ours, theirs;
        variant.run();
        aten();
        for (int i = 0; i < options.repeats; ++i) {
            control.throw_if_stopped();
            ours.push_back(seconds_of(variant.run));
            theirs.push_back(seconds_of(aten));
        }
        const double seconds = median(ours), speed = item.flop / seconds;
        rows.push_back({{"kernel", item.name},
                        {"isa", kernels::name_of(variant.isa)},
                        {"dtype", variant.dtype},
                        {"seconds", seconds},
                        {"seconds_all", ours},
                        {"tflops_per_s", speed / 1e12},
                        {"fraction_of_peak", speed / peaks.at(variant.peak)},
                        {"aten_dtype", variant.dtype == "fp32" ? "fp32" : "bf16"},
                        {"aten_seconds", median(theirs)},
                        {"times_aten", median(theirs) / seconds}});
    }
}

}  // namespace

nlohmann::ordered_json bench_kernels(const KernelBenchOptions& options, const RunControl& control) {
    const c10::InferenceMode inference;
    ops::set_threads(options.threads);
    std::vector<std::string_view> names;
    for (const Isa isa : kernels::available()) names.push_back(kernels::name_of(isa));
    ZT_CHECK(
        options.isa.empty() || std::find(names.begin(), names.end(), options.isa) != names.end(),
        bad_request, "--isa is '{}': this CPU has {}", options.isa, fmt::join(names, ", "));
    std::map<at::ScalarType, double> peaks;
    Json peak_rows = Json::array();
    for (const at::ScalarType products : {at::kFloat, at::kBFloat16, at::kHalf, at::kChar}) {
        const ops::Peak peak = ops::product_peak(products);
        if (peak.flops == 0) continue;
        peaks[products] = peak.flops;
        peak_rows.push_back(
            {{"instructions", peak.instructions}, {"tflops_per_s", peak.flops / 1e12}});
    }
    const std::int64_t tokens = options.tokens;
    using ops::Epilogue;
    const std::function<Case()> cases[] = {
        [&] { return attention_case("self_attention", tokens, tokens); },
        [&] { return attention_case("cross_attention", tokens, kText); },
        [&] { return linear_case("linear_qkvo", tokens, kDim, kDim, Epilogue::none); },
        [&] {
            return linear_case("linear_ffn_up_gelu", tokens, kDim, kFfnDim, Epilogue::gelu_tanh);
        },
        [&] { return linear_case("linear_ffn_down", tokens, kFfnDim, kDim, Epilogue::none); },
        [&] { return linear_case("linear_text_30_tokens", 30, 4096, 10240, Epilogue::none); },
    };
    Json rows = Json::array();
    for (const auto& make : cases) measure(make(), options, peaks, control, rows);
    return {{"cpu", ops::devices().front().name},
            {"threads", ops::threads()},
            {"tokens", tokens},
            {"peaks", peak_rows},
            {"kernels", rows}};
}

}  // namespace zoetrope::benchmark
