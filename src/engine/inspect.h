// What a file or folder holds: a model, weights of its components or of an adapter in any layout,
// or an output of this program. Reads headers, not weights.
#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>

namespace zoetrope {

// Keys: "kind" (model, weights, video, picture) and what there is to say of that kind. Weights have
// "components" (class, layout, variant, "problem" where tensors are missing or unexpected) or
// "adapter" (layout, ranks, targets, alphas), where they are of a kind that is known.
// Errors: not_found, io, unsupported (what kinds there are).
nlohmann::ordered_json inspect(const std::filesystem::path& path);

}  // namespace zoetrope
