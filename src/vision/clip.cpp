#include "vision/clip.h"

#include "base/error.h"
#include "ops/attention.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/trace.h"

#include <ATen/ops/empty.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <string_view>

namespace zoetrope {
namespace {

using nlohmann::json;

struct ActivationName {
    std::string_view name;  // hidden_act in config.json
    ClipActivation activation;
};

constexpr std::array kActivations = {
    ActivationName{"gelu", ClipActivation::gelu_erf},
    ActivationName{"gelu_new", ClipActivation::gelu_tanh},
    ActivationName{"gelu_pytorch_tanh", ClipActivation::gelu_tanh},
    ActivationName{"quick_gelu", ClipActivation::quick_gelu},
};

std::int64_t size_of(const json& config, const char* key) {
    constexpr std::int64_t kMaxSize = 1 << 20;  // keeps every product far below 2^63
    ZT_CHECK(config.contains(key) && config.at(key).is_number_integer(), io,
             "the image encoder's config.json has no whole number {}", key);
    const auto value = config.at(key).get<std::int64_t>();
    ZT_CHECK(value >= 1 && value <= kMaxSize, io,
             "the image encoder's config.json has {} = {}: accepted are 1 to {}", key, value,
             kMaxSize);
    return value;
}

ClipActivation activation_of(const json& config) {
    const json name = config.value("hidden_act", json("quick_gelu"));
    for (const ActivationName& row : kActivations) {
        if (name == json(std::string(row.name))) return row.activation;
    }
    fail(ErrorKind::unsupported,
         "the image encoder's hidden_act is {}: accepted are gelu, gelu_new, gelu_pytorch_tanh and "
         "quick_gelu",
         name.dump());
}

ops::Epilogue epilogue_of(ClipActivation activation) {
    switch (activation) {
        case ClipActivation::gelu_erf: return ops::Epilogue::gelu_erf;
        case ClipActivation::gelu_tanh: return ops::Epilogue::gelu_tanh;
        case ClipActivation::quick_gelu: break;  // applied to the result
    }
    return ops::Epilogue::none;
}

}  // namespace

std::int64_t ClipVisionConfig::patches() const {
    return (image_size / patch_size) * (image_size / patch_size);
}

ClipVisionConfig ClipVisionConfig::from_json(const json& given) {
    ZT_CHECK(given.is_object(), io, "the image encoder's config.json is not a JSON object");
    const json type = given.value("model_type", json("none"));
    ZT_CHECK(type == json("clip_vision_model"), unsupported,
             "the image encoder's model_type is {}: accepted is clip_vision_model", type.dump());
    ClipVisionConfig config{.hidden_size = size_of(given, "hidden_size"),
                            .intermediate_size = size_of(given, "intermediate_size"),
                            .num_hidden_layers = size_of(given, "num_hidden_layers"),
                            .num_attention_heads = size_of(given, "num_attention_heads"),
                            .image_size = size_of(given, "image_size"),
                            .patch_size = size_of(given, "patch_size"),
                            .activation = activation_of(given)};
    if (given.contains("num_channels")) config.num_channels = size_of(given, "num_channels");
    const json eps = given.value("layer_norm_eps", json(config.layer_norm_eps));
    ZT_CHECK(eps.is_number() && eps.get<double>() > 0 && eps.get<double>() < 1, io,
             "the image encoder's config.json has layer_norm_eps = {}: a number between 0 and 1 is "
             "wanted",
             eps.dump());
    config.layer_norm_eps = eps.get<double>();
    ZT_CHECK(config.hidden_size % config.num_attention_heads == 0, io,
             "the image encoder's config.json has a hidden_size of {}, which is not a multiple of "
             "its {} num_attention_heads",
             config.hidden_size, config.num_attention_heads);
    ZT_CHECK(config.image_size % config.patch_size == 0, io,
             "the image encoder's config.json has an image_size of {}, which is not a multiple of "
             "its patch_size of {}",
             config.image_size, config.patch_size);
    return config;
}

ClipVision::ClipVision(const ClipVisionConfig& config, Weights& weights) : config_(config) {
    constexpr std::string_view kPrefix = "vision_model.";
    const std::string root{
        weights.contains(fmt::format("{}embeddings.class_embedding", kPrefix)) ? kPrefix : ""};
    const std::int64_t hidden = config.hidden_size, patch = config.patch_size;
    const auto param = [&](const char* name, std::vector<std::int64_t> shape, Role role) {
        return outer_params_.emplace_back(weights.param(root + name, std::move(shape), role));
    };
    class_embedding_ = param("embeddings.class_embedding", {hidden}, Role::fp32);
    patch_embedding_ = param("embeddings.patch_embedding.weight",
                             {hidden, config.num_channels, patch, patch}, Role::conv);
    position_embedding_ =
        param("embeddings.position_embedding.weight", {config.tokens(), hidden}, Role::fp32);
    first_norm_.weight = param("pre_layrnorm.weight", {hidden}, Role::fp32);  // spelt so
    first_norm_.bias = param("pre_layrnorm.bias", {hidden}, Role::fp32);
    const std::string layers = root + "encoder.layers.";
    for (std::int64_t index = 0; index < num_blocks(); ++index) {
        blocks_.push_back(declare_block(fmt::format("{}{}.", layers, index), weights));
    }

    weights.ignore(root + "embeddings.position_ids");
    weights.ignore("visual_projection.weight");
    const std::string last = fmt::format("{}{}.", layers, num_blocks());
    for (const std::string& layer :
         {root + "post_layernorm", last + "layer_norm1", last + "layer_norm2", last + "mlp.fc1",
          last + "mlp.fc2", last + "self_attn.q_proj", last + "self_attn.k_proj",
          last + "self_attn.v_proj", last + "self_attn.out_proj"}) {
        weights.ignore(layer + ".weight");
        weights.ignore(layer + ".bias");
    }
}

ClipVision::Block ClipVision::declare_block(const std::string& prefix, Weights& weights) {
    const std::int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
    std::vector<Param>& params = block_params_.emplace_back();
    const auto param = [&](const std::string& name, std::vector<std::int64_t> shape, Role role) {
        return params.emplace_back(weights.param(prefix + name, std::move(shape), role));
    };
    const auto norm = [&](const std::string& name) {
        return Affine{param(name + ".weight", {hidden}, Role::fp32),
                      param(name + ".bias", {hidden}, Role::fp32)};
    };
    const auto linear = [&](const std::string& name, std::int64_t out, std::int64_t in) {
        return Affine{param(name + ".weight", {out, in}, Role::matrix),
                      param(name + ".bias", {out}, Role::vector)};
    };
    Block block;
    block.attention_norm = norm("layer_norm1");
    block.q = linear("self_attn.q_proj", hidden, hidden);
    block.k = linear("self_attn.k_proj", hidden, hidden);
    block.v = linear("self_attn.v_proj", hidden, hidden);
    block.out = linear("self_attn.out_proj", hidden, hidden);
    block.feed_forward_norm = norm("layer_norm2");
    block.up = linear("mlp.fc1", inner, hidden);
    block.down = linear("mlp.fc2", hidden, inner);
    return block;
}

at::Tensor ClipVision::embed(const at::Tensor& pixels, const Lease& lease) const {
    const at::Tensor& kernel = lease[patch_embedding_];
    const std::int64_t batch = pixels.size(0), channels = config_.num_channels;
    const std::int64_t patch = config_.patch_size, side = config_.image_size / patch;
    // The convolution's strides are its kernel's sizes: a product over patches.
    const at::Tensor patches = pixels.to(kernel.device(), kernel.scalar_type())
                                   .reshape({batch, channels, side, patch, side, patch})
                                   .permute({0, 2, 4, 1, 3, 5})
                                   .reshape({batch, side * side, channels * patch * patch});
    const at::Tensor rows =
        ops::linear({.x = patches, .weight = {kernel.view({config_.hidden_size, -1})}});
    at::Tensor sum =
        at::empty({batch, config_.tokens(), config_.hidden_size}, rows.options().dtype(at::kFloat));
    sum.select(1, 0).copy_(lease[class_embedding_]);
    sum.narrow(1, 1, side * side).copy_(rows);
    sum.add_(lease[position_embedding_]);
    return ops::layer_norm(sum, lease[first_norm_.weight], lease[first_norm_.bias],
                           config_.layer_norm_eps, at::kFloat);
}

at::Tensor ClipVision::attend(const Block& block, const at::Tensor& x, const Lease& lease) const {
    const auto heads = [&](const Affine& layer) {
        return ops::linear(
                   {.x = x, .weight = lease.matrix(layer.weight), .bias = lease[layer.bias]})
            .view({x.size(0), x.size(1), config_.num_attention_heads, -1});
    };
    const at::Tensor out =
        ops::attention({.q = heads(block.q), .k = heads(block.k), .v = heads(block.v)}).out;
    return ops::linear({.x = out.view(x.sizes()),
                        .weight = lease.matrix(block.out.weight),
                        .bias = lease[block.out.bias]});
}

at::Tensor ClipVision::feed_forward(const Block& block, const at::Tensor& x,
                                    const Lease& lease) const {
    constexpr double kQuickGelu = 1.702;  // Hendrycks and Gimpel, arXiv:1606.08415, section 2
    at::Tensor inner = ops::linear({.x = x,
                                    .weight = lease.matrix(block.up.weight),
                                    .bias = lease[block.up.bias],
                                    .epilogue = epilogue_of(config_.activation)});
    if (config_.activation == ClipActivation::quick_gelu) {
        inner.mul_(inner.mul(kQuickGelu).sigmoid_());
    }
    return ops::linear(
        {.x = inner, .weight = lease.matrix(block.down.weight), .bias = lease[block.down.bias]});
}

at::Tensor ClipVision::encode(const at::Tensor& pixels, Residency& residency) const {
    const std::int64_t size = config_.image_size;
    ZT_CHECK(pixels.dim() == 4 && pixels.size(1) == config_.num_channels &&
                 pixels.size(2) == size && pixels.size(3) == size,
             io,
             "the image encoder was given pixels of [{}]: it takes pictures of {} channels and "
             "{}x{} pixels, and the image_processor's preprocessor_config.json must say so",
             fmt::join(pixels.sizes(), ", "), config_.num_channels, size, size);
    const at::ScalarType dtype = residency.options().compute_dtype;
    at::Tensor sum = embed(pixels, residency.lease(outer_params()));
    for (std::size_t index = 0; index < blocks_.size(); ++index) {
        const Block& block = blocks_[index];
        const Lease lease = residency.lease(params(static_cast<std::int64_t>(index)));
        const auto normed = [&](const Affine& norm) {
            return ops::layer_norm(sum, lease[norm.weight], lease[norm.bias],
                                   config_.layer_norm_eps, dtype);
        };
        ops::add_gated(sum, attend(block, normed(block.attention_norm), lease), {}, {});
        ops::add_gated(sum, feed_forward(block, normed(block.feed_forward_norm), lease), {}, {});
        ops::trace(fmt::format("clip.block.{}", index), sum);
    }
    return sum.to(dtype);
}

double ClipVision::flop(std::int64_t pictures) const {
    const auto hidden = static_cast<double>(config_.hidden_size);
    const auto inner = static_cast<double>(config_.intermediate_size);
    const auto tokens = static_cast<double>(config_.tokens());
    const auto patch_elements =
        static_cast<double>(config_.num_channels * config_.patch_size * config_.patch_size);
    const double embedding = 2 * static_cast<double>(config_.patches()) * patch_elements * hidden;
    const double block =
        tokens * (2 * (4 * hidden * hidden + 2 * hidden * inner) + 4 * tokens * hidden);
    return static_cast<double>(pictures) *
           (embedding + static_cast<double>(blocks_.size()) * block);
}

std::int64_t ClipVision::activation_bytes(std::int64_t pictures, std::int64_t element) const {
    constexpr std::int64_t kFloat = 4;
    const std::int64_t hidden = config_.hidden_size, tokens = pictures * config_.tokens();
    const std::int64_t pairs = tokens * config_.tokens() * config_.num_attention_heads;
    const std::int64_t pixels =
        pictures * config_.num_channels * config_.image_size * config_.image_size;
    // The pixels in the compute dtype and as patches, their product, the sum and its norm.
    const std::int64_t embedding = 2 * pixels * element + tokens * hidden * (element + 2 * kFloat);
    // The sum and its norm; q, k, v, the result, its copy and the product; the logits and their
    // softmax where the device has no fused attention.
    const std::int64_t attention =
        tokens * hidden * (kFloat + 7 * element) + pairs * (element + kFloat);
    // Both products, the activation beside its argument.
    const std::int64_t feed_forward =
        tokens * (hidden * (kFloat + 2 * element) + 2 * config_.intermediate_size * element);
    return std::max({embedding, attention, feed_forward});
}

}  // namespace zoetrope
