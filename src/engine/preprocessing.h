// The engine's door to the preprocessing of driving clips (preprocess/preprocess.h).
//
// Any thread.
#pragma once

#include "preprocess/cache.h"
#include "preprocess/preprocess.h"

#include <nlohmann/json_fwd.hpp>

#include <filesystem>

namespace zoetrope {

// Where the pose networks that come with the program lie: ZOETROPE_POSE_MODELS, else pose-models/
// beside the program or above it. Errors: not_found.
std::filesystem::path pose_models_folder();

// Sets the folder of MediaPipe's networks where the others that were given leave something to them,
// and the number of threads where it is 0: the cores this process may use. Errors: not_found.
void complete(preprocess::Options& options, int threads);

// What decides the result beside the clip and its rate, for a file's metadata.
nlohmann::json settings_of(const preprocess::Options& options, bool replace);

nlohmann::json to_json(const preprocess::Report& report);

}  // namespace zoetrope
