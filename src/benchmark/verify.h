// `zoetrope verify`: a model's stages run here and, by tools/verify/reference.py, in Diffusers.
//
// Two steps at a small size on the user's own weights. Every module is given the same inputs in
// both programs, so an error stays where it arises. Nothing of the model is changed.
#pragma once

#include "base/progress.h"
#include "engine/engine.h"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>

namespace zoetrope::benchmark {

struct VerifyOptions {
    ModelPaths paths;
    EngineOptions engine;
    Request request;
    std::filesystem::path output;     // folder for the tensors and the report
    std::filesystem::path reference;  // what Diffusers loads; empty: the model's own folder
    std::string python = "python3";   // that has Diffusers
    bool compare = true;              // else only our side is written
};

// -> the report: per module the relative error and whether it is within its bar; "passed". Written
// as report.json and report.md too. Errors: those of the engine; not_found where Python or
// Diffusers is missing, io where the reference fails (its words are in reference.log).
nlohmann::ordered_json verify(const VerifyOptions& options, const RunControl& control);

}  // namespace zoetrope::benchmark
