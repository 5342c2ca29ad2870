#include "engine/inspect.h"

#include "base/error.h"
#include "engine/inspect_weights.h"
#include "engine/known_models.h"
#include "media/reader.h"

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// What a model is, where the table of released ones does not know it.
std::string family_of(const ModelFolder& model) {
    if (model.transformer_2) return "Wan2.2 (two experts)";
    return model.vae_config.value("is_residual", nlohmann::json()) == true ? "Wan2.2" : "Wan2.1";
}

Json tasks_of(const ModelFolder& model, const KnownModel* known) {
    std::vector<Task> tasks;
    if (known != nullptr) {
        tasks.assign(known->tasks.begin(), known->tasks.end());
    } else if (model.pipeline == "WanPipeline") {
        tasks = {Task::t2v, Task::t2i};
    } else if (model.pipeline == "WanImageToVideoPipeline") {
        tasks = {Task::i2v};
    } else if (model.pipeline == "WanVideoToVideoPipeline") {
        tasks = {Task::v2v};
    } else if (model.pipeline == "WanVACEPipeline") {
        tasks = {Task::vace};
    } else if (model.pipeline == "WanAnimatePipeline") {
        tasks = {Task::animate, Task::replace};
    }
    Json names = Json::array();
    for (const Task task : tasks) names.push_back(name_of(task));
    return names;
}

Json part_of(ComponentKind kind, const fs::path& place) {
    const auto source = open_stored(kind, place);
    const auto layout = detect_layout(kind, *source);
    Json json = {{"path", place.string()}};
    if (layout) {
        json.update(component_of(*layout, source, place));
    } else {
        json.update(summary_of(*source));
        json["problem"] =
            fmt::format("no layout of a {} is known that has these names", name_of(kind));
    }
    return json;
}

Json inspect_model(const fs::path& path) {
    const ModelFolder model = ModelFolder::open({.model = path.string(), .asked_by = "the path"});
    const KnownModel* known = find_known(model);
    Json json = {
        {"kind", "model"},
        {"layout", name_of(model.layout)},
        {"pipeline", model.pipeline},
        {"family", known != nullptr ? std::string(known->family) : family_of(model)},
        {"variant", known != nullptr ? Json(known->name) : Json()},
        {"tasks", tasks_of(model, known)},
        {"scheduler",
         model.scheduler.contains("_class_name") ? Json(model.scheduler["_class_name"]) : Json()}};
    if (model.boundary_ratio) json["boundary_ratio"] = *model.boundary_ratio;
    if (model.embedded)
        json["embedded"] = {{"name", model.embedded->name},
                            {"understands", model.embedded->understands}};
    Json parts;
    parts["transformer"] = part_of(ComponentKind::dit, model.transformer);
    if (model.transformer_2)
        parts["transformer_2"] = part_of(ComponentKind::dit, *model.transformer_2);
    parts["vae"] = part_of(ComponentKind::vae, model.vae);
    parts["text_encoder"] = part_of(ComponentKind::umt5, model.text_encoder);
    if (model.image_encoder)
        parts["image_encoder"] = part_of(ComponentKind::clip, *model.image_encoder);
    json["parts"] = parts;
    json["tokenizer"] = model.tokenizer.string();
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

// Whether a folder is one of an original Wan repository: a transformer with other parts beside it.
bool is_original_model(const fs::path& folder) {
    if (fs::is_directory(folder / "high_noise_model")) return true;
    const auto files = weight_files(folder);
    const auto any = [&files](std::string_view begin) {
        return std::any_of(files.begin(), files.end(), [begin](const fs::path& file) {
            return file.filename().string().starts_with(begin);
        });
    };
    return any("diffusion_pytorch_model") && (any("models_t5") || any("Wan2."));
}

Json weights_with_settings(const fs::path& path) {
    Json json = inspect_weights(path);
    if (json["metadata"].contains("comment")) add_settings(json, json["metadata"]["comment"]);
    return json;
}

}  // namespace

nlohmann::ordered_json inspect(const std::filesystem::path& path) {
    if (!fs::exists(path) || fs::exists(path / "model_index.json")) return inspect_model(path);
    if (fs::is_directory(path)) {
        if (is_original_model(path)) return inspect_model(path);
        ZT_CHECK(!weight_files(path).empty(), unsupported,
                 "{} is a folder without model_index.json and without files of weights: inspect "
                 "takes folders of models and of components, files of weights, videos and pictures",
                 path.string());
        return weights_with_settings(path);
    }
    if (is_weight_file(path) || path.string().ends_with(".safetensors.index.json"))
        return weights_with_settings(path);
    try {
        return inspect_media(path);
    } catch (const Error& error) {
        fail(ErrorKind::unsupported, "{} is no file of weights, and no video or picture either: {}",
             path.string(), error.what());
    }
}

}  // namespace zoetrope
