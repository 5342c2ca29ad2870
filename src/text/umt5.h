// The UMT5 encoder: token ids -> embeddings. Pre-norm T5 blocks, each with its own relative
// position bias.
//
// Only real tokens are computed: with the padding masked, a position's result depends on real
// tokens alone. The sum that the blocks add to is kept in float32, whatever the compute dtype.
// Immutable; encode() may run on several threads at once. Key names are Transformers'.
#pragma once

#include "weights/params.h"
#include "weights/weights.h"

#include <ATen/core/Tensor.h>

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace zoetrope {

enum class Umt5Activation { gelu_tanh, gelu_erf, relu };

struct Umt5Config {
    std::int64_t vocab_size = 256384;
    std::int64_t d_model = 4096;
    std::int64_t d_kv = 64;
    std::int64_t d_ff = 10240;
    std::int64_t num_layers = 24;
    std::int64_t num_heads = 64;
    std::int64_t relative_attention_num_buckets = 32;
    std::int64_t relative_attention_max_distance = 128;
    double layer_norm_epsilon = 1e-6;
    Umt5Activation activation = Umt5Activation::gelu_tanh;
    bool gated = true;  // the activation is multiplied by a second projection

    // From text_encoder/config.json. Errors: io, unsupported for another architecture or
    // activation.
    static Umt5Config from_json(const nlohmann::json& config);
};

// Bucket of each signed distance (key - query) from -(length - 1) to length - 1. Each sign has half
// of the buckets: half of those for single distances, the rest for distances up to max_distance on
// a logarithmic scale (Raffel et al., arXiv:1910.10683, section 2.1).
std::vector<std::int64_t> relative_position_buckets(std::int64_t length, std::int64_t buckets,
                                                    std::int64_t max_distance);

class Umt5Encoder {
public:
    Umt5Encoder(const Umt5Config& config, Weights& weights);

    const Umt5Config& config() const { return config_; }
    std::int64_t num_blocks() const { return config_.num_layers; }
    // The token table and the final norm.
    std::span<const Param> outer_params() const { return outer_params_; }
    std::span<const Param> params(std::int64_t block) const {
        return block_params_[static_cast<std::size_t>(block)];
    }

    // ids: token ids of one prompt with its end token, at least one -> [1, ids, d_model] in the
    // compute dtype. Leases the table, then one block after the other. Errors: bad_request for an
    // id outside the vocabulary.
    at::Tensor encode(std::span<const std::int32_t> ids, Residency& residency) const;

    // Floating-point operations (a multiply-add is two) of encode() for that many tokens.
    double flop(std::int64_t tokens) const;
    // At most so many bytes of activations live at once in encode(); `element`: bytes of one
    // element of the compute dtype.
    std::int64_t activation_bytes(std::int64_t tokens, std::int64_t element) const;

private:
    struct Block {
        Param attention_norm, q, k, v, o, position_bias;
        Param feed_forward_norm, gate, up, down;  // wi_0, wi_1, wo; without a gate: up is wi
    };

    Block declare_block(std::int64_t index, Weights& weights) const;
    // buckets: [L, L] int64 -> [1, heads, L, L]
    at::Tensor position_bias(const Block& block, const at::Tensor& buckets,
                             const Lease& lease) const;
    // x: [1, L, d_model], normalised, compute dtype -> the same
    at::Tensor attend(const Block& block, const at::Tensor& x, const at::Tensor& buckets,
                      const Lease& lease) const;
    at::Tensor feed_forward(const Block& block, const at::Tensor& x, const Lease& lease) const;

    Umt5Config config_;
    Param embedding_;
    std::vector<Block> blocks_;
    Param final_norm_;
    std::vector<Param> outer_params_;
    std::vector<std::vector<Param>> block_params_;
};

}  // namespace zoetrope
