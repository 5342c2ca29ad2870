#include "text/umt5.h"

#include "base/error.h"
#include "ops/attention.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/trace.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/relu.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>

namespace zoetrope {
namespace {

using nlohmann::json;

struct FeedForward {
    std::string_view name;  // feed_forward_proj in config.json
    Umt5Activation activation;
    bool gated;
};

constexpr std::array kFeedForwards = {
    FeedForward{"gated-gelu", Umt5Activation::gelu_tanh, true},
    FeedForward{"gelu", Umt5Activation::gelu_erf, false},
    FeedForward{"relu", Umt5Activation::relu, false},
    FeedForward{"gated-relu", Umt5Activation::relu, true},
};

std::int64_t size_of(const json& config, const char* key) {
    constexpr std::int64_t kMaxSize = 1 << 24;  // keeps every product far below 2^63
    ZT_CHECK(config.contains(key) && config.at(key).is_number_integer(), io,
             "the text encoder's config.json has no whole number {}", key);
    const auto value = config.at(key).get<std::int64_t>();
    ZT_CHECK(value >= 1 && value <= kMaxSize, io,
             "the text encoder's config.json has {} = {}: accepted are 1 to {}", key, value,
             kMaxSize);
    return value;
}

std::string text_of(const json& config, const char* key, const char* otherwise) {
    const json value = config.value(key, json(otherwise));
    ZT_CHECK(value.is_string(), io,
             "the text encoder's config.json has {} = {}: a string is wanted", key, value.dump());
    return value.get<std::string>();
}

double positive_of(const json& config, const char* key, double otherwise) {
    const json value = config.value(key, json(otherwise));
    ZT_CHECK(value.is_number() && value.get<double>() > 0 && value.get<double>() < 1, io,
             "the text encoder's config.json has {} = {}: a number between 0 and 1 is wanted", key,
             value.dump());
    return value.get<double>();
}

void read_feed_forward(const json& config, Umt5Config& result) {
    const std::string name = text_of(config, "feed_forward_proj", "gated-gelu");
    for (const FeedForward& row : kFeedForwards) {
        if (row.name != name) continue;
        result.activation = row.activation;
        result.gated = row.gated;
        return;
    }
    fail(ErrorKind::unsupported,
         "the text encoder's feed_forward_proj is {}: accepted are gated-gelu, gelu, relu and "
         "gated-relu",
         name);
}

ops::Epilogue epilogue_of(Umt5Activation activation) {
    switch (activation) {
        case Umt5Activation::gelu_tanh: return ops::Epilogue::gelu_tanh;
        case Umt5Activation::gelu_erf: return ops::Epilogue::gelu_erf;
        case Umt5Activation::relu: break;  // applied to the result
    }
    return ops::Epilogue::none;
}

// Bucket of each pair of query and key: [L, L] int64.
at::Tensor pair_buckets(const Umt5Config& config, std::int64_t length, at::Device device) {
    const std::vector<std::int64_t> by_distance = relative_position_buckets(
        length, config.relative_attention_num_buckets, config.relative_attention_max_distance);
    const at::Tensor buckets = at::empty({length, length}, at::kLong);
    auto* out = buckets.mutable_data_ptr<std::int64_t>();
    for (std::int64_t query = 0; query < length; ++query) {
        const auto first = by_distance.begin() + (length - 1 - query);
        out = std::copy_n(first, length, out);
    }
    return buckets.to(device);
}

}  // namespace

Umt5Config Umt5Config::from_json(const json& config) {
    try {
        const std::string type = text_of(config, "model_type", "none");
        ZT_CHECK(type == "umt5", unsupported,
                 "the text encoder's model_type is {}: accepted is umt5", type);
        Umt5Config result{.vocab_size = size_of(config, "vocab_size"),
                          .d_model = size_of(config, "d_model"),
                          .d_kv = size_of(config, "d_kv"),
                          .d_ff = size_of(config, "d_ff"),
                          .num_layers = size_of(config, "num_layers"),
                          .num_heads = size_of(config, "num_heads")};
        const auto optional_size = [&](const char* key, std::int64_t& value) {
            if (config.contains(key)) value = size_of(config, key);
        };
        optional_size("relative_attention_num_buckets", result.relative_attention_num_buckets);
        optional_size("relative_attention_max_distance", result.relative_attention_max_distance);
        result.layer_norm_epsilon =
            positive_of(config, "layer_norm_epsilon", result.layer_norm_epsilon);
        ZT_CHECK(
            result.relative_attention_num_buckets >= 4 &&
                result.relative_attention_max_distance > result.relative_attention_num_buckets / 4,
            io,
            "the text encoder's config.json has {} relative_attention_num_buckets up to "
            "distance {}: it must be 4 or more, and the distance more than a quarter of them",
            result.relative_attention_num_buckets, result.relative_attention_max_distance);
        read_feed_forward(config, result);
        return result;
    } catch (const json::exception& error) {
        fail(ErrorKind::io, "the text encoder's config.json cannot be used: {}", error.what());
    }
}

std::vector<std::int64_t> relative_position_buckets(std::int64_t length, std::int64_t buckets,
                                                    std::int64_t max_distance) {
    const std::int64_t half = buckets / 2;
    const std::int64_t exact = half / 2;
    const auto log_range = static_cast<float>(
        std::log(static_cast<double>(max_distance) / static_cast<double>(exact)));
    std::vector<std::int64_t> result(static_cast<std::size_t>(2 * length - 1));
    for (std::int64_t distance = 0; distance < length; ++distance) {
        std::int64_t bucket = distance;
        if (distance >= exact) {
            // In float, as the models were trained.
            const float ratio =
                std::log(static_cast<float>(distance) / static_cast<float>(exact)) / log_range;
            bucket = exact + static_cast<std::int64_t>(ratio * static_cast<float>(half - exact));
            bucket = std::min(bucket, half - 1);
        }
        result[static_cast<std::size_t>(length - 1 - distance)] = bucket;
        if (distance > 0) result[static_cast<std::size_t>(length - 1 + distance)] = half + bucket;
    }
    return result;
}

Umt5Encoder::Umt5Encoder(const Umt5Config& config, Weights& weights) : config_(config) {
    // The two are one table; a file has either or both.
    const std::string names[] = {"shared.weight", "encoder.embed_tokens.weight"};
    const bool shared = weights.contains(names[0]) || !weights.contains(names[1]);
    embedding_ =
        weights.param(names[shared ? 0 : 1], {config.vocab_size, config.d_model}, Role::embedding);
    weights.ignore(names[shared ? 1 : 0]);
    for (std::int64_t index = 0; index < config.num_layers; ++index) {
        const Block block = declare_block(index, weights);
        std::vector<Param>& params = block_params_.emplace_back();
        for (const Param* param :
             {&block.attention_norm, &block.q, &block.k, &block.v, &block.o, &block.position_bias,
              &block.feed_forward_norm, &block.gate, &block.up, &block.down}) {
            if (param->declared()) params.push_back(*param);
        }
        blocks_.push_back(block);
    }
    final_norm_ = weights.param("encoder.final_layer_norm.weight", {config.d_model}, Role::fp32);
    outer_params_ = {embedding_, final_norm_};
}

Umt5Encoder::Block Umt5Encoder::declare_block(std::int64_t index, Weights& weights) const {
    const std::string attention = fmt::format("encoder.block.{}.layer.0.", index);
    const std::string feed_forward = fmt::format("encoder.block.{}.layer.1.", index);
    const std::int64_t model = config_.d_model, inner = config_.num_heads * config_.d_kv;
    const auto matrix = [&](const std::string& name, std::int64_t out, std::int64_t in) {
        return weights.param(name + ".weight", {out, in}, Role::matrix);
    };
    Block block;
    block.attention_norm = weights.param(attention + "layer_norm.weight", {model}, Role::fp32);
    block.q = matrix(attention + "SelfAttention.q", inner, model);
    block.k = matrix(attention + "SelfAttention.k", inner, model);
    block.v = matrix(attention + "SelfAttention.v", inner, model);
    block.o = matrix(attention + "SelfAttention.o", model, inner);
    block.position_bias =
        weights.param(attention + "SelfAttention.relative_attention_bias.weight",
                      {config_.relative_attention_num_buckets, config_.num_heads}, Role::vector);
    block.feed_forward_norm =
        weights.param(feed_forward + "layer_norm.weight", {model}, Role::fp32);
    if (config_.gated) {
        block.gate = matrix(feed_forward + "DenseReluDense.wi_0", config_.d_ff, model);
        block.up = matrix(feed_forward + "DenseReluDense.wi_1", config_.d_ff, model);
    } else {
        block.up = matrix(feed_forward + "DenseReluDense.wi", config_.d_ff, model);
    }
    block.down = matrix(feed_forward + "DenseReluDense.wo", model, config_.d_ff);
    return block;
}

at::Tensor Umt5Encoder::position_bias(const Block& block, const at::Tensor& buckets,
                                      const Lease& lease) const {
    return at::index_select(lease[block.position_bias].t(), 1, buckets.flatten())
        .view({1, config_.num_heads, buckets.size(0), buckets.size(1)});
}

at::Tensor Umt5Encoder::attend(const Block& block, const at::Tensor& x, const at::Tensor& buckets,
                               const Lease& lease) const {
    const auto heads = [&](const Param& weight) {
        return ops::linear({.x = x, .weight = lease.matrix(weight)})
            .view({1, x.size(1), config_.num_heads, config_.d_kv});
    };
    const at::Tensor out = ops::attention({.q = heads(block.q),
                                           .k = heads(block.k),
                                           .v = heads(block.v),
                                           .bias = position_bias(block, buckets, lease),
                                           .scale = 1})
                               .out;
    return ops::linear({.x = out.view({1, x.size(1), config_.num_heads * config_.d_kv}),
                        .weight = lease.matrix(block.o)});
}

at::Tensor Umt5Encoder::feed_forward(const Block& block, const at::Tensor& x,
                                     const Lease& lease) const {
    at::Tensor hidden = ops::linear({.x = x,
                                     .weight = lease.matrix(config_.gated ? block.gate : block.up),
                                     .epilogue = epilogue_of(config_.activation)});
    if (config_.activation == Umt5Activation::relu) hidden = at::relu(hidden);
    if (config_.gated) {
        hidden = hidden.mul_(ops::linear({.x = x, .weight = lease.matrix(block.up)}));
    }
    // The results of this product leave the range of fp16 (65504), though its terms do not.
    constexpr double kHeadroom = 64;
    const bool half = hidden.scalar_type() == at::kHalf;
    if (half) hidden = hidden.mul_(1 / kHeadroom);
    at::Tensor out = ops::linear({.x = hidden, .weight = lease.matrix(block.down)});
    return half ? out.to(at::kFloat).mul_(kHeadroom) : out;
}

at::Tensor Umt5Encoder::encode(std::span<const std::int32_t> ids, Residency& residency) const {
    ZT_CHECK(!ids.empty(), internal, "the text encoder was given no tokens");
    const auto length = static_cast<std::int64_t>(ids.size());
    at::Tensor rows = at::empty({length}, at::kLong);
    for (std::int64_t index = 0; index < length; ++index) {
        const std::int32_t id = ids[static_cast<std::size_t>(index)];
        ZT_CHECK(id >= 0 && id < config_.vocab_size, bad_request,
                 "the tokenizer gives the id {}, but the text encoder has {} tokens: give the "
                 "tokenizer that belongs to it",
                 id, config_.vocab_size);
        rows.mutable_data_ptr<std::int64_t>()[index] = id;
    }
    at::Tensor sum;
    {
        const Lease lease = residency.lease(std::span(&embedding_, 1));
        const at::Tensor& table = lease[embedding_];
        sum = at::index_select(table, 0, rows.to(table.device())).to(at::kFloat).unsqueeze(0);
    }
    const at::ScalarType dtype = residency.options().compute_dtype;
    const at::Tensor buckets = pair_buckets(config_, length, sum.device());
    for (std::size_t index = 0; index < blocks_.size(); ++index) {
        const Block& block = blocks_[index];
        const Lease lease = residency.lease(params(static_cast<std::int64_t>(index)));
        const auto normed = [&](const Param& weight) {
            return ops::rms_norm(sum, lease[weight], config_.layer_norm_epsilon, dtype);
        };
        sum.add_(attend(block, normed(block.attention_norm), buckets, lease));
        sum.add_(feed_forward(block, normed(block.feed_forward_norm), lease));
        ops::trace(fmt::format("umt5.block.{}", index), sum);
    }
    const Lease lease = residency.lease(std::span(&final_norm_, 1));
    return ops::rms_norm(sum, lease[final_norm_], config_.layer_norm_epsilon, dtype);
}

double Umt5Encoder::flop(std::int64_t tokens) const {
    const auto model = static_cast<double>(config_.d_model);
    const auto inner = static_cast<double>(config_.num_heads * config_.d_kv);
    const double feed_forward =
        (config_.gated ? 3.0 : 2.0) * model * static_cast<double>(config_.d_ff);
    const auto length = static_cast<double>(tokens);
    const double per_token = 2 * (4 * model * inner + feed_forward) + 4 * length * inner;
    return static_cast<double>(config_.num_layers) * length * per_token;
}

std::int64_t Umt5Encoder::activation_bytes(std::int64_t tokens, std::int64_t element) const {
    constexpr std::int64_t kFloat = 4, kLong = 8;
    const std::int64_t inner = config_.num_heads * config_.d_kv;
    const std::int64_t pairs = tokens * tokens;
    // The sum and its norm in float32, the norm in the compute dtype; the buckets.
    const std::int64_t always = tokens * config_.d_model * (2 * kFloat + element) + pairs * kLong;
    // q, k, v, the result, its copy for the next product and that product; the bias, and the
    // logits and their softmax where the device has no fused attention.
    const std::int64_t attention = tokens * (5 * inner + config_.d_model) * element +
                                   config_.num_heads * pairs * (element + 2 * kFloat);
    // Both projections and the activation beside its argument; the last product, in fp16 in
    // float32 too.
    const std::int64_t feed_forward =
        tokens * (3 * config_.d_ff * element + config_.d_model * (element + kFloat));
    return always + std::max(attention, feed_forward);
}

}  // namespace zoetrope
