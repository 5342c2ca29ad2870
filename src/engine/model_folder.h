// A model on disk: where its parts are and what their configs say. Weights are not read here.
//
// A plain value. A model is a Diffusers folder (model_index.json with transformer/, vae/, ...), a
// folder of the original Wan repositories, or a single file of any format with its other parts in
// the folders beside it (ComfyUI's models/ folder); given as a path, or as a repository name looked
// up in the local Hugging Face cache. Configs that are not there are inferred from the weights, and
// what Diffusers writes into its JSON files comes from the table of known models.
#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope {

inline constexpr std::string_view kEmbeddedTextToVideo = "demo-t2v";
inline constexpr std::string_view kEmbeddedAnimate = "demo-animate";

struct ModelPaths {
    // Folder, file, repository name, name of an embedded model, or empty: `embedded`.
    std::string model;
    std::string_view embedded = kEmbeddedTextToVideo;
    std::string_view asked_by = "--model-path";  // what messages call `model`
    // Parts taken from elsewhere, each a folder or a file; empty: from the model.
    std::filesystem::path transformer, transformer_2, vae, text_encoder, tokenizer, image_encoder;
};

// What the embedded model says of itself (zoetrope.json beside model_index.json).
struct EmbeddedInfo {
    std::string name;
    std::string understands;         // one sentence
    std::vector<std::string> words;  // all that its captions had; empty: it heeds no prompt
    // height, width, num_frames, fps, num_inference_steps, guidance_scale, negative_prompt; perhaps
    // segment_length, segment_max_length, segment_overlap. Named as the flags, all optional.
    nlohmann::json defaults;

    // A whole number of the defaults; nothing where it is not there.
    std::optional<int> number(const char* key) const;
};

// Words of the prompt, in lower case, that no caption of the embedded model's training had.
std::vector<std::string> words_never_seen(const EmbeddedInfo& info, std::string_view prompt);

// How the parts lie on disk.
enum class ModelLayout { diffusers, original, single_file };
// "diffusers", "original", "single-file".
std::string_view name_of(ModelLayout layout);

struct ModelFolder {
    std::filesystem::path root;  // the folder or the single file
    ModelLayout layout = ModelLayout::diffusers;
    // Diffusers' class for it, as model_index.json says or as the weights are: WanPipeline,
    // WanImageToVideoPipeline, WanVideoToVideoPipeline, WanVACEPipeline, WanAnimatePipeline; or
    // WanFunControlPipeline, which Diffusers has not.
    std::string pipeline;

    // Folders or files; open_canonical() opens each.
    std::filesystem::path transformer;  // the high-noise expert where there are two
    std::optional<std::filesystem::path> transformer_2;  // the low-noise expert
    std::filesystem::path vae, text_encoder;
    std::filesystem::path tokenizer;  // or a file of weights that carries spiece.model
    std::optional<std::filesystem::path> image_encoder;

    nlohmann::json index;      // model_index.json; empty object where there is none
    nlohmann::json scheduler;  // scheduler_config.json, or the known model's
    nlohmann::json transformer_config, vae_config, text_encoder_config;
    std::optional<nlohmann::json> transformer_2_config, image_encoder_config;
    std::optional<nlohmann::json> image_processor;  // preprocessor_config.json

    std::optional<double> boundary_ratio;
    bool expand_timesteps = false;
    std::optional<EmbeddedInfo> embedded;

    // Errors: not_found (what was looked for, where, and the flag that gives it), bad_request where
    // several files could be meant, io, unsupported for pipelines that are not known.
    static ModelFolder open(const ModelPaths& paths);
};

// Where the embedded models lie: ZOETROPE_MODELS, else models/ beside the program or above it.
// Errors: not_found.
std::filesystem::path embedded_models_folder();

}  // namespace zoetrope
