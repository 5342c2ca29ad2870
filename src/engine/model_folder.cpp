#include "engine/model_folder.h"

#include "base/error.h"
#include "base/json.h"

#include <cstdlib>
#include <fstream>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEmbeddedTextToVideo = "demo-t2v";

std::string environment(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
}

// Where huggingface_hub keeps downloaded repositories.
fs::path hub_cache() {
    if (const auto cache = environment("HF_HUB_CACHE"); !cache.empty()) return cache;
    if (const auto home = environment("HF_HOME"); !home.empty()) return fs::path(home) / "hub";
    if (const auto cache = environment("XDG_CACHE_HOME"); !cache.empty())
        return fs::path(cache) / "huggingface" / "hub";
    return fs::path(environment("HOME")) / ".cache" / "huggingface" / "hub";
}

bool is_repository_name(const std::string& text) {
    const auto slash = text.find('/');
    return slash != std::string::npos && slash > 0 && slash + 1 < text.size() &&
           text.find('/', slash + 1) == std::string::npos && text.front() != '.' &&
           text.front() != '~';
}

fs::path find_root(const std::string& model, std::string_view asked_by) {
    if (model.empty()) return embedded_models_folder() / kEmbeddedTextToVideo;
    if (fs::exists(model)) return model;
    if (is_repository_name(model)) {
        if (const fs::path found = find_in_hub_cache(model); !found.empty()) return found;
        fail(
            ErrorKind::not_found,
            "{} is '{}': there is no such folder, and no such repository in the Hugging Face cache "
            "{}; download it there with `hf download {}` (downloading by this program is not "
            "built yet)",
            asked_by, model, hub_cache().string(), model);
    }
    fail(ErrorKind::not_found, "{} is '{}': there is no such folder or file", asked_by, model);
}

// The value of a key, or `otherwise` where it is absent or null.
template <typename Value>
Value value_of(const nlohmann::json& json, const char* key, const Value& otherwise,
               const fs::path& file) {
    const auto found = json.find(key);
    if (found == json.end() || found->is_null()) return otherwise;
    try {
        return found->template get<Value>();
    } catch (const nlohmann::json::exception&) {
        fail(ErrorKind::io, "{}: {} is {}, wanted is a value of type {}", file.string(), key,
             found->dump(), nlohmann::json(otherwise).type_name());
    }
}

nlohmann::json read_object(const fs::path& file) {
    nlohmann::json json = read_json(file);
    ZT_CHECK(json.is_object(), io, "{} is not a JSON object", file.string());
    return json;
}

// A component that model_index.json lists as [library, class]; [null, null] and absence mean that
// there is none.
bool lists(const nlohmann::json& index, const char* component) {
    const auto found = index.find(component);
    return found != index.end() && found->is_array() && found->size() == 2 &&
           !(*found)[1].is_null();
}

void refuse_other_layouts(const fs::path& root) {
    if (fs::is_regular_file(root)) {
        fail(ErrorKind::unsupported,
             "{} is a single file: such checkpoints are not built yet; give the folder of a "
             "Diffusers model (with "
             "model_index.json)",
             root.string());
    }
    const bool original =
        fs::exists(root / "Wan2.1_VAE.pth") || fs::exists(root / "Wan2.2_VAE.pth");
    ZT_CHECK(!original, unsupported,
             "{} has the layout of the original Wan repositories, which is not built yet; give the "
             "-Diffusers variant of "
             "the model",
             root.string());
    ZT_CHECK(fs::exists(root / "model_index.json"), not_found,
             "{} is not the folder of a Diffusers model: it has no model_index.json",
             root.string());
}

std::optional<EmbeddedInfo> read_embedded(const fs::path& root) {
    if (!fs::exists(root / "zoetrope.json")) return std::nullopt;
    const fs::path file = root / "zoetrope.json";
    const auto json = read_object(file);
    const auto defaults = value_of(json, "defaults", nlohmann::json::object(), file);
    const auto text = [&](const char* key) { return value_of(json, key, std::string(), file); };
    EmbeddedInfo info{.name = text("name"),
                      .understands = text("understands"),
                      .words = value_of(json, "words", std::vector<std::string>(), file),
                      .defaults = defaults};
    ZT_CHECK(defaults.is_object(), io, "{}: defaults is not a JSON object", file.string());
    for (const char* key : {"height", "width", "num_frames", "num_inference_steps"})
        value_of(defaults, key, 1, file);
    for (const char* key : {"fps", "guidance_scale"}) value_of(defaults, key, 1.0, file);
    value_of(defaults, "negative_prompt", std::string(), file);
    return info;
}

}  // namespace

// models--org--name/refs/main names the snapshot.
std::filesystem::path find_in_hub_cache(const std::string& repository) {
    std::string folder = "models--" + repository;
    folder.replace(folder.find('/'), 1, "--");
    const fs::path place = hub_cache() / folder;
    std::string revision;
    if (std::ifstream(place / "refs" / "main") >> revision) {
        const fs::path snapshot = place / "snapshots" / revision;
        if (fs::is_directory(snapshot)) return snapshot;
    }
    return {};
}

std::filesystem::path embedded_models_folder() {
    std::vector<fs::path> places;
    if (const auto given = environment("ZOETROPE_MODELS"); !given.empty()) {
        places.emplace_back(given);
    } else {
        std::error_code ignored;
        const fs::path program = fs::read_symlink("/proc/self/exe", ignored).parent_path();
        for (const char* beside :
             {"models", "../models", "../../models", "../share/zoetrope/models"}) {
            places.push_back(program / beside);
        }
    }
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

ModelFolder ModelFolder::open(const ModelPaths& paths) {
    ModelFolder model;
    model.root = find_root(paths.model, paths.asked_by);
    refuse_other_layouts(model.root);
    const fs::path index_file = model.root / "model_index.json";
    model.index = read_object(index_file);
    const std::string pipeline = value_of(model.index, "_class_name", std::string(), index_file);
    ZT_CHECK(pipeline == "WanPipeline", unsupported,
             "{} is a model for {}: WanPipeline (text-to-video) is what runs today",
             model.root.string(), pipeline.empty() ? "an unnamed pipeline" : pipeline);

    const auto part = [&model](const fs::path& given, const char* name) {
        const fs::path place = given.empty() ? model.root / name : given;
        ZT_CHECK(fs::exists(place), not_found, "the model's {} is not there: {}", name,
                 place.string());
        return place;
    };
    ZT_CHECK(lists(model.index, "transformer"), unsupported,
             "{} lists no transformer: models of the low-noise expert alone do not run",
             model.root.string());
    model.transformer = part(paths.transformer, "transformer");
    if (lists(model.index, "transformer_2") || !paths.transformer_2.empty()) {
        model.transformer_2 = part(paths.transformer_2, "transformer_2");
    }
    model.vae = part(paths.vae, "vae");
    model.text_encoder = part(paths.text_encoder, "text_encoder");
    model.tokenizer = part(paths.tokenizer, "tokenizer");

    model.scheduler = read_object(part({}, "scheduler") / "scheduler_config.json");
    model.transformer_config = read_object(model.transformer / "config.json");
    if (model.transformer_2)
        model.transformer_2_config = read_object(*model.transformer_2 / "config.json");
    model.vae_config = read_object(model.vae / "config.json");
    model.text_encoder_config = read_object(model.text_encoder / "config.json");

    if (const auto ratio = model.index.find("boundary_ratio");
        ratio != model.index.end() && !ratio->is_null()) {
        model.boundary_ratio = value_of(model.index, "boundary_ratio", 0.5, index_file);
    }
    model.expand_timesteps = value_of(model.index, "expand_timesteps", false, index_file);
    model.embedded = read_embedded(model.root);
    return model;
}

}  // namespace zoetrope
