// What becomes of a component's tensors when it is written again, and the writing. Private to the
// engine's sources.
//
// A plan is names, shapes and dtypes; the tensors are read, changed and written one by one.
#pragma once

#include "engine/convert.h"
#include "weights/layouts.h"
#include "weights/source.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace zoetrope {

struct TensorPlan {
    std::size_t source = 0;           // position in the component's source
    TensorInfo stored;                // as the new file has it
    std::optional<TensorInfo> scale;  // of 8-bit numbers, in the same file

    std::int64_t bytes() const { return stored.bytes() + (scale ? scale->bytes() : 0); }
};

struct ComponentPlan {
    std::shared_ptr<const TensorSource> source;
    std::vector<TensorPlan> tensors;
    std::string marker;    // a tensor that says that fp8 numbers have scales; empty: none
    bool changed = false;  // the source adds adapters, in float32

    std::int64_t bytes() const;
    // The most that one tensor takes while it is written: its pages of the source, the float32 form
    // where numbers are computed, the result.
    std::int64_t working_bytes() const;
    // "float32", "bfloat16", "float16", as Transformers' configs have it: what most of it is in.
    std::string main_dtype() const;
};

// `names`: those of the layout that is written; the canonical ones without it.
ComponentPlan plan_component(ComponentKind kind, std::shared_ptr<const TensorSource> canonical,
                             const std::optional<ComponentLayout>& names, Precision precision);

// Called once a tensor is written, with its bytes; may throw to end the writing.
using TensorWritten = std::function<void(std::int64_t bytes)>;
using FileMetadata = std::vector<std::pair<std::string, std::string>>;

// One file. -> its bytes. Errors: io; unsupported for numbers that the precision cannot hold.
std::int64_t write_component(const ComponentPlan& plan, const std::filesystem::path& file,
                             const FileMetadata& metadata, const TensorWritten& written);

// <stem>.safetensors in that folder, or <stem>.safetensors.index.json and shards of at most that
// many bytes of tensors (more only where one tensor has more). -> bytes of the files
std::int64_t write_sharded(const ComponentPlan& plan, const std::filesystem::path& folder,
                           const std::string& stem, std::int64_t max_shard_bytes,
                           const TensorWritten& written);

// A matrix [out, in] fp32 in 8 bits, number * scale being the matrix again: float8_e4m3fn with one
// scale [] for all, or int8 with one for each row [out, 1]; scales are fp32. Errors: io where the
// matrix (its name is for the message) holds numbers that are not finite.
struct QuantisedMatrix {
    at::Tensor numbers;
    at::Tensor scale;
};
QuantisedMatrix quantise_to(at::ScalarType dtype, const at::Tensor& matrix,
                            const std::string& name);

// A text file, complete. Errors: io.
void write_text(const std::filesystem::path& file, const std::string& text);

}  // namespace zoetrope
