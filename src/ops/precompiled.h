// What nearly every source that touches tensors includes; compiled once and shared by all rooms
// that link LibTorch.
#pragma once

#include <ATen/core/Tensor.h>
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>
