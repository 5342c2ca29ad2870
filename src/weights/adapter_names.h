// The names of adapter files: which parameter of a model a key means, and which piece of an adapter
// it is. Pure functions and an immutable index, any thread.
#pragma once

#include "weights/params.h"

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

namespace zoetrope {

// The tensors that an adapter is made of.
enum class AdapterPiece {
    down,
    up,
    up_bias,
    alpha,
    magnitude,
    difference,             // of the weight
    difference_bias,        // of the bias beside it
    difference_modulation,  // of the block's table of shifts, scales and gates
    lokr_w1,
    lokr_w1_a,
    lokr_w1_b,
    lokr_w2,
    lokr_w2_a,
    lokr_w2_b,
    lokr_t2,
    refused,  // of a method that is not read
};

struct AdapterKey {
    std::string module;  // "diffusion_model.blocks.0.self_attn.q", "lora_unet_blocks_0_self_attn_q"
    AdapterPiece piece;
    std::string_view method;  // of a refused piece: "LoHa"
};
// Nothing where the key is no adapter's.
std::optional<AdapterKey> parse_adapter_key(std::string_view key);

// The parameters of a model under every name that adapters have for them.
class ModuleIndex {
public:
    explicit ModuleIndex(std::span<const Param> params);

    // The parameter that a piece of a module changes; null where the model has none.
    const Param* find(std::string_view module, AdapterPiece piece) const;

private:
    std::unordered_map<std::string, std::string> modules_;  // any spelling -> Diffusers' name
    std::unordered_map<std::string, const Param*> params_;  // Diffusers' name -> parameter
};

// Whether a module is of a part that only some Wan models have (image keys and values, VACE,
// Animate).
bool is_optional_part(std::string_view module);

}  // namespace zoetrope
