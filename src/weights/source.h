// Where tensors come from: one interface over the file formats, and the readers that exist.
//
// A TensorSource lists names, shapes and dtypes at once and gives tensors on demand. Tensors that
// it gives are views into the mapped file (no copy) and keep that file alive; they must not be
// written to, and the file must not be cut shorter while they live. Sources are immutable after
// opening: any thread may read.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace zoetrope {

struct TensorInfo {
    std::string name;
    std::vector<std::int64_t> shape;
    at::ScalarType dtype = at::kFloat;

    std::int64_t elements() const;
    std::int64_t bytes() const;
};

class TensorSource {
public:
    virtual ~TensorSource() = default;

    // All tensors, in the order of the file. Names are unique.
    virtual std::span<const TensorInfo> tensors() const = 0;

    // The tensor at that position of tensors(), on the CPU, contiguous, in its stored dtype.
    virtual at::Tensor read(std::size_t index) const = 0;

    // For messages: the file or folder.
    virtual std::string description() const = 0;

    // Free-form string pairs of the file's header ("format": "pt", a LoRA's "lora_alpha").
    virtual std::vector<std::pair<std::string, std::string>> metadata() const { return {}; }
};

// One .safetensors file. The header is checked completely before the first tensor is given: size,
// JSON, dtypes, duplicate names, offsets inside the file, no gaps or overlaps, bytes equal to shape
// x dtype. Errors: not_found; io with the tensor's name for every broken header or a file shorter
// than it says; unsupported for a dtype that is not read (F4, F6_*, F8_E8M0, C64, ...).
std::shared_ptr<const TensorSource> open_safetensors(const std::filesystem::path& file);

// One weight file, recognised by its content and not by its name. Errors: those of its format;
// unsupported with what is accepted where the content is none of these formats.
std::shared_ptr<const TensorSource> open_weights_file(const std::filesystem::path& file);

// Several sources as one. Errors: io where two hold the same name.
std::shared_ptr<const TensorSource> join_sources(
    std::vector<std::shared_ptr<const TensorSource>> sources, std::string description);

// A component folder of a Diffusers model (transformer/, vae/, text_encoder/):
// `<stem>.safetensors`, or `<stem>.safetensors.index.json` with its shards, for the stems that
// Diffusers and Transformers write (diffusion_pytorch_model, model), also behind links. Where there
// is neither, a variant such as "fp16" (<stem>.fp16.safetensors) is taken if it is the only one,
// and a log line says so. A path to a .safetensors file or to an index is taken as that file.
// Errors: not_found with the names that were looked for, or the shards that are not there;
// bad_request for several variants; io where the index and its shards disagree.
std::shared_ptr<const TensorSource> open_component(const std::filesystem::path& path);

// Random weights of any name and shape that is asked for: normal with standard deviation 1/sqrt(fan
// in) for matrices (repeating after a million values), ones for norms' weights, zeros for biases.
// Reproducible by name, not by order. For benchmarks on the shapes of models whose weights are not
// at hand.
struct RandomSourceOptions {
    std::uint64_t seed = 0;
    at::ScalarType dtype = at::kBFloat16;
};

// Writes tensors (CPU; made contiguous here) as one .safetensors file, complete or absent: a
// temporary beside it is fsynced and renamed. Errors: io.
struct NamedTensor {
    std::string name;
    at::Tensor tensor;
};
void write_safetensors(const std::filesystem::path& file, std::span<const NamedTensor> tensors,
                       std::span<const std::pair<std::string, std::string>> metadata = {});

}  // namespace zoetrope
