#include "engine/convert_weights.h"

#include "base/error.h"
#include "ops/linear.h"
#include "weights/safetensors_writer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <map>
#include <span>
#include <unordered_set>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

// _keep_in_fp32_modules of Diffusers' Wan classes: parts of names between dots.
constexpr std::array<std::string_view, 6> kWideParts = {
    "time_embedder", "scale_shift_table", "norm1", "norm2", "norm3", "motion_synthesis_weight"};
// The same of Transformers' UMT5, which holds for fp16 only: its sums overflow.
constexpr std::string_view kWideInHalf = "wo";

constexpr double kLargestFp8 = 448;  // of float8_e4m3fn (OCP 8-bit Floating Point, 2023)
constexpr std::int64_t kElementsAtOnce = std::int64_t{1} << 22;  // 16 MiB in float32
constexpr std::int64_t kPiecesBytes = 4 * 4 * kElementsAtOnce;   // what is computed with at a time

// ComfyUI's mark of files whose fp8 weights have scales; two elements say that products are to be
// computed in full precision, since there are no scales of activations.
constexpr const char* kMarker = "scaled_fp8";
constexpr std::int64_t kMarkerElements = 2;

constexpr std::string_view kTextTable = "shared.weight";
constexpr std::string_view kTextTableAgain = "encoder.embed_tokens.weight";

// Whether a part of the name between dots is that one.
bool has_part(std::string_view name, std::string_view part) {
    for (std::size_t at = name.find(part); at != std::string_view::npos;
         at = name.find(part, at + 1)) {
        const std::size_t end = at + part.size();
        const bool begins = at == 0 || name[at - 1] == '.';
        if (begins && (end == name.size() || name[end] == '.')) return true;
    }
    return false;
}

// Whether a canonical tensor stays in float32 where the others are in bf16, or in fp16 (half).
bool stays_wide(ComponentKind kind, std::string_view name, bool half) {
    if (kind == ComponentKind::umt5) return half && has_part(name, kWideInHalf);
    return kind == ComponentKind::dit &&
           std::any_of(kWideParts.begin(), kWideParts.end(),
                       [name](std::string_view part) { return has_part(name, part); });
}

// All linear layers. ComfyUI takes it for granted that each of them has a scale where a file's mark
// says that fp8 weights have some: others it would round to fp8 as they are. The motion encoder's
// are a class of its own there.
bool is_linear_matrix(ComponentKind kind, std::string_view name, const TensorInfo& info) {
    return kind == ComponentKind::dit && info.shape.size() == 2 && name.ends_with(".weight") &&
           !name.starts_with("motion_encoder.");
}

// The matrices that are stored in 8 bits elsewhere: attention and feed-forward of a transformer's
// blocks.
bool is_block_matrix(ComponentKind kind, std::string_view name, const TensorInfo& info) {
    const bool in_block = name.starts_with("blocks.") || name.starts_with("vace_blocks.");
    return in_block && is_linear_matrix(kind, name, info) &&
           (has_part(name, "attn1") || has_part(name, "attn2") || has_part(name, "ffn"));
}

at::ScalarType dtype_for(ComponentKind kind, std::string_view name, const TensorInfo& info,
                         Precision precision) {
    if (!c10::isFloatingType(info.dtype) && !info.packed()) return info.dtype;
    if (precision == Precision::fp32) return at::kFloat;
    if (kind == ComponentKind::vae) return info.packed() ? at::kFloat : info.dtype;
    if (precision == Precision::as_stored && !info.packed()) return info.dtype;
    const bool half = precision == Precision::fp16;
    if (stays_wide(kind, name, half)) return at::kFloat;
    return half ? at::kHalf : at::kBFloat16;
}

// Of a matrix "LAYER.weight": "LAYER.scale_weight" as ComfyUI has it, "LAYER.weight_scale" as
// LightX2V has it.
TensorInfo scale_info(const TensorInfo& matrix) {
    constexpr std::string_view kEnd = "weight";
    const std::string layer = matrix.name.substr(0, matrix.name.size() - kEnd.size());
    if (matrix.dtype == at::kChar)
        return {layer + "weight_scale", {matrix.shape[0], 1}, at::kFloat};
    return {layer + "scale_weight", {}, at::kFloat};
}

std::string canonical_of(const std::optional<ComponentLayout>& names, const std::string& stored) {
    if (!names) return stored;
    const auto found = canonical_names(*names, stored.substr(names->prefix.size()));
    return found.empty() ? stored : found.front().name;
}

void check_finite(const at::Tensor& tensor, const TensorInfo& info) {
    ZT_CHECK(std::isfinite(at::sum(tensor, at::kFloat).item<double>()), unsupported,
             "{} holds numbers beyond what fp16 can hold: take --dtype bf16", info.name);
}

// The largest magnitude; not finite where a number is not.
double largest_of(const at::Tensor& matrix) {
    double largest = 0;
    const at::Tensor flat = matrix.reshape({-1});
    for (std::int64_t first = 0; first < flat.numel(); first += kElementsAtOnce) {
        const std::int64_t count = std::min(kElementsAtOnce, flat.numel() - first);
        const double here = at::amax(at::abs(flat.narrow(0, first, count))).item<double>();
        if (!std::isfinite(here)) return here;
        largest = std::max(largest, here);
    }
    return largest;
}

QuantisedMatrix quantise_fp8(const at::Tensor& matrix, double largest) {
    const at::Tensor scale =
        at::scalar_tensor(largest > 0 ? largest / kLargestFp8 : 1, at::TensorOptions(at::kFloat));
    const at::Tensor numbers = at::empty(matrix.sizes(), at::kFloat8_e4m3fn);
    const std::int64_t rows = matrix.size(0);
    const std::int64_t step = std::max<std::int64_t>(1, kElementsAtOnce / matrix.size(1));
    for (std::int64_t first = 0; first < rows; first += step) {
        const std::int64_t count = std::min(step, rows - first);
        at::Tensor part = matrix.narrow(0, first, count) / scale;
        numbers.narrow(0, first, count).copy_(part.clamp_(-kLargestFp8, kLargestFp8));
    }
    return {numbers, scale};
}

// The next tensors of the file: those of one of the plan.
void write_tensor(const ComponentPlan& plan, const TensorPlan& tensor, SafetensorsWriter& writer,
                  std::size_t& position) {
    const TensorInfo& stored = tensor.stored;
    if (!tensor.scale) {
        const at::Tensor numbers = plan.source->read_as(tensor.source, stored.dtype);
        if (stored.dtype == at::kHalf) check_finite(numbers, stored);
        writer.write(position++, numbers);
        return;
    }
    const at::Tensor matrix = plan.source->read_as(tensor.source, at::kFloat);
    const QuantisedMatrix quantised = quantise_to(stored.dtype, matrix, stored.name);
    writer.write(position++, quantised.numbers);
    writer.write(position++, quantised.scale);
}

std::int64_t write_file(const ComponentPlan& plan, std::span<const TensorPlan> tensors,
                        const fs::path& file, const FileMetadata& metadata,
                        const TensorWritten& written) {
    std::vector<TensorInfo> infos;
    for (const TensorPlan& tensor : tensors) {
        infos.push_back(tensor.stored);
        if (tensor.scale) infos.push_back(*tensor.scale);
    }
    if (!plan.marker.empty()) infos.push_back({plan.marker, {kMarkerElements}, at::kFloat8_e4m3fn});
    SafetensorsWriter writer(file, infos, metadata);
    std::size_t position = 0;
    for (const TensorPlan& tensor : tensors) {
        write_tensor(plan, tensor, writer, position);
        written(tensor.bytes());
    }
    if (!plan.marker.empty())
        writer.write(position, at::zeros({kMarkerElements}).to(at::kFloat8_e4m3fn));
    writer.finish();
    return writer.bytes();
}

// Where each shard ends, as Diffusers and Transformers cut them: in order, as full as they may be.
std::vector<std::size_t> shard_ends(const std::vector<TensorPlan>& tensors, std::int64_t most) {
    std::vector<std::size_t> ends;
    std::int64_t bytes = 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        if (bytes > 0 && bytes + tensors[i].bytes() > most) {
            ends.push_back(i);
            bytes = 0;
        }
        bytes += tensors[i].bytes();
    }
    ends.push_back(tensors.size());
    return ends;
}

FileMetadata plain_metadata() { return {{"format", "pt"}}; }  // which Transformers asks for

}  // namespace

std::int64_t ComponentPlan::bytes() const {
    std::int64_t sum = 0;
    for (const TensorPlan& tensor : tensors) sum += tensor.bytes();
    return sum;
}

std::int64_t ComponentPlan::working_bytes() const {
    std::int64_t most = 0;
    for (const TensorPlan& tensor : tensors) {
        const TensorInfo& from = source->tensors()[tensor.source];
        const bool wide = tensor.scale.has_value() || changed;
        const bool copied = wide || from.packed() || from.dtype != tensor.stored.dtype;
        most = std::max(most, from.stored_bytes() + (wide ? 4 * from.elements() : 0) +
                                  (copied ? tensor.bytes() : 0));
    }
    return most + kPiecesBytes;
}

std::string ComponentPlan::main_dtype() const {
    std::map<at::ScalarType, std::int64_t> elements;
    for (const TensorPlan& tensor : tensors)
        elements[tensor.stored.dtype] += tensor.stored.elements();
    if (elements.empty()) return "float32";
    const auto main = std::max_element(elements.begin(), elements.end(), [](auto& a, auto& b) {
                          return a.second < b.second;
                      })->first;
    return main == at::kBFloat16 ? "bfloat16" : main == at::kHalf ? "float16" : "float32";
}

ComponentPlan plan_component(ComponentKind kind, std::shared_ptr<const TensorSource> canonical,
                             const std::optional<ComponentLayout>& names, Precision precision) {
    ComponentPlan plan;
    plan.source = names ? original_source(*names, std::move(canonical)) : std::move(canonical);
    const auto tensors = plan.source->tensors();
    const bool has_table = std::any_of(tensors.begin(), tensors.end(), [](const TensorInfo& info) {
        return info.name == kTextTable;
    });
    const bool eight_bits = precision == Precision::fp8 || precision == Precision::int8;
    const bool for_comfyui = precision == Precision::fp8 && names.has_value();
    const auto is_quantised = for_comfyui ? is_linear_matrix : is_block_matrix;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const TensorInfo& info = tensors[i];
        const std::string canonical_name = canonical_of(names, info.name);
        const bool again = kind == ComponentKind::umt5 && canonical_name == kTextTableAgain;
        if (again && has_table) continue;
        TensorPlan tensor{.source = i,
                          .stored = {again ? std::string(kTextTable) : info.name, info.shape,
                                     dtype_for(kind, canonical_name, info, precision)},
                          .scale = {}};
        if (eight_bits && is_quantised(kind, canonical_name, info)) {
            tensor.stored.dtype = precision == Precision::fp8 ? at::kFloat8_e4m3fn : at::kChar;
            tensor.scale = scale_info(tensor.stored);
        }
        plan.tensors.push_back(std::move(tensor));
    }
    if (for_comfyui) plan.marker = names->prefix + kMarker;
    return plan;
}

std::int64_t write_component(const ComponentPlan& plan, const fs::path& file,
                             const FileMetadata& metadata, const TensorWritten& written) {
    return write_file(plan, plan.tensors, file, metadata, written);
}

std::int64_t write_sharded(const ComponentPlan& plan, const fs::path& folder,
                           const std::string& stem, std::int64_t max_shard_bytes,
                           const TensorWritten& written) {
    const std::vector<std::size_t> ends = shard_ends(plan.tensors, max_shard_bytes);
    if (ends.size() == 1)
        return write_file(plan, plan.tensors, folder / (stem + ".safetensors"), plain_metadata(),
                          written);
    nlohmann::ordered_json index = {{"metadata", {{"total_size", plan.bytes()}}},
                                    {"weight_map", nlohmann::ordered_json::object()}};
    std::int64_t bytes = 0;
    std::size_t first = 0;
    for (std::size_t shard = 0; shard < ends.size(); ++shard) {
        const std::string name =
            fmt::format("{}-{:05}-of-{:05}.safetensors", stem, shard + 1, ends.size());
        const std::span tensors(plan.tensors.data() + first, ends[shard] - first);
        bytes += write_file(plan, tensors, folder / name, plain_metadata(), written);
        for (const TensorPlan& tensor : tensors) {
            index["weight_map"][tensor.stored.name] = name;
            if (tensor.scale) index["weight_map"][tensor.scale->name] = name;
        }
        first = ends[shard];
    }
    write_text(folder / (stem + ".safetensors.index.json"), index.dump(2) + "\n");
    return bytes;
}

QuantisedMatrix quantise_to(at::ScalarType dtype, const at::Tensor& matrix,
                            const std::string& name) {
    const double largest = largest_of(matrix);
    ZT_CHECK(std::isfinite(largest), io, "{} holds numbers that are not finite", name);
    if (dtype == at::kFloat8_e4m3fn) return quantise_fp8(matrix, largest);
    const ops::Matrix rows = ops::quantise_int8_rows(matrix);
    return {rows.data, rows.factors.unsqueeze(1)};
}

void write_text(const fs::path& file, const std::string& text) {
    std::ofstream out(file, std::ios::binary);
    out << text;
    out.close();
    ZT_CHECK(out.good(), io, "cannot write '{}'", file.string());
}

}  // namespace zoetrope
