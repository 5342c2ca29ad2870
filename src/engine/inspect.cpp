#include "engine/inspect.h"

#include "base/error.h"
#include "engine/model_folder.h"
#include "media/formats.h"
#include "ops/device.h"
#include "weights/source.h"

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// Parameters, bytes and dtypes of a source.
Json summary_of(const TensorSource& source) {
    std::int64_t parameters = 0, bytes = 0;
    std::map<std::string, std::int64_t> dtypes;
    for (const auto& tensor : source.tensors()) {
        parameters += tensor.elements();
        bytes += tensor.bytes();
        dtypes[std::string(ops::name_of(tensor.dtype))] += tensor.elements();
    }
    return {{"tensors", source.tensors().size()},
            {"parameters", parameters},
            {"bytes", bytes},
            {"dtypes", dtypes}};
}

Json inspect_model(const fs::path& path) {
    const ModelFolder model = ModelFolder::open({.model = path.string()});
    Json json = {{"kind", "model"},
                 {"layout", "diffusers"},
                 {"pipeline", model.index.value("_class_name", "")},
                 {"family", model.transformer_2 ? "Wan2.2 (two experts)" : "Wan2.1"},
                 {"tasks", {"t2v", "t2i"}},
                 {"scheduler", model.scheduler.value("_class_name", "")}};
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

Json inspect_weights(const fs::path& path) {
    const auto source = open_component(path);
    Json json = {{"kind", "weights"}, {"format", "safetensors"}};
    json.update(summary_of(*source));
    Json metadata = Json::object();
    for (const auto& [key, value] : source->metadata()) metadata[key] = value;
    json["metadata"] = metadata;
    Json names;
    for (const auto& tensor : source->tensors()) {
        names[tensor.name] = {{"dtype", ops::name_of(tensor.dtype)}, {"shape", tensor.shape}};
    }
    json["names"] = names;
    return json;
}

bool has_weights(const fs::path& folder) {
    for (const auto& entry : fs::directory_iterator(folder)) {
        if (entry.path().filename().string().find(".safetensors") != std::string::npos) return true;
    }
    return false;
}

}  // namespace

nlohmann::ordered_json inspect(const std::filesystem::path& path) {
    if (!fs::exists(path) || fs::exists(path / "model_index.json")) return inspect_model(path);
    if (path.extension() == ".safetensors" || (fs::is_directory(path) && has_weights(path))) {
        return inspect_weights(path);
    }
    fail(ErrorKind::unsupported,
         "{} is nothing that inspect knows yet: Diffusers model folders, component folders and "
         ".safetensors files are",
         path.string());
}

}  // namespace zoetrope
