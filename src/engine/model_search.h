// Where a model and its parts are looked for. Private to the engine's sources.
//
// Reads folders and the headers of files. Pure functions of the disk, any thread.
#pragma once

#include "engine/model_folder.h"
#include "weights/layouts.h"

namespace zoetrope {

// Without an exception where the folder may not be looked into.
bool is_there(const std::filesystem::path& path);

// The folder or file that --model-path means, or an embedded model's. Errors: not_found.
std::filesystem::path find_root(const ModelPaths& paths);
// What zoetrope.json beside an embedded model says; nothing where there is none.
std::optional<EmbeddedInfo> read_embedded(const std::filesystem::path& root);

// What the metadata of a single file of a transformer call its config: the text of Diffusers'
// config.json.
constexpr std::string_view kConfigKey = "transformer_config";

// The config of a component at a path: the file's own (kConfigKey), config.json there or beside the
// file, if it is of this component, else inferred. Errors: those of open_canonical() and
// config_of().
nlohmann::json component_config(ComponentKind kind, const std::filesystem::path& path);

// The transformers of a path without model_index.json.
struct LooseTransformers {
    std::filesystem::path transformer;
    std::optional<std::filesystem::path> transformer_2;
    std::filesystem::path near;  // the folder in and around which the other parts are looked for
    ModelLayout layout = ModelLayout::single_file;
};
// Errors: not_found, bad_request where a folder has several.
LooseTransformers find_transformers(const std::filesystem::path& root, const ModelPaths& paths);

// The other expert of a pair of files that differ in "high" and "low" only, in the same folder or
// in folders that differ so; empty where there is none.
std::filesystem::path find_other_expert(const std::filesystem::path& file);
bool is_high_noise(const std::filesystem::path& file);
bool is_low_noise(const std::filesystem::path& file);

// What a missing part must fit.
struct Wanted {
    ComponentKind kind = ComponentKind::vae;
    std::string_view flag;      // "--vae-path"
    const char* key = nullptr;  // of its config
    std::int64_t value = 0;     // that the key must have
};
// The file or folder in or around `near`, and inside `model` where that is a file that holds
// everything. Errors: not_found with the flag.
std::filesystem::path find_part(const Wanted& wanted, const std::filesystem::path& near,
                                const std::filesystem::path& model);
// The tokenizer, around `near` or beside the text encoder, or inside its file.
std::filesystem::path find_tokenizer(const std::filesystem::path& near,
                                     const std::filesystem::path& text_encoder);

// Whether the file of weights carries the tokenizer: as bytes (ComfyUI's tensor "spiece_model") or
// in GGUF's metadata.
bool carries_tokenizer(const std::filesystem::path& file);

}  // namespace zoetrope
