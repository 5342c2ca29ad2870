// Values out of a model's JSON files, with errors that name the file and the key. Private to the
// engine's sources.
#pragma once

#include "base/error.h"
#include "base/json.h"

#include <nlohmann/json.hpp>

#include <filesystem>

namespace zoetrope {

// The value of a key, or `otherwise` where it is absent or null.
template <typename Value>
Value json_value(const nlohmann::json& json, const char* key, const Value& otherwise,
                 const std::filesystem::path& file) {
    const auto found = json.find(key);
    if (found == json.end() || found->is_null()) return otherwise;
    try {
        return found->template get<Value>();
    } catch (const nlohmann::json::exception&) {
        fail(ErrorKind::io, "{}: {} is {}, wanted is a value of type {}", file.string(), key,
             found->dump(), nlohmann::json(otherwise).type_name());
    }
}

inline nlohmann::json read_json_object(const std::filesystem::path& file) {
    nlohmann::json json = read_json(file);
    ZT_CHECK(json.is_object(), io, "{} is not a JSON object", file.string());
    return json;
}

}  // namespace zoetrope
