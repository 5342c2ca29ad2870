// What a file or folder holds: a model, a weights file, or an output of this program. Reads
// headers, not weights.
#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>

namespace zoetrope {

// Keys: "kind" (model, weights, video, picture) and what there is to say of that kind.
// Errors: not_found, io, unsupported (what kinds there are).
nlohmann::ordered_json inspect(const std::filesystem::path& path);

}  // namespace zoetrope
