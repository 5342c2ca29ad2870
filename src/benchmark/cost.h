// What segments cost on this machine: a model's own run at a few lengths, and the coefficients
// fitted to them, by which `generate` predicts times and chooses lengths.
//
// One thread. Uses all operator threads, and says little where other programs do too.
#pragma once

#include "base/progress.h"
#include "engine/engine.h"

#include <nlohmann/json.hpp>

#include <functional>
#include <string>
#include <vector>

namespace zoetrope::benchmark {

struct CostOptions {
    ModelPaths paths;
    EngineOptions engine;
    Request request;           // its frames and segments are set by the lengths
    std::vector<int> lengths;  // of segments, frames: 4n+1, two or more
    // The prompt of a run that was given none.
    std::function<std::string(const ResolvedRequest&, const Engine&)> prompt;
};

// Runs the shortest length once to warm up, then each length, and stores the calibration in the
// place of an earlier one. -> "model", "settings", "threads", "cpu", "coefficients" (seconds per
// 10^12 operations or 10^6 pixels, and per segment), "disturbed" (whether other programs took much
// of the cores) and "rows": "length", "denoise_seconds", "vae_seconds", "seconds",
// "predicted_seconds". Errors: bad_request for fewer than two different lengths and those that the
// model does not take; those of a run.
nlohmann::ordered_json bench_cost(const CostOptions& options, const RunControl& control);

}  // namespace zoetrope::benchmark
