// What inspect says of weights: a component, a checkpoint of several, an adapter. Private to the
// engine's sources.
#pragma once

#include "weights/layouts.h"

#include <nlohmann/json.hpp>

#include <filesystem>

namespace zoetrope {

// Tensors, parameters, bytes, and parameters by dtype.
nlohmann::ordered_json summary_of(const TensorSource& source);

// Class, layout, variant, layers and what does not fit, of a component in a source.
nlohmann::ordered_json component_of(const ComponentLayout& layout,
                                    const std::shared_ptr<const TensorSource>& source,
                                    const std::filesystem::path& path);

// Of a file or a folder of weights.
nlohmann::ordered_json inspect_weights(const std::filesystem::path& path);

}  // namespace zoetrope
