// What decides a run's result, as JSON: two runs with equal descriptions give the same bytes.
//
// Contents of the model's files are sampled, those of the user's inputs read whole. Pure functions,
// any thread. Errors: io for files that cannot be read.
#pragma once

#include "engine/engine.h"

#include <nlohmann/json.hpp>

#include <filesystem>

namespace zoetrope {

// Keys: "settings" (what the output's metadata say), "segment" (the flags), "segments" (what became
// of them), "steps", "output", "inputs", "model", "adapters", "program", "computed_with". output:
// the file that is written, of which only the ending counts.
nlohmann::json fingerprint(const ResolvedRequest& request, const Engine& engine,
                           const std::filesystem::path& output);

// The processor's name, which is not part of it: on another one of the same instruction set a run
// can go on, to a result that may differ in the last bits.
std::string processor_name();

// "6037480 bytes, 0123...": size, the first 64 KiB and pieces all over the file.
std::string sampled_content(const std::filesystem::path& file);

}  // namespace zoetrope
