// The UMT5 encoder: token ids -> embeddings. Pre-norm T5 blocks, each with its own relative
// position bias.
//
// Only real tokens are computed: with the padding masked, a position's result depends on real
// tokens alone. Immutable; encode() may run on several threads with one lease each. Key names are
// Transformers'.
#pragma once

#include "weights/params.h"
#include "weights/weights.h"

#include <ATen/core/Tensor.h>

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace zoetrope {

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
    bool gated = true;  // feed_forward_proj: gated-gelu (tanh form) or relu/gelu without a gate
    bool relu = false;

    // From text_encoder/config.json. Errors: io, unsupported for another architecture or
    // activation.
    static Umt5Config from_json(const nlohmann::json& config);
};

class Umt5Encoder {
public:
    Umt5Encoder(const Umt5Config& config, Weights& weights);

    const Umt5Config& config() const { return config_; }
    // All of the token table, the blocks and the final norm.
    std::span<const Param> params() const { return params_; }

    // ids: token ids of one prompt with its end token, at least one -> [1, ids, d_model] in the
    // compute dtype Errors: bad_request for an id outside the vocabulary.
    at::Tensor encode(std::span<const std::int32_t> ids, const Lease& lease) const;

private:
    struct Block {
        Param attention_norm, q, k, v, o, position_bias;
        Param feed_forward_norm, wi_0, wi_1, wo;
    };

    at::Tensor position_bias(const Block& block, std::int64_t length, const Lease& lease) const;
    at::Tensor attend(const Block& block, const at::Tensor& hidden, const Lease& lease) const;
    at::Tensor feed_forward(const Block& block, const at::Tensor& hidden, const Lease& lease) const;

    Umt5Config config_;
    Param embedding_;
    std::vector<Block> blocks_;
    Param final_norm_;
    std::vector<Param> params_;
};

}  // namespace zoetrope
