// Where tensors come from: one interface over the file formats, and the readers that exist.
//
// A TensorSource lists names, shapes and dtypes at once and gives tensors on demand. Tensors that
// it gives are views into the mapped file (no copy) where the file holds them in that form, and
// keep that file alive; they must not be written to, and the file must not be cut shorter while
// they live. Sources are immutable after opening: any thread may read.
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
    at::ScalarType dtype = at::kFloat;  // of what read() gives
    // Where read() expands what the file holds: the form that it has there ("Q4_K", "scaled
    // Float8_e4m3fn") and its bytes.
    std::string packed_as;
    std::int64_t packed_bytes = 0;

    std::int64_t elements() const;
    std::int64_t bytes() const;
    std::int64_t stored_bytes() const;
    // Whether the file holds it in fewer bits than it is computed with: blocks or 8-bit floats.
    bool packed() const;
};

class TensorSource {
public:
    virtual ~TensorSource() = default;

    // All tensors, in the order of the file. Names are unique.
    virtual std::span<const TensorInfo> tensors() const = 0;

    // The tensor at that position of tensors(), on the CPU, contiguous, in its dtype there.
    virtual at::Tensor read(std::size_t index) const = 0;

    // The same values in that dtype. Packed tensors are expanded piece by piece on the operator
    // threads, so that no second copy of the whole lives beside the result.
    virtual at::Tensor read_as(std::size_t index, at::ScalarType dtype) const;

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

// One file that torch.save wrote (.pth, .pt, .bin): a dict of tensors, also inside of a dict under
// "state_dict", "model" and the like. Nothing in it is run: see pickle.h. Errors: io for everything
// that is broken; unsupported for files that hold more than tensors need.
std::shared_ptr<const TensorSource> open_torch_archive(const std::filesystem::path& file);

// One .gguf file: its blocks are expanded by read(). Errors: io for everything that is broken,
// unsupported for other versions and formats of blocks (the message lists those that are read).
std::shared_ptr<const TensorSource> open_gguf(const std::filesystem::path& file);

// Joins weights stored in 8 bits with the scales beside them (LAYER.weight with LAYER.scale_weight
// or LAYER.weight_scale, one for all or one for each row): read() gives their product in float32,
// and the scales are not listed. A source without such scales is given back as it is. Errors: io
// for a scale without a weight, unsupported for scales of blocks.
std::shared_ptr<const TensorSource> unscale_fp8(std::shared_ptr<const TensorSource> source);

// One weight file of any format, recognised by its content and not by its name, with its scales
// joined. Errors: those of its format; unsupported with what is accepted where the content is none
// of these formats.
std::shared_ptr<const TensorSource> open_weights_file(const std::filesystem::path& file);

// "safetensors", "pytorch" or "gguf", by its content; empty where it is none. Errors: not_found,
// io.
std::string_view weights_format_of(const std::filesystem::path& file);

// Several sources as one. Errors: io where two hold the same name.
std::shared_ptr<const TensorSource> join_sources(
    std::vector<std::shared_ptr<const TensorSource>> sources, std::string description);

// A component folder of a Diffusers model (transformer/, vae/, text_encoder/):
// `<stem>.safetensors`, or `<stem>.safetensors.index.json` with its shards, for the stems that
// Diffusers and Transformers write (diffusion_pytorch_model, model), also behind links. Where there
// is neither, a variant such as "fp16" (<stem>.fp16.safetensors) is taken if it is the only one,
// then the same names as Pickle files (<stem>.bin, pytorch_model.bin, their indices), then the only
// .gguf, .pth or .pt file; a log line says so. A path to a weight file or to an index is taken as
// that file. Scales of 8-bit weights are joined with them: unscale_fp8().
// Errors: not_found with the names that were looked for, or the shards that are not there;
// bad_request for several variants or files; io where the index and its shards disagree.
std::shared_ptr<const TensorSource> open_component(const std::filesystem::path& path);

// Random weights of any name and shape that is asked for: normal with standard deviation 1/sqrt(fan
// in) for matrices (repeating after a million values), ones for norms' weights, zeros for biases.
// Reproducible by name, not by order. For benchmarks on the shapes of models whose weights are not
// at hand.
struct RandomSourceOptions {
    std::uint64_t seed = 0;
    at::ScalarType dtype = at::kBFloat16;
};

// Writes tensors that are all in memory as one .safetensors file, complete or absent: what
// SafetensorsWriter does. Errors: io.
struct NamedTensor {
    std::string name;
    at::Tensor tensor;
};
void write_safetensors(const std::filesystem::path& file, std::span<const NamedTensor> tensors,
                       std::span<const std::pair<std::string, std::string>> metadata = {});

}  // namespace zoetrope
