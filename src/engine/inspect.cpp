#include "engine/inspect.h"

#include "base/error.h"
#include "engine/model_folder.h"
#include "media/reader.h"
#include "ops/device.h"
#include "weights/source.h"

#include <algorithm>
#include <array>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// As the file holds it.
std::string dtype_of(const TensorInfo& tensor) {
    return tensor.packed_as.empty() ? std::string(ops::name_of(tensor.dtype)) : tensor.packed_as;
}

// Parameters, bytes and dtypes of a source.
Json summary_of(const TensorSource& source) {
    std::int64_t parameters = 0, bytes = 0;
    std::map<std::string, std::int64_t> dtypes;
    for (const auto& tensor : source.tensors()) {
        parameters += tensor.elements();
        bytes += tensor.stored_bytes();
        dtypes[dtype_of(tensor)] += tensor.elements();
    }
    return {{"tensors", source.tensors().size()},
            {"parameters", parameters},
            {"bytes", bytes},
            {"dtypes", dtypes}};
}

Json inspect_model(const fs::path& path) {
    const ModelFolder model = ModelFolder::open({.model = path.string(), .asked_by = "the path"});
    Json json = {
        {"kind", "model"},
        {"layout", "diffusers"},
        {"pipeline", model.index["_class_name"]},
        {"family", model.transformer_2 ? "Wan2.2 (two experts)" : "Wan2.1"},
        {"tasks", {"t2v", "t2i"}},
        {"scheduler",
         model.scheduler.contains("_class_name") ? Json(model.scheduler["_class_name"]) : Json()}};
    if (model.boundary_ratio) json["boundary_ratio"] = *model.boundary_ratio;
    if (model.embedded)
        json["embedded"] = {{"name", model.embedded->name},
                            {"understands", model.embedded->understands}};
    Json parts;
    const auto add = [&parts](const char* name, const fs::path& place,
                              const nlohmann::json& config) {
        parts[name] = summary_of(*open_component(place));
        parts[name]["config"] = config;
    };
    add("transformer", model.transformer, model.transformer_config);
    if (model.transformer_2)
        add("transformer_2", *model.transformer_2, *model.transformer_2_config);
    add("vae", model.vae, model.vae_config);
    add("text_encoder", model.text_encoder, model.text_encoder_config);
    json["parts"] = parts;
    return json;
}

// The settings that zoetrope keeps in its files' comment, where it is one of them.
void add_settings(Json& json, const std::string& comment) {
    const Json settings = Json::parse(comment, nullptr, /*allow_exceptions=*/false);
    if (settings.is_object() && settings.contains("generator")) json["settings"] = settings;
}

Json inspect_media(const fs::path& path) {
    const MediaInfo info = probe_media(path);
    Json json = {{"kind", info.fps > 0 ? "video" : "picture"},
                 {"width", info.width},
                 {"height", info.height}};
    if (info.fps > 0) {
        json["frames"] = info.frames;
        json["fps"] = info.fps;
        json["seconds"] = info.seconds;
    }
    json["container"] = info.container;
    json["codec"] = info.codec;
    json["pixel_format"] = info.pixel_format;
    json["matrix"] = info.matrix;
    json["full_range"] = info.full_range;
    json["bytes"] = fs::file_size(path);
    json["metadata"] = info.metadata;
    if (const auto comment = info.metadata.find("comment"); comment != info.metadata.end())
        add_settings(json, comment->second);
    return json;
}

constexpr std::array<std::string_view, 5> kWeightEnds = {".safetensors", ".gguf", ".pth", ".pt",
                                                         ".bin"};

bool ends_like_weights(const fs::path& path) {
    return std::find(kWeightEnds.begin(), kWeightEnds.end(), path.extension()) != kWeightEnds.end();
}

// Of a file, or of the first weight file in a folder; empty where there is none.
std::string_view format_of(const fs::path& path) {
    if (!fs::is_directory(path)) return weights_format_of(path);
    for (const auto& entry : fs::directory_iterator(path)) {
        if (!ends_like_weights(entry.path()) || !entry.is_regular_file()) continue;
        if (const auto format = weights_format_of(entry.path()); !format.empty()) return format;
    }
    return {};
}

Json inspect_weights(const fs::path& path) {
    const auto source = open_component(path);
    Json json = {{"kind", "weights"}, {"format", format_of(path)}};
    json.update(summary_of(*source));
    Json metadata = Json::object();
    for (const auto& [key, value] : source->metadata()) metadata[key] = value;
    json["metadata"] = metadata;
    if (metadata.contains("comment")) add_settings(json, metadata["comment"]);
    Json names;
    for (const auto& tensor : source->tensors()) {
        names[tensor.name] = {{"dtype", dtype_of(tensor)}, {"shape", tensor.shape}};
    }
    json["names"] = names;
    return json;
}

}  // namespace

nlohmann::ordered_json inspect(const std::filesystem::path& path) {
    if (!fs::exists(path) || fs::exists(path / "model_index.json")) return inspect_model(path);
    const bool named_so = !fs::is_directory(path) && ends_like_weights(path);
    if (named_so || !format_of(path).empty()) return inspect_weights(path);
    ZT_CHECK(
        !fs::is_directory(path), unsupported,
        "{} is a folder without model_index.json and without weight files: inspect takes Diffusers "
        "model folders, component folders, weight files, videos and pictures",
        path.string());
    try {
        return inspect_media(path);
    } catch (const Error& error) {
        fail(ErrorKind::unsupported, "{} is no weight file, and no video or picture either: {}",
             path.string(), error.what());
    }
}

}  // namespace zoetrope
