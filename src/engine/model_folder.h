// A model on disk: where its parts are and what their configs say. Weights are not read here.
//
// A plain value. Layout: a Diffusers folder (model_index.json with transformer/, vae/,
// text_encoder/, tokenizer/, scheduler/), given as a path, or as a repository name looked up in the
// local Hugging Face cache.
#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope {

struct ModelPaths {
    std::string model;  // folder, repository name, or empty for the embedded model
    std::string_view asked_by = "--model-path";  // what messages call `model`
    // Parts taken from elsewhere; empty: from the model.
    std::filesystem::path transformer, transformer_2, vae, text_encoder, tokenizer;
};

// What the embedded model says of itself (zoetrope.json beside model_index.json).
struct EmbeddedInfo {
    std::string name;
    std::string understands;         // one sentence
    std::vector<std::string> words;  // all words its captions had
    nlohmann::json defaults;
};

// Words of the prompt, in lower case, that no caption of the embedded model's training had.
std::vector<std::string> words_never_seen(const EmbeddedInfo& info, std::string_view prompt);

struct ModelFolder {
    std::filesystem::path root;
    std::filesystem::path transformer;                   // folder with config.json and weights
    std::optional<std::filesystem::path> transformer_2;  // the low-noise expert
    std::filesystem::path vae, text_encoder, tokenizer;

    nlohmann::json index;      // model_index.json
    nlohmann::json scheduler;  // scheduler_config.json
    nlohmann::json transformer_config, vae_config, text_encoder_config;
    std::optional<nlohmann::json> transformer_2_config;

    std::optional<double> boundary_ratio;
    bool expand_timesteps = false;
    std::optional<EmbeddedInfo> embedded;

    // Errors: not_found (what was looked for, and where), io, unsupported for pipelines that are
    // not built.
    static ModelFolder open(const ModelPaths& paths);
};

// The snapshot of a repository ("org/name") in the local Hugging Face cache; empty where it is not
// there.
std::filesystem::path find_in_hub_cache(const std::string& repository);

// Where the embedded models lie: ZOETROPE_MODELS, else models/ beside the program or above it.
// Errors: not_found.
std::filesystem::path embedded_models_folder();

}  // namespace zoetrope
