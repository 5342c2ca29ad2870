// The request that a golden pipeline was made with (tools/oracle/tiny_pipeline.py).
#pragma once

#include "base/json.h"
#include "engine/request.h"

#include <filesystem>

namespace zoetrope {

// folder: with request.json. Number of outputs, scheduler and flow shift are left as they are.
inline Request golden_request(const std::filesystem::path& folder) {
    const auto json = read_json(folder / "request.json");
    Request request;
    request.prompt = json["prompt"];
    if (!json["negative_prompt"].is_null()) request.negative_prompt = json["negative_prompt"];
    request.height = json["height"];
    request.width = json["width"];
    request.num_frames = json["num_frames"];
    request.num_inference_steps = json["steps"];
    request.guidance_scale = json["guidance_scale"];
    if (!json["guidance_scale_2"].is_null()) request.guidance_scale_2 = json["guidance_scale_2"];
    request.seed = json["seed"];
    return request;
}

}  // namespace zoetrope
