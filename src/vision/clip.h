// The picture encoder of CLIP (Radford et al., arXiv:2103.00020): pixels -> embeddings. A vision
// transformer with pre-norm blocks.
//
// Wan's models read the output of the layer before the last: what lies behind it is known by name,
// not loaded and not computed. The sum that the blocks add to is kept in float32, whatever the
// compute dtype. Immutable; encode() may run on several threads at once. Key names are
// Transformers', with the `vision_model.` in front or without.
#pragma once

#include "weights/params.h"
#include "weights/weights.h"

#include <ATen/core/Tensor.h>

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace zoetrope {

enum class ClipActivation { gelu_erf, gelu_tanh, quick_gelu };

// The defaults are Wan's encoder, ViT-H/14.
struct ClipVisionConfig {
    std::int64_t hidden_size = 1280;
    std::int64_t intermediate_size = 5120;
    std::int64_t num_hidden_layers = 32;
    std::int64_t num_attention_heads = 16;
    std::int64_t num_channels = 3;
    std::int64_t image_size = 224;  // pixels
    std::int64_t patch_size = 14;   // pixels
    double layer_norm_eps = 1e-5;
    ClipActivation activation = ClipActivation::gelu_erf;

    // From image_encoder/config.json. Errors: io for values that make no encoder, unsupported for
    // another architecture or activation.
    static ClipVisionConfig from_json(const nlohmann::json& config);

    std::int64_t patches() const;                          // of a picture
    std::int64_t tokens() const { return patches() + 1; }  // with the class token in front
};

class ClipVision {
public:
    ClipVision(const ClipVisionConfig& config, Weights& weights);

    const ClipVisionConfig& config() const { return config_; }
    // Blocks that are computed: all but the last.
    std::int64_t num_blocks() const { return config_.num_hidden_layers - 1; }
    // The embeddings and the norm behind them.
    std::span<const Param> outer_params() const { return outer_params_; }
    std::span<const Param> params(std::int64_t block) const {
        return block_params_[static_cast<std::size_t>(block)];
    }

    // pixels: [B, num_channels, image_size, image_size] of any float dtype, normalised
    // -> [B, tokens, hidden_size] in the compute dtype: what Transformers calls hidden_states[-2].
    // Leases the embeddings, then one block after the other. Errors: io for pictures of another
    // size.
    at::Tensor encode(const at::Tensor& pixels, Residency& residency) const;

    // Floating-point operations (a multiply-add is two) of encode() for that many pictures.
    double flop(std::int64_t pictures) const;
    // At most so many bytes of activations live at once in encode(); `element`: bytes of one
    // element of the compute dtype.
    std::int64_t activation_bytes(std::int64_t pictures, std::int64_t element) const;

private:
    struct Affine {  // a linear layer or a norm
        Param weight, bias;
    };
    struct Block {
        Affine attention_norm, q, k, v, out;
        Affine feed_forward_norm, up, down;
    };

    Block declare_block(const std::string& prefix, Weights& weights);
    // pixels -> [B, tokens, hidden_size] fp32
    at::Tensor embed(const at::Tensor& pixels, const Lease& lease) const;
    // x: [B, tokens, hidden_size], normalised, compute dtype -> the same
    at::Tensor attend(const Block& block, const at::Tensor& x, const Lease& lease) const;
    at::Tensor feed_forward(const Block& block, const at::Tensor& x, const Lease& lease) const;

    ClipVisionConfig config_;
    Param class_embedding_, patch_embedding_, position_embedding_;
    Affine first_norm_;
    std::vector<Block> blocks_;
    std::vector<Param> outer_params_;
    std::vector<std::vector<Param>> block_params_;
};

}  // namespace zoetrope
