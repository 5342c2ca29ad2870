#include "benchmark/model.h"

#include "benchmark/timing.h"
#include "ops/device.h"
#include "ops/peak.h"
#include "ops/stats.h"

#include <algorithm>

namespace zoetrope::benchmark {
namespace {

using Json = nlohmann::ordered_json;

}  // namespace

nlohmann::ordered_json bench_model(const ModelBenchOptions& options, const RunControl& control) {
    ops::set_threads(options.threads);
    const StageOptions& stage = options.stage;
    const StageWork work = make_stage_work(stage);
    const at::ScalarType dtype = ops::parse_dtype(work.dtype);
    const ops::Peak before = ops::measured_peak(dtype);
    work.run();  // warm-up
    std::vector<double> seconds;
    Json parts = Json::object(), fallbacks = Json::object();
    for (int i = 0; i < options.repeats; ++i) {
        control.throw_if_stopped();
        const ops::Collection collection;
        seconds.push_back(seconds_of(work.run));
        parts = Json::object();
        for (const auto& [name, stats] : collection.operators()) {
            parts[name] = {
                {"seconds", stats.seconds}, {"calls", stats.calls}, {"tflop", stats.flop / 1e12}};
        }
        for (const auto& [what, count] : collection.fallbacks()) fallbacks[what] = count;
    }
    const ops::Peak after = ops::measured_peak(dtype);
    const double typical = median(seconds);
    const double peak = std::min(before.flops, after.flops);
    const auto info = ops::devices().front();
    return {{"shape", stage.shape},
            {"stage", stage.stage},
            {"dtype", work.dtype},
            {"quantization", stage.quantization},
            {"threads", ops::threads()},
            {"height", stage.height},
            {"width", stage.width},
            {"num_frames", stage.num_frames},
            {"layers", work.layers},
            {"lora_rank", stage.lora_rank},
            {"seconds", typical},
            {"seconds_min", *std::min_element(seconds.begin(), seconds.end())},
            {"seconds_all", seconds},
            {"tflop", work.flop / 1e12},
            {"tflops_per_s", work.flop / typical / 1e12},
            {"peak_tflops_per_s", peak / 1e12},
            {"peak_instructions", before.instructions},
            {"fraction_of_peak", work.flop / typical / peak},
            {"peak_rss_bytes", ops::process_memory().peak_resident},
            {"parts", parts},
            {"fallbacks", fallbacks},
            {"cpu", info.name}};
}

}  // namespace zoetrope::benchmark
