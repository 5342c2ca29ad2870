#include "engine/model_folder.h"

#include "base/error.h"
#include "base/log.h"
#include "engine/known_models.h"
#include "engine/model_json.h"
#include "engine/model_search.h"

#include <algorithm>
#include <array>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

// Pipelines of Diffusers that the engine's parts are for.
constexpr std::array<std::string_view, 5> kPipelines = {"WanPipeline", "WanImageToVideoPipeline",
                                                        "WanVideoToVideoPipeline",
                                                        "WanVACEPipeline", "WanAnimatePipeline"};

// Of models without a scheduler_config.json: what the Wan repositories sample with, where the model
// is not a known one.
constexpr double kFlowShift = 5;
// Share of the noise levels that the high-noise expert of Wan2.2 does (configs/wan_t2v_A14B.py and
// wan_i2v_A14B.py of the Wan2.2 repository).
constexpr double kTextBoundary = 0.875;
constexpr double kImageBoundary = 0.9;

// A component that model_index.json lists as [library, class]; [null, null] and absence mean that
// there is none.
bool lists(const nlohmann::json& index, const char* component) {
    const auto found = index.find(component);
    return found != index.end() && found->is_array() && found->size() == 2 &&
           !(*found)[1].is_null();
}

std::int64_t integer_of(const nlohmann::json& config, const char* key) {
    const auto value = config.value(key, nlohmann::json());
    return value.is_number_integer() ? value.get<std::int64_t>() : 0;
}

bool has_image_encoder(const nlohmann::json& transformer_config) {
    return !transformer_config.value("image_dim", nlohmann::json()).is_null();
}

void read_configs(ModelFolder& model) {
    model.transformer_config = component_config(ComponentKind::dit, model.transformer);
    if (model.transformer_2)
        model.transformer_2_config = component_config(ComponentKind::dit, *model.transformer_2);
    model.vae_config = component_config(ComponentKind::vae, model.vae);
    model.text_encoder_config = component_config(ComponentKind::umt5, model.text_encoder);
    if (model.image_encoder)
        model.image_encoder_config = component_config(ComponentKind::clip, *model.image_encoder);
}

void open_diffusers(ModelFolder& model, const ModelPaths& paths) {
    const fs::path index_file = model.root / "model_index.json";
    model.index = read_json_object(index_file);
    model.pipeline = json_value(model.index, "_class_name", std::string(), index_file);
    ZT_CHECK(std::find(kPipelines.begin(), kPipelines.end(), model.pipeline) != kPipelines.end(),
             unsupported, "{} is a model for {}: accepted are {}", model.root.string(),
             model.pipeline.empty() ? "an unnamed pipeline" : model.pipeline,
             fmt::join(kPipelines, ", "));

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
    if (lists(model.index, "image_encoder") || !paths.image_encoder.empty())
        model.image_encoder = part(paths.image_encoder, "image_encoder");
    const fs::path processor = model.root / "image_processor" / "preprocessor_config.json";
    if (fs::exists(processor)) model.image_processor = read_json_object(processor);
    read_configs(model);

    model.scheduler = read_json_object(part({}, "scheduler") / "scheduler_config.json");
    if (const auto ratio = model.index.find("boundary_ratio");
        ratio != model.index.end() && !ratio->is_null()) {
        model.boundary_ratio = json_value(model.index, "boundary_ratio", 0.5, index_file);
    }
    model.expand_timesteps = json_value(model.index, "expand_timesteps", false, index_file);
    model.embedded = read_embedded(model.root);
}

// The pipeline that a transformer of that config is for.
std::string pipeline_of(const nlohmann::json& config) {
    const nlohmann::json type = config.value("_class_name", nlohmann::json());
    if (type == "WanAnimateTransformer3DModel") return "WanAnimatePipeline";
    if (type == "WanVACETransformer3DModel") return "WanVACEPipeline";
    const std::int64_t in = integer_of(config, "in_channels");
    const std::int64_t out = integer_of(config, "out_channels");
    if (in == out) return "WanPipeline";
    // Noise, four channels of mask, and the latents of pictures; control videos come on top.
    return in == 2 * out + 4 ? "WanImageToVideoPipeline" : "WanFunControlPipeline";
}

// What Diffusers' conversions of the models write into scheduler_config.json.
nlohmann::json scheduler_of(double flow_shift) {
    return {{"_class_name", "UniPCMultistepScheduler"},
            {"prediction_type", "flow_prediction"},
            {"use_flow_sigmas", true},
            {"flow_shift", flow_shift},
            {"num_train_timesteps", 1000},
            {"solver_order", 2},
            {"solver_type", "bh2"}};
}

void open_loose(ModelFolder& model, const ModelPaths& paths) {
    const LooseTransformers found = find_transformers(model.root, paths);
    model.layout = found.layout;
    model.index = nlohmann::json::object();
    model.transformer = found.transformer;
    model.transformer_2 = found.transformer_2;
    const nlohmann::json config = component_config(ComponentKind::dit, model.transformer);
    const auto part = [&](const fs::path& given, const Wanted& wanted) {
        return given.empty() ? find_part(wanted, found.near, found.transformer) : given;
    };
    model.vae = part(paths.vae, {.kind = ComponentKind::vae,
                                 .flag = "--vae-path",
                                 .key = "z_dim",
                                 .value = integer_of(config, "out_channels")});
    model.text_encoder = part(paths.text_encoder, {.kind = ComponentKind::umt5,
                                                   .flag = "--text-encoder-path",
                                                   .key = "d_model",
                                                   .value = integer_of(config, "text_dim")});
    model.tokenizer =
        paths.tokenizer.empty() ? find_tokenizer(found.near, model.text_encoder) : paths.tokenizer;
    if (has_image_encoder(config) || !paths.image_encoder.empty()) {
        model.image_encoder = part(paths.image_encoder, {.kind = ComponentKind::clip,
                                                         .flag = "--image-encoder-path",
                                                         .key = "hidden_size",
                                                         .value = integer_of(config, "image_dim")});
    }
    read_configs(model);
    model.pipeline = pipeline_of(model.transformer_config);

    const KnownModel* known = find_known(model);
    model.scheduler = scheduler_of(known != nullptr ? known->flow_shift : kFlowShift);
    if (model.transformer_2) {
        const bool text = model.pipeline == "WanPipeline";
        model.boundary_ratio = known != nullptr && known->boundary_ratio
                                   ? known->boundary_ratio
                                   : (text ? kTextBoundary : kImageBoundary);
    }
    // Wan2.2's 5B model denoises the VAE's channels and nothing else, with a time step per frame.
    model.expand_timesteps = model.vae_config.value("is_residual", nlohmann::json()) == true &&
                             integer_of(model.transformer_config, "in_channels") ==
                                 integer_of(model.vae_config, "z_dim");
}

}  // namespace

std::string_view name_of(ModelLayout layout) {
    constexpr std::array<std::string_view, 3> kNames = {"diffusers", "original", "single-file"};
    return kNames[static_cast<std::size_t>(layout)];
}

ModelFolder ModelFolder::open(const ModelPaths& paths) {
    ModelFolder model;
    model.root = find_root(paths);
    if (fs::exists(model.root / "model_index.json")) {
        open_diffusers(model, paths);
    } else {
        open_loose(model, paths);
    }
    return model;
}

}  // namespace zoetrope
