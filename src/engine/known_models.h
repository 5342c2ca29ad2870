// The released Wan models and what each is sampled with where the user says nothing.
//
// A table in one source file, recognised from a model's configs: only sizes that were released are
// known, so a tiny model keeps the defaults of Diffusers' pipelines. Values are those of the Wan
// repositories' configs and command lines. Immutable; any thread.
#pragma once

#include "engine/model_folder.h"
#include "engine/request.h"

#include <optional>
#include <span>
#include <string_view>

namespace zoetrope {

struct KnownModel {
    std::string_view name;    // "Wan2.1 T2V 1.3B"
    std::string_view family;  // "Wan2.1", "Wan2.2"
    std::span<const Task> tasks;
    int height = 480, width = 832, num_frames = 81;
    double fps = 16;
    int num_inference_steps = 50;
    double guidance_scale = 5;
    std::optional<double> guidance_scale_2;  // of the low-noise expert
    double flow_shift = 5;                   // of models without a scheduler_config.json
    std::optional<double> boundary_ratio;    // of two experts
    std::string_view negative_prefix;        // before the prompt that all models share

    // What it is recognised by.
    std::int64_t dim = 0, layers = 0, in_channels = 0;
    std::string_view transformer = "WanTransformer3DModel";
    bool image_encoder = false;
    bool last_image = false;  // positions for the embeddings of two pictures
    bool two_experts = false;
    std::string_view in_path;  // lower case: in the name of file or folder, where sizes are alike

    std::string negative_prompt() const;
    // "Wan2.1-T2V-1.3B": what it is called in names of repositories.
    std::string repository() const;
};

// The first row that fits; null where none does.
const KnownModel* find_known(const ModelFolder& model);
// The same for one transformer's config.
const KnownModel* find_known(const nlohmann::json& transformer_config, bool two_experts,
                             const std::filesystem::path& path);

std::span<const KnownModel> known_models();

}  // namespace zoetrope
