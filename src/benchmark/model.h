// zoetrope bench model: a stage of a real model's shape on random weights, timed beside the
// machine's own peak.
//
// Figures of one call belong together; between machines only the ratios hold. Uses all operator
// threads.
#pragma once

#include "base/progress.h"
#include "engine/stage_work.h"

#include <nlohmann/json.hpp>

namespace zoetrope::benchmark {

struct ModelBenchOptions {
    StageOptions stage;
    int repeats = 3;
    int threads = 0;
};

// Keys: shape, stage, dtype, quantization, threads, height, width, num_frames, layers, lora_rank,
// seconds (median, after one warm-up), seconds_min, seconds_all, tflop, tflops_per_s,
// peak_tflops_per_s (the lower of before and after), peak_instructions, fraction_of_peak,
// peak_rss_bytes, parts (seconds per operator in one repeat), fallbacks, cpu. Errors: bad_request
// with the names accepted; unsupported for stages that are not built.
nlohmann::ordered_json bench_model(const ModelBenchOptions& options, const RunControl& control);

}  // namespace zoetrope::benchmark
