// The files of a Diffusers folder that are not weights, and where a model's transformers lie.
// Private to the engine's sources.
#pragma once

#include "engine/convert.h"
#include "engine/model_folder.h"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <optional>
#include <string>

namespace zoetrope {

// Errors: unsupported for a model that no pipeline of Diffusers is for.
void check_diffusers_has(const ModelFolder& model);

// model_index.json, scheduler/, tokenizer/, image_processor/ and what an embedded model says of
// itself: as the model has them, or as Diffusers writes them. Errors: io, and those of tokenizers
// that are inside of weight files.
void write_folder_files(const ModelFolder& model, const std::filesystem::path& folder);

// The config.json of a component. dtype: of its numbers where Transformers' classes are told it,
// else empty. Of 8-bit transformers it says so, so that Diffusers refuses what it would misread.
std::string config_text(nlohmann::json config, const std::string& dtype, Precision precision);

// The transformers of a model whose other parts need not be there.
struct TransformerPaths {
    std::filesystem::path root;
    std::filesystem::path transformer;
    std::optional<std::filesystem::path> transformer_2;
};
TransformerPaths find_transformer_paths(const ModelPaths& paths);

}  // namespace zoetrope
