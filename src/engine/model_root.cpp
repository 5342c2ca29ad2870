// Where models lie: the Hugging Face cache, the embedded ones, a path.
#include "base/error.h"
#include "engine/model_json.h"
#include "engine/model_search.h"
#include "net/hub_cache.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
}

// Where they may lie; nothing need be there.
std::vector<fs::path> embedded_places() {
    if (const auto given = environment("ZOETROPE_MODELS"); !given.empty()) return {given};
    std::error_code ignored;
    const fs::path program = fs::read_symlink("/proc/self/exe", ignored).parent_path();
    std::vector<fs::path> places;
    for (const char* beside : {"models", "../models", "../../models", "../share/zoetrope/models"})
        places.push_back(program / beside);
    return places;
}

// An embedded model's folder; empty where it is not there.
fs::path find_embedded(std::string_view name) {
    if (name.empty() || name.find('/') != std::string_view::npos || name.starts_with('.'))
        return {};
    for (const fs::path& place : embedded_places()) {
        if (is_there(place / name / "zoetrope.json")) return fs::canonical(place / name);
    }
    return {};
}

}  // namespace

fs::path find_root(const ModelPaths& paths) {
    const std::string& model = paths.model;
    if (model.empty()) {
        const fs::path folder = embedded_models_folder();
        ZT_CHECK(
            is_there(folder / paths.embedded / "model_index.json"), not_found,
            "{} was not given, and {}, the embedded model for such a run, is not in {}: name a "
            "model with {}",
            paths.asked_by, paths.embedded, folder.string(), paths.asked_by);
        return folder / paths.embedded;
    }
    if (fs::exists(model)) return model;
    if (const fs::path embedded = find_embedded(model); !embedded.empty()) return embedded;
    if (is_repository_name(model)) {
        if (const fs::path found = find_snapshot(model); !found.empty()) return found;
        fail(ErrorKind::not_found,
             "{} is '{}': there is no such folder, and no such repository in the Hugging Face "
             "cache {}; `zoetrope pull {}` downloads it there, and so does --pull",
             paths.asked_by, model, hub_cache_folder().string(), model);
    }
    fail(ErrorKind::not_found, "{} is '{}': there is no such folder or file", paths.asked_by,
         model);
}

std::optional<int> EmbeddedInfo::number(const char* key) const {
    const auto found = defaults.find(key);
    return found == defaults.end() ? std::nullopt : std::optional(found->get<int>());
}

std::optional<EmbeddedInfo> read_embedded(const fs::path& root) {
    if (!fs::exists(root / "zoetrope.json")) return std::nullopt;
    const fs::path file = root / "zoetrope.json";
    const auto json = read_json_object(file);
    const auto defaults = json_value(json, "defaults", nlohmann::json::object(), file);
    const auto text = [&](const char* key) { return json_value(json, key, std::string(), file); };
    EmbeddedInfo info{.name = text("name"),
                      .understands = text("understands"),
                      .words = json_value(json, "words", std::vector<std::string>(), file),
                      .defaults = defaults};
    ZT_CHECK(defaults.is_object(), io, "{}: defaults is not a JSON object", file.string());
    for (const char* key : {"height", "width", "num_frames", "num_inference_steps",
                            "segment_length", "segment_max_length", "segment_overlap"})
        json_value(defaults, key, 1, file);
    for (const char* key : {"fps", "guidance_scale"}) json_value(defaults, key, 1.0, file);
    json_value(defaults, "negative_prompt", std::string(), file);
    return info;
}

std::filesystem::path embedded_models_folder() {
    const std::vector<fs::path> places = embedded_places();
    for (const fs::path& place : places) {
        if (fs::is_directory(place)) return fs::canonical(place);
    }
    std::string looked;
    for (const fs::path& place : places) looked += (looked.empty() ? "" : ", ") + place.string();
    fail(ErrorKind::not_found,
         "the embedded models were not found (looked in {}); set ZOETROPE_MODELS to the folder "
         "models/ of the source tree",
         looked);
}

std::vector<std::string> words_never_seen(const EmbeddedInfo& info, std::string_view prompt) {
    std::vector<std::string> unknown;
    if (info.words.empty()) return unknown;
    std::string word;
    const auto end_word = [&] {
        const auto is = [&word](const std::string& other) { return other == word; };
        const bool new_one = !word.empty() &&
                             std::none_of(info.words.begin(), info.words.end(), is) &&
                             std::none_of(unknown.begin(), unknown.end(), is);
        if (new_one) unknown.push_back(word);
        word.clear();
    };
    for (const char c : prompt) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte >= 128 || std::isalnum(byte)) {
            word += static_cast<char>(byte < 128 ? std::tolower(byte) : byte);
        } else {
            end_word();
        }
    }
    end_word();
    return unknown;
}

}  // namespace zoetrope
