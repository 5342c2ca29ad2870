// Weights stored in 8 bits beside their scale, as ComfyUI, LightX2V and others write them.
#include "base/error.h"
#include "weights/expand_bytes.h"
#include "weights/source.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>

namespace zoetrope {
namespace {

// LAYER.scale_weight or LAYER.weight_scale belongs to LAYER.weight.
constexpr std::array<std::string_view, 2> kScales = {".scale_weight", ".weight_scale"};
// Of no use to what computes with the expanded weight: scales of activations, notes.
constexpr std::array<std::string_view, 3> kNotes = {".scale_input", ".input_scale", ".comfy_quant"};
constexpr std::string_view kMarker = "scaled_fp8";  // says that the file's fp8 weights have scales

template <std::size_t N>
std::string_view ending_of(std::string_view name, const std::array<std::string_view, N>& endings) {
    for (const std::string_view ending : endings) {
        if (name.ends_with(ending)) return ending;
    }
    return {};
}

bool is_marker(std::string_view name) {
    return name == kMarker || name.ends_with(std::string(".") + std::string(kMarker));
}

class UnscaledSource final : public TensorSource {
public:
    explicit UnscaledSource(std::shared_ptr<const TensorSource> inner) : inner_(std::move(inner)) {
        const auto stored = inner_->tensors();
        std::unordered_map<std::string_view, std::size_t> index;
        std::unordered_set<std::string_view> names;
        for (std::size_t i = 0; i < stored.size(); ++i) {
            names.insert(stored[i].name);
            if (ending_of(stored[i].name, kScales).empty() &&
                ending_of(stored[i].name, kNotes).empty() && !is_marker(stored[i].name)) {
                index.emplace(stored[i].name, places_.size());
                places_.push_back({i, kNoScale});
                tensors_.push_back(stored[i]);
            }
        }
        for (std::size_t i = 0; i < stored.size(); ++i) {
            const std::string_view ending = ending_of(stored[i].name, kScales);
            if (ending.empty()) continue;
            const std::string layer =
                stored[i].name.substr(0, stored[i].name.size() - ending.size());
            const auto weight = index.find(layer + ".weight");
            ZT_CHECK(weight != index.end(), io,
                     "{}: {} is the scale of {}.weight, which is not there", inner_->description(),
                     stored[i].name, layer);
            add_scale(weight->second, i, names.contains(layer + ".comfy_quant"));
        }
    }

    std::span<const TensorInfo> tensors() const override { return tensors_; }

    at::Tensor read(std::size_t index) const override {
        const Place& place = places_.at(index);
        return place.scale == kNoScale ? inner_->read(place.tensor) : read_as(index, at::kFloat);
    }

    at::Tensor read_as(std::size_t index, at::ScalarType dtype) const override {
        const Place& place = places_.at(index);
        if (place.scale == kNoScale) return inner_->read_as(place.tensor, dtype);
        const at::Tensor tensor = inner_->read(place.tensor);
        const at::Tensor scale = inner_->read_as(place.scale, at::kFloat).flatten();
        if (tensor.element_size() == 1) return expand_bytes(tensor, scale, dtype);
        std::vector<std::int64_t> column(static_cast<std::size_t>(tensor.dim()), 1);
        if (!column.empty()) column[0] = scale.numel();
        return (tensor.to(at::kFloat) * scale.view(column)).to(dtype);
    }

    std::string description() const override { return inner_->description(); }

    std::vector<std::pair<std::string, std::string>> metadata() const override {
        return inner_->metadata();
    }

private:
    static constexpr std::size_t kNoScale = static_cast<std::size_t>(-1);

    struct Place {
        std::size_t tensor;  // in inner_
        std::size_t scale;
    };

    // quantised_by_comfyui: the weight has a note of ComfyUI's about how it is to be used.
    void add_scale(std::size_t weight, std::size_t scale, bool quantised_by_comfyui) {
        const TensorInfo& factors = inner_->tensors()[scale];
        TensorInfo& info = tensors_[weight];
        ZT_CHECK(places_[weight].scale == kNoScale, io, "{}: {} has two scales",
                 inner_->description(), info.name);
        const bool fp8 = c10::isFloat8Type(info.dtype);
        const bool wide = c10::isFloatingType(info.dtype) && !fp8;
        // ComfyUI's int8 weights may be rotated as well.
        const bool int8 = info.dtype == at::kChar && !quantised_by_comfyui;
        ZT_CHECK((fp8 || wide || int8) && info.packed_as.empty() &&
                     c10::isFloatingType(factors.dtype) && factors.packed_as.empty(),
                 unsupported, "{}: {} is stored as {} with a scale in {}: read are fp8 and int8",
                 inner_->description(), info.name, c10::toString(info.dtype),
                 c10::toString(factors.dtype));
        const bool per_row = !info.shape.empty() && !factors.shape.empty() &&
                             factors.shape[0] == info.shape[0] &&
                             factors.elements() == info.shape[0];
        ZT_CHECK(
            factors.elements() == 1 || per_row, unsupported,
            "{}: the scale {} is [{}] for a weight of [{}]: read are one scale for all and one "
            "for each row",
            inner_->description(), factors.name, fmt::join(factors.shape, ", "),
            fmt::join(info.shape, ", "));
        places_[weight].scale = scale;
        if (!wide) {
            info.packed_as =
                fp8 ? fmt::format("scaled {}", c10::toString(info.dtype)) : "scaled int8";
            info.packed_bytes = info.bytes() + factors.bytes();
        }
        info.dtype = at::kFloat;
    }

    std::shared_ptr<const TensorSource> inner_;
    std::vector<TensorInfo> tensors_;
    std::vector<Place> places_;
};

}  // namespace

std::shared_ptr<const TensorSource> unscale_fp8(std::shared_ptr<const TensorSource> source) {
    const auto tensors = source->tensors();
    const bool scaled = std::any_of(tensors.begin(), tensors.end(), [](const TensorInfo& info) {
        return !ending_of(info.name, kScales).empty() || is_marker(info.name);
    });
    if (!scaled) return source;
    return std::make_shared<UnscaledSource>(std::move(source));
}

}  // namespace zoetrope
