// The --config file: TOML or JSON with flags as keys.
#include "base/error.h"
#include "base/error_context.h"
#include "base/json.h"
#include "cli/flags.h"

#include <CLI/Config.hpp>

#include <fstream>

namespace zoetrope::cli {
namespace {

// A JSON value as it would be typed.
std::vector<std::string> typed_values(const nlohmann::json& value) {
    if (value.is_array()) {
        std::vector<std::string> values;
        for (const auto& item : value)
            values.push_back(item.is_string() ? item.get<std::string>() : item.dump());
        return values;
    }
    return {value.is_string() ? value.get<std::string>() : value.dump()};
}

std::string flag_of(std::string key) {
    std::replace(key.begin(), key.end(), '_', '-');
    return "--" + key;
}

}  // namespace

std::map<std::string, std::vector<std::string>> read_config_file(const std::string& path) {
    std::map<std::string, std::vector<std::string>> values;
    if (path.ends_with(".json")) {
        const auto json = with_context("--config", [&] { return read_json(path); });
        ZT_CHECK(json.is_object(), bad_request,
                 "--config {}: a JSON object with flags as keys is wanted", path);
        for (const auto& [key, value] : json.items()) values[flag_of(key)] = typed_values(value);
        return values;
    }
    std::ifstream file(path);
    ZT_CHECK(file.good() && file.peek() != std::ifstream::traits_type::eof(), not_found,
             "--config is '{}': there is no such file, or nothing in it", path);
    try {
        for (const auto& item : CLI::ConfigTOML().from_config(file)) {
            if (item.name == "++" || item.name == "--")
                continue;  // CLI11's marks of a section's begin and end
            ZT_CHECK(item.parents.empty(), bad_request,
                     "--config {}: sections are not taken, [{}] is one", path,
                     item.parents.front());
            values[flag_of(item.name)] = item.inputs;
        }
    } catch (const CLI::Error& error) {
        fail(ErrorKind::bad_request, "--config {}: not a TOML file: {}", path, error.what());
    }
    return values;
}

}  // namespace zoetrope::cli
