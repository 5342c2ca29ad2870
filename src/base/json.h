// JSON files: read with an error that names the file and the place. Python's Infinity and NaN,
// which configs of Diffusers hold, are read as the largest double and null.
#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>

namespace zoetrope {

// Errors: not_found, io (not JSON: the message has the file and the position).
nlohmann::json read_json(const std::filesystem::path& path);

// Parses text that came from `source` (a name for messages). Errors: io.
nlohmann::json parse_json(std::string_view text, std::string_view source);

}  // namespace zoetrope
