#include "engine/convert_folder.h"

#include "base/error.h"
#include "engine/convert_weights.h"
#include "engine/model_json.h"
#include "engine/model_search.h"
#include "text/tokenizer.h"

#include <ATen/core/Tensor.h>

#include <algorithm>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kTokenizerFiles[] = {"tokenizer.json",        "spiece.model",
                                           "tokenizer_config.json", "special_tokens_map.json",
                                           "added_tokens.json",     "sentencepiece.bpe.model"};

void copy_to(const fs::path& from, const fs::path& to) {
    std::error_code error;
    fs::create_directories(to.parent_path(), error);
    if (!error) fs::copy_file(from, to, error);
    ZT_CHECK(!error, io, "cannot write '{}', a copy of '{}': {}", to.string(), from.string(),
             error.message());
}

std::string text_of(const json& value) {
    return value.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

void write_json(const fs::path& file, const json& value) {
    fs::create_directories(file.parent_path());
    write_text(file, text_of(value));
}

// What Diffusers saves for a pipeline: its parts' libraries and classes, and its own settings.
json index_of(const ModelFolder& model) {
    json index = model.index;
    if (index.empty()) {
        index = {
            {"_class_name", model.pipeline},
            {"tokenizer", {"transformers", "T5TokenizerFast"}},
            {"text_encoder", {"transformers", "UMT5EncoderModel"}},
            {"vae", {"diffusers", "AutoencoderKLWan"}},
            {"scheduler",
             {"diffusers", model.scheduler.value("_class_name", json("UniPCMultistepScheduler"))}},
            {"transformer_2", {nullptr, nullptr}}};
        const bool pictures = model.pipeline == "WanImageToVideoPipeline";
        if (pictures) {
            index["image_encoder"] = {nullptr, nullptr};
            index["image_processor"] = {nullptr, nullptr};
        }
        if (model.pipeline == "WanPipeline" || pictures)
            index["expand_timesteps"] = model.expand_timesteps;
        if (model.pipeline == "WanAnimatePipeline") index.erase("transformer_2");
    }
    const auto class_of = [](const json& config) {
        return json{"diffusers", config.value("_class_name", json("WanTransformer3DModel"))};
    };
    index["transformer"] = class_of(model.transformer_config);
    if (model.transformer_2) index["transformer_2"] = class_of(*model.transformer_2_config);
    if (model.boundary_ratio) index["boundary_ratio"] = *model.boundary_ratio;
    if (model.image_encoder) {
        index["image_encoder"] = {"transformers", "CLIPVisionModel"};
        index["image_processor"] = {"transformers", "CLIPImageProcessor"};
    }
    return index;
}

// CLIP's own preprocessing, as CLIPImageProcessor saves it.
json image_processor_of(const json& image_encoder) {
    const json& vision =
        image_encoder.contains("vision_config") ? image_encoder["vision_config"] : image_encoder;
    const json side = vision.value("image_size", json(224));
    return {{"image_processor_type", "CLIPImageProcessor"},
            {"do_resize", true},
            {"size", {{"shortest_edge", side}}},
            {"resample", 3},  // bicubic
            {"do_center_crop", true},
            {"crop_size", {{"height", side}, {"width", side}}},
            {"do_rescale", true},
            {"rescale_factor", 1.0 / 255},
            {"do_normalize", true},
            {"image_mean", {0.48145466, 0.4578275, 0.40821073}},
            {"image_std", {0.26862954, 0.26130258, 0.27577711}},
            {"do_convert_rgb", true}};
}

// Where the model has none: its pieces are all that there are.
json tokenizer_config() {
    return {{"tokenizer_class", "T5Tokenizer"},
            {"extra_ids", 0},
            {"eos_token", "</s>"},
            {"pad_token", "<pad>"},
            {"unk_token", "<unk>"}};
}

// The bytes of spiece.model in ComfyUI's files of text encoders.
std::string spiece_model_in(const fs::path& file) {
    const auto source = open_weights_file(file);
    const auto tensors = source->tensors();
    const auto found = std::find_if(tensors.begin(), tensors.end(), [](const TensorInfo& info) {
        return info.name.ends_with("spiece_model");
    });
    ZT_CHECK(found != tensors.end() && c10::elementSize(found->dtype) == 1, not_found,
             "{} has no tokenizer (a tensor spiece_model): give a folder with tokenizer.json or "
             "spiece.model with --tokenizer-path",
             file.string());
    const at::Tensor bytes = source->read(static_cast<std::size_t>(found - tensors.begin()));
    return {static_cast<const char*>(bytes.const_data_ptr()),
            static_cast<std::size_t>(bytes.numel())};
}

void write_tokenizer(const fs::path& from, const fs::path& folder) {
    std::error_code ignored;
    if (fs::is_directory(from, ignored)) {
        for (const char* name : kTokenizerFiles) {
            if (is_there(from / name)) copy_to(from / name, folder / name);
        }
    } else if (from.extension() == ".gguf") {
        fs::create_directories(folder);
        write_text(folder / "tokenizer.json", tokenizer_json_of_gguf(from));
    } else if (is_weight_file(from)) {
        fs::create_directories(folder);
        write_text(folder / "spiece.model", spiece_model_in(from));
    } else {
        copy_to(from, folder / (from.extension() == ".json" ? "tokenizer.json" : "spiece.model"));
    }
    if (!is_there(folder / "tokenizer_config.json"))
        write_json(folder / "tokenizer_config.json", tokenizer_config());
}

}  // namespace

void check_diffusers_has(const ModelFolder& model) {
    ZT_CHECK(model.pipeline != "WanFunControlPipeline", unsupported,
             "{} is a Fun-Control model, which no pipeline of Diffusers is for: --layout "
             "single-file takes it",
             model.root.string());
}

void write_folder_files(const ModelFolder& model, const fs::path& folder) {
    write_json(folder / "model_index.json", index_of(model));
    const bool own = model.layout == ModelLayout::diffusers;
    const fs::path scheduler = fs::path("scheduler") / "scheduler_config.json";
    if (own) {
        copy_to(model.root / scheduler, folder / scheduler);
    } else {
        write_json(folder / scheduler, model.scheduler);
    }
    write_tokenizer(model.tokenizer, folder / "tokenizer");
    const fs::path processor = fs::path("image_processor") / "preprocessor_config.json";
    if (model.image_processor) {
        copy_to(model.root / processor, folder / processor);
    } else if (model.image_encoder) {
        write_json(folder / processor,
                   image_processor_of(model.image_encoder_config.value_or(json::object())));
    }
    if (model.embedded) copy_to(model.root / "zoetrope.json", folder / "zoetrope.json");
}

std::string config_text(json config, const std::string& dtype, Precision precision) {
    config.erase("quantization_config");
    if (!dtype.empty()) {
        config.erase("dtype");
        config["torch_dtype"] = dtype;
    }
    if (precision == Precision::fp8 || precision == Precision::int8) {
        config["quantization_config"] = {
            {"quant_method", precision == Precision::fp8 ? "zoetrope_fp8" : "zoetrope_int8"}};
    }
    return text_of(config);
}

TransformerPaths find_transformer_paths(const ModelPaths& paths) {
    const fs::path root = find_root(paths);
    if (!is_there(root / "model_index.json")) {
        const LooseTransformers found = find_transformers(root, paths);
        return {root, found.transformer, found.transformer_2};
    }
    TransformerPaths found{root, root / "transformer", std::nullopt};
    if (is_there(root / "transformer_2")) found.transformer_2 = root / "transformer_2";
    if (!paths.transformer.empty()) found.transformer = paths.transformer;
    if (!paths.transformer_2.empty()) found.transformer_2 = paths.transformer_2;
    return found;
}

}  // namespace zoetrope
