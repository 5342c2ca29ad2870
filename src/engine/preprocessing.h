// The engine's door to the preprocessing of driving clips (preprocess/preprocess.h).
#pragma once

#include "preprocess/cache.h"
#include "preprocess/preprocess.h"

#include <filesystem>

namespace zoetrope {

// Where the pose networks that come with the program lie: ZOETROPE_POSE_MODELS, else pose-models/
// beside the program or above it. Errors: not_found.
std::filesystem::path pose_models_folder();

}  // namespace zoetrope
