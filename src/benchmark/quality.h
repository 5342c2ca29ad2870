// What a model's own settings cost in quality: the same seed run plainly and in variants, one after
// the other, each compared with the plain run frame by frame.
//
// The plain run's frames stay in memory in 16 bits (6 bytes a pixel). Rows are handed out as they
// are finished, so that a run that is stopped has them. One thread.
#pragma once

#include "base/progress.h"
#include "engine/engine.h"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace zoetrope::benchmark {

struct QualityVariant {
    std::string name;  // "quantization=int8"
    EngineOptions engine;
    Request request;
};

struct QualityOptions {
    ModelPaths paths;
    QualityVariant plain;  // without a seed, one is drawn for all
    // What is compared with it, once the plain run's settings are known.
    std::function<std::vector<QualityVariant>(const ResolvedRequest&, const Engine&)> variants;
    // The prompt of a run that was given none.
    std::function<std::string(const ResolvedRequest&, const Engine&)> prompt;
    std::filesystem::path lpips;   // the file of Lpips' weights; empty: not measured
    std::filesystem::path videos;  // a folder for each run's video; empty: none are written
};

// The table so far: "model", "settings" of the plain run, "metrics" (what they are), "rows". Of a
// row: "name", "psnr" and "psnr_worst" (dB; null where all frames are equal), "ssim" and
// "ssim_worst", "lpips" (null without a file), "identical", "frames", "seconds" (of the segments:
// encoding, denoising and decoding, without reading weights), "peak_bytes" (of the process less the
// frames that are kept), "drift" at joins (null without joins), and the settings that may differ;
// or "error" where the variant does not run.
using QualityTable = nlohmann::ordered_json;

// on_row is called after each row. Errors: those of the plain run; cancelled.
QualityTable bench_quality(const QualityOptions& options, const RunControl& control,
                           const std::function<void(const QualityTable&)>& on_row);

}  // namespace zoetrope::benchmark
