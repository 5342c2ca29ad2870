#include "weights/adapter_names.h"

#include "weights/layouts.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace zoetrope {
namespace {

using enum AdapterPiece;

struct Marker {
    std::string_view text;
    AdapterPiece piece;
    std::string_view method = {};
};

// What stands behind the module's name; the longer of two that begin alike comes first.
constexpr Marker kMarkers[] = {
    {".lora_A", down},
    {".lora_down", down},
    {".lora.down", down},
    {".lora_B", up},
    {".lora_up", up},
    {".lora.up", up},
    {".alpha", alpha},
    {".lora_magnitude_vector", magnitude},
    {".dora_scale", magnitude},
    {".diff_b", difference_bias},
    {".b_norm", difference_bias},
    {".diff_m", difference_modulation},
    {".diff", difference},
    {".w_norm", difference},
    {".lokr_w1_a", lokr_w1_a},
    {".lokr_w1_b", lokr_w1_b},
    {".lokr_w1", lokr_w1},
    {".lokr_w2_a", lokr_w2_a},
    {".lokr_w2_b", lokr_w2_b},
    {".lokr_w2", lokr_w2},
    {".lokr_t2", lokr_t2},
    {".lora_mid", refused, "LoCon with a middle matrix"},
    {".hada_w1_a", refused, "LoHa"},
    {".hada_w1_b", refused, "LoHa"},
    {".hada_w2_a", refused, "LoHa"},
    {".hada_w2_b", refused, "LoHa"},
    {".hada_t1", refused, "LoHa"},
    {".hada_t2", refused, "LoHa"},
    {".lokr_t1", refused, "LoKr with two Tucker cores"},
    {".oft_blocks", refused, "OFT"},
    {".oft_diag", refused, "OFT"},
    {".oft_R", refused, "OFT"},
    {".boft_R", refused, "BOFT"},
    {".ia3_l", refused, "(IA)3"},
    {".a1", refused, "GLoRA"},
    {".a2", refused, "GLoRA"},
    {".b1", refused, "GLoRA"},
    {".b2", refused, "GLoRA"},
    {".lora_embedding_A", refused, "LoRA of an embedding"},
    {".lora_embedding_B", refused, "LoRA of an embedding"},
    {".set_weight", refused, "a replaced weight"},
    {".reshape_weight", refused, "a reshaped weight"},
};

// Before the module's name, in any order.
constexpr std::string_view kPrefixes[] = {
    "base_model.model.",
    "diffusion_model.",
    "transformer.",
    "model.",
    "unet.",
    "pipe.dit.",
    "dit.",
    "lora_unet__",  // the Wan-Fun trainer: one more
    "lora_unet_",
    "lora_transformer_",
    "lycoris_",
    "diffusion_model_",
};

// Parts that some released models have: image keys and values, VACE, Animate, reference pictures.
constexpr std::string_view kOptionalParts[] = {
    "k_img",
    "v_img",
    "add_k_proj",
    "add_v_proj",
    "norm_added_k",
    "img_emb",
    "image_embedder",
    "vace_",
    "ref_conv",
    "control_adapter",
    "face_adapter",
    "motion_encoder",
    "pose_patch_embed",
    "face_encoder",
};

// The names that the original Wan repositories have for a model's parameters.
ComponentLayout original_layout(std::span<const Param> params) {
    const auto blocks = std::count_if(params.begin(), params.end(), [](const Param& param) {
        return param.name.starts_with("motion_encoder.res_blocks.") &&
               param.name.ends_with(".conv1.weight");
    });
    return {.kind = ComponentKind::dit,
            .layout = Layout::original,
            .prefix = {},
            .num_res_blocks = blocks};
}

std::string underscored(std::string name) {
    std::replace(name.begin(), name.end(), '.', '_');
    return name;
}

std::string_view without_prefixes(std::string_view module) {
    for (bool again = true; again;) {
        again = false;
        for (const std::string_view prefix : kPrefixes) {
            if (!module.starts_with(prefix)) continue;
            module.remove_prefix(prefix.size());
            again = true;
        }
    }
    return module;
}

// "blocks.0.attn1.to_q.weight" -> "blocks.0.attn1.to_q"; a table has no such end.
std::string module_of(const std::string& param) {
    for (const std::string_view end : {".weight", ".bias"}) {
        if (param.ends_with(end)) return param.substr(0, param.size() - end.size());
    }
    return param;
}

}  // namespace

std::optional<AdapterKey> parse_adapter_key(std::string_view key) {
    for (const Marker& marker : kMarkers) {
        const std::size_t place = key.rfind(marker.text);
        if (place == std::string_view::npos || place == 0) continue;
        // Behind it: nothing, .weight, .bias, or those behind an adapter's name (PEFT's .default).
        std::string_view rest = key.substr(place + marker.text.size());
        if (!rest.empty() && rest.front() != '.') continue;
        const bool is_bias = rest.ends_with(".bias");
        if (is_bias) rest.remove_suffix(5);
        if (rest.ends_with(".weight")) rest.remove_suffix(7);
        if (!rest.empty() && rest.find('.', 1) != std::string_view::npos) continue;
        AdapterKey parsed{std::string(key.substr(0, place)), marker.piece, marker.method};
        if (is_bias) {
            if (marker.piece != up) continue;
            parsed.piece = up_bias;
        }
        return parsed;
    }
    return std::nullopt;
}

ModuleIndex::ModuleIndex(std::span<const Param> params) {
    const ComponentLayout layout = original_layout(params);
    for (const Param& param : params) {
        params_.emplace(param.name, &param);
        const std::string module = module_of(param.name);
        const CanonicalName place = original_place(layout, param.name);
        // An adapter of what the original fuses has no one parameter here.
        const std::string original = place.parts == 1 ? module_of(place.name) : module;
        for (const std::string& name :
             {module, original, underscored(module), underscored(original)})
            modules_.emplace(name, module);
    }
}

const Param* ModuleIndex::find(std::string_view module, AdapterPiece piece) const {
    std::string name(without_prefixes(module));
    const bool is_kohya = name.find('.') == std::string::npos;
    // A block, or the head, whose table is meant.
    if (piece == difference_modulation) name += is_kohya ? "_modulation" : ".modulation";
    const auto found = modules_.find(name);
    if (found == modules_.end()) return nullptr;
    const std::string& canonical = found->second;
    const bool bias = piece == difference_bias || piece == up_bias;
    auto param = params_.find(canonical + (bias ? ".bias" : ".weight"));
    if (param == params_.end() && !bias) param = params_.find(canonical);
    return param == params_.end() ? nullptr : param->second;
}

bool is_optional_part(std::string_view module) {
    const std::string name(without_prefixes(module));
    return std::any_of(
        std::begin(kOptionalParts), std::end(kOptionalParts),
        [&name](std::string_view part) { return name.find(part) != std::string::npos; });
}

}  // namespace zoetrope
