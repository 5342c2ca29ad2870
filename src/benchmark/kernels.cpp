#include "benchmark/kernels.h"

#include "base/error.h"
#include "benchmark/kernel_cases.h"
#include "benchmark/timing.h"
#include "ops/brgemm.h"
#include "ops/device.h"
#include "ops/peak.h"

#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <functional>
#include <map>
#include <vector>

namespace zoetrope::benchmark {
namespace {

using Json = nlohmann::ordered_json;
using kernels::Isa;

struct Peaks {
    std::map<Isa, double> products;  // operations a second
    double memory = 0;               // bytes a second, read and written
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

// Those of this CPU, or the one that is named.
std::vector<Isa> timed(const std::string& name) {
    std::vector<Isa> found = kernels::available();
    std::erase(found, Isa::ref);
    if (name.empty()) return found;
    for (const Isa isa : {Isa::amx, Isa::amxint8}) {
        if (!kernels::has(isa) && ops::brgemm_runs(isa)) found.push_back(isa);
    }
    std::vector<std::string_view> names;
    for (const Isa isa : found) {
        if (kernels::name_of(isa) == name) return {isa};
        names.push_back(kernels::name_of(isa));
    }
    fail(ErrorKind::bad_request, "--isa is '{}': this CPU runs {}", name, fmt::join(names, ", "));
}

void measure(const KernelCase& item, const KernelBenchOptions& options, const Peaks& peaks,
             const RunControl& control, Json& rows) {
    for (const KernelVariant& variant : item.variants) {
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
            row["fraction_of_peak"] = item.flop / seconds / peaks.products.at(variant.isa);
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
    const std::vector<Isa> isas = timed(options.isa);
    Peaks peaks{.products = {}, .memory = memory_peak()};
    Json peak_rows = Json::array();
    for (const Isa isa : isas) {
        const ops::Peak peak = ops::product_peak(isa);
        peaks.products[isa] = peak.flops;
        peak_rows.push_back(
            {{"instructions", peak.instructions}, {"tflops_per_s", peak.flops / 1e12}});
    }
    const std::optional<Isa> only =
        options.isa.empty() ? std::nullopt : std::optional<Isa>(isas.front());
    Json rows = Json::array();
    for (const auto& make : kernel_cases(options.tokens, only))
        measure(make(), options, peaks, control, rows);
    return {{"cpu", ops::devices().front().name},
            {"threads", ops::threads()},
            {"tokens", options.tokens},
            {"peaks", peak_rows},
            {"copy_gbytes_per_s", peaks.memory / 1e9},
            {"kernels", rows}};
}

}  // namespace zoetrope::benchmark
