// Weight files by their content. Pure function, any thread.
#pragma once

#include "weights/source.h"

#include <filesystem>
#include <memory>

namespace zoetrope {

// open_weights_file() with the scales of 8-bit weights left as tensors of their own.
std::shared_ptr<const TensorSource> open_as_stored(const std::filesystem::path& file);

}  // namespace zoetrope
