// `zoetrope convert`: a model written again in another layout and precision, adapters merged into
// its transformers.
//
// Reads what the engine reads. One tensor is in memory at a time, beside the adapters' factors.
// What is written appears complete under its name, or not at all. Uses the operator threads; one
// call at a time.
#pragma once

#include "base/progress.h"
#include "engine/adapters.h"
#include "engine/model_folder.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope {

// diffusers: the whole model as a folder that Diffusers opens. single_file: the transformer as a
// file of ComfyUI's, a file for each of two experts.
enum class ConvertLayout { diffusers, single_file };
// "diffusers", "single-file". Errors: bad_request.
ConvertLayout parse_convert_layout(std::string_view text);

// What weights are stored in. as_stored: as the model has them; what it holds packed becomes bf16.
// fp8 and int8 are of the matrices of a transformer's blocks, beside which everything is in bf16.
// In bf16 and fp16 stays float32 what Diffusers and Transformers keep in float32 (norms,
// modulation, time embedding); a VAE keeps its own precision unless fp32 is asked for.
enum class Precision { as_stored, fp32, bf16, fp16, fp8, int8 };
// "fp32", "bf16", "fp16", "fp8", "int8". Errors: bad_request.
Precision parse_precision(std::string_view text);

struct ConvertOptions {
    ModelPaths paths;
    std::filesystem::path output;  // a folder, or with single_file a .safetensors file
    ConvertLayout layout = ConvertLayout::diffusers;
    Precision precision = Precision::as_stored;
    std::vector<AdapterChoice> adapters;
    std::filesystem::path lora_registry;  // empty: the default one
    bool lora_allow_unmatched = false;
    // Of tensors in one file of the folder, as Diffusers and Transformers have it.
    std::int64_t max_shard_bytes = std::int64_t{5} << 30;
};

struct ConvertResult {
    std::vector<std::filesystem::path> outputs;  // the folder, or the files
    std::int64_t tensors = 0;
    std::int64_t bytes = 0;  // of the files of weights
    double seconds = 0;
    // What the largest tensor and the adapters take beside the program itself, and the highest
    // resident set of the process meanwhile and before.
    std::int64_t predicted_bytes = 0;
    std::int64_t peak_bytes = 0;
    std::int64_t start_bytes = 0;
};

// Errors: those of ModelFolder::open() and of adapters; bad_request for an output that is there or
// has the wrong ending; unsupported for models that Diffusers has no class for, and numbers that
// the precision cannot hold; io; cancelled.
ConvertResult convert(const ConvertOptions& options, const RunControl& control);

}  // namespace zoetrope
