#include "benchmark/kernels.h"

#include "base/error.h"
#include "benchmark/kernel_cases.h"
#include "benchmark/timing.h"
#include "ops/device.h"
#include "ops/peak.h"

#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <functional>
#include <map>

namespace zoetrope::benchmark {
namespace {

using Json = nlohmann::ordered_json;
using kernels::Isa;

struct Peaks {
    std::map<at::ScalarType, double> products;  // operations a second
    double memory = 0;                          // bytes a second, read and written
};

// Of copying 256 MiB, which no cache holds.
double memory_peak() {
    constexpr std::int64_t kFloats = std::int64_t{64} << 20;
    const at::Tensor from = at::zeros({kFloats}, at::kFloat);
    at::Tensor to = at::zeros({kFloats}, at::kFloat);
    std::vector<double> seconds;
    for (int i = 0; i < 5; ++i) seconds.push_back(seconds_of([&] { to.copy_(from); }));
    return 2 * 4 * static_cast<double>(kFloats) / median(seconds);
}

void measure(const KernelCase& item, const KernelBenchOptions& options, const Peaks& peaks,
             const RunControl& control, Json& rows) {
    for (const KernelVariant& variant : item.variants) {
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
        const double seconds = median(ours);
        Json row = {{"kernel", item.name},
                    {"isa", kernels::name_of(variant.isa)},
                    {"dtype", variant.dtype},
                    {"seconds", seconds},
                    {"seconds_all", ours}};
        if (item.flop > 0) {
            row["tflops_per_s"] = item.flop / seconds / 1e12;
            row["fraction_of_peak"] = item.flop / seconds / peaks.products.at(variant.peak);
        } else {
            row["gbytes_per_s"] = item.bytes / seconds / 1e9;
            row["fraction_of_peak"] = item.bytes / seconds / peaks.memory;
        }
        row.update({{"aten_dtype", variant.dtype == "fp32" ? "fp32" : "bf16"},
                    {"aten_seconds", median(theirs)},
                    {"times_aten", median(theirs) / seconds}});
        rows.push_back(std::move(row));
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
    Peaks peaks{.products = {}, .memory = memory_peak()};
    Json peak_rows = Json::array();
    for (const at::ScalarType products : {at::kFloat, at::kBFloat16, at::kHalf, at::kChar}) {
        const ops::Peak peak = ops::product_peak(products);
        if (peak.flops == 0) continue;
        peaks.products[products] = peak.flops;
        peak_rows.push_back(
            {{"instructions", peak.instructions}, {"tflops_per_s", peak.flops / 1e12}});
    }
    Json rows = Json::array();
    for (const auto& make : kernel_cases(options.tokens))
        measure(make(), options, peaks, control, rows);
    return {{"cpu", ops::devices().front().name},
            {"threads", ops::threads()},
            {"tokens", options.tokens},
            {"peaks", peak_rows},
            {"copy_gbytes_per_s", peaks.memory / 1e9},
            {"kernels", rows}};
}

}  // namespace zoetrope::benchmark
