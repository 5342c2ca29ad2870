#include "denoise/face.h"

#include "base/error.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/replication_pad1d.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

namespace zoetrope {
namespace {

constexpr double kLeakySlope = 0.2;  // of StyleGAN2's fused activation (Karras et al. 2020), with
const double kLeakyGain = std::sqrt(2.0);
constexpr double kSynthesisOffset = 1e-8;  // keeps the directions' matrix from being singular
constexpr double kNormEps = 1e-6;
constexpr std::int64_t kMotionLayers = 5;
constexpr std::int64_t kTaps = 3;        // of every convolution in time
constexpr std::int64_t kLastKernel = 4;  // of conv_out, which sees all that is left
// Levels of more pixels a side take pictures one by one: a level's numbers then fit into the cache
// or nearly so. At smaller ones the weights are most of what is read, and serve several pictures.
constexpr std::int64_t kLargestBatched = 32;

// StyleGAN2's weights are stored with variance 1 and scaled at run time; gain: what the result is
// to be multiplied by. Of a convolution: channels last, as everything in the motion encoder.
at::Tensor scaled(const at::Tensor& weight, double gain = 1) {
    const auto fan_in = static_cast<double>(weight[0].numel());
    const at::Tensor result = weight * (gain / std::sqrt(fan_in));
    return weight.dim() == 4 ? result.contiguous(at::MemoryFormat::ChannelsLast) : result;
}

// Low-pass with the kernel (1, 3, 3, 1), every `stride`th pixel of it, padded for a convolution of
// `kernel` behind it.
at::Tensor blur(const at::Tensor& x, std::int64_t kernel, std::int64_t stride) {
    const at::Tensor row = at::tensor({1.0F, 3.0F, 3.0F, 1.0F}, x.options());
    at::Tensor filter = row.unsqueeze(0) * row.unsqueeze(1);
    filter = (filter / filter.sum()).expand({x.size(1), 1, 4, 4});
    const std::int64_t padding = (4 - 2) + (kernel - 1);
    // What stands second is for the columns, as in torch.nn.functional.conv2d's padding.
    return at::conv2d(x, filter, {}, stride, {(padding + 1) / 2, padding / 2}, 1, x.size(1));
}

// A convolution in time that sees earlier frames only, the first one repeated before the first.
// x: [B, T, C] -> [B, T', C']
at::Tensor causal(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  std::int64_t stride) {
    const at::Tensor padded = at::replication_pad1d(x.transpose(1, 2), {kTaps - 1, 0});
    return at::conv1d(padded, weight, bias, stride).transpose(1, 2);
}

at::Tensor norm_silu(const at::Tensor& x) {
    return at::silu(at::layer_norm(x, {x.size(2)}, {}, {}, kNormEps));
}

}  // namespace

FaceEncoder::Conv FaceEncoder::declare_conv(const std::string& name, std::int64_t in,
                                            std::int64_t out, std::int64_t kernel, const char* bias,
                                            Weights& weights) const {
    Conv conv;
    conv.weight = weights.param(name + ".weight", {out, in, kernel, kernel}, Role::fp32);
    if (bias != nullptr) conv.bias = weights.param(name + bias, {out}, Role::fp32);
    return conv;
}

FaceEncoder::FaceEncoder(const FaceConfig& config, std::int64_t dim, Weights& weights)
    : config_(config), dim_(dim) {
    constexpr const char* kActivationBias = ".act_fn.bias";
    const std::string motion = "motion_encoder.";
    std::int64_t in = config.channels.at(config.size);
    conv_in_ = declare_conv(motion + "conv_in", 3, in, 1, kActivationBias, weights);
    for (std::int64_t size = config.size; size > 4; size /= 2) {
        const std::int64_t out = config.channels.at(size / 2);
        const std::string name = fmt::format("{}res_blocks.{}.", motion, blocks_.size());
        blocks_.push_back(
            {.first = declare_conv(name + "conv1", in, in, 3, kActivationBias, weights),
             .second = declare_conv(name + "conv2", in, out, 3, kActivationBias, weights),
             .skip = declare_conv(name + "conv_skip", in, out, 1, nullptr, weights)});
        in = out;
    }
    conv_out_ =
        declare_conv(motion + "conv_out", in, config.style_dim, kLastKernel, nullptr, weights);
    for (std::int64_t i = 0; i < kMotionLayers; ++i) {
        const std::int64_t out = i + 1 < kMotionLayers ? config.style_dim : config.motion_dim;
        const std::string name = fmt::format("{}motion_network.{}.", motion, i);
        linears_.push_back(
            {.weight = weights.param(name + "weight", {out, config.style_dim}, Role::fp32),
             .bias = weights.param(name + "bias", {out}, Role::fp32)});
    }
    synthesis_ = weights.param(motion + "motion_synthesis_weight",
                               {config.vector_dim, config.motion_dim}, Role::fp32);

    const std::string face = "face_encoder.";
    const auto in_time = [&](const char* name, std::int64_t from, std::int64_t to) {
        return Conv{weights.param(face + name + ".weight", {to, from, kTaps}, Role::fp32),
                    weights.param(face + name + ".bias", {to}, Role::fp32)};
    };
    local_ = in_time("conv1_local", config.vector_dim, config.hidden_dim * config.heads);
    second_ = in_time("conv2", config.hidden_dim, config.hidden_dim);
    third_ = in_time("conv3", config.hidden_dim, config.hidden_dim);
    out_ = {weights.param(face + "out_proj.weight", {dim, config.hidden_dim}, Role::fp32),
            weights.param(face + "out_proj.bias", {dim}, Role::fp32)};
    padding_ = weights.param(face + "padding_tokens", {1, 1, 1, dim}, Role::fp32);
}

// Scaled weights, and factors behind an activation in front of it: leaky ReLU lets them pass.
struct FaceEncoder::Motion {
    struct Filter {
        at::Tensor weight, bias;  // bias undefined: none
    };
    struct Block {
        Filter first, second, skip;
    };
    Filter in, out;
    std::vector<Block> blocks;
    std::vector<Filter> linears;
    at::Tensor directions;  // [vector_dim, motion_dim], orthonormal

    static at::Tensor activated(const at::Tensor& x, const Filter& filter, std::int64_t stride,
                                std::int64_t padding) {
        at::Tensor y = at::conv2d(x, filter.weight, filter.bias, stride, padding);
        return at::leaky_relu_(y, kLeakySlope);
    }
    // [n, in, S, S] -> [n, out, S / 2, S / 2]
    static at::Tensor run(const Block& block, const at::Tensor& x) {
        const at::Tensor y = blur(activated(x, block.first, 1, 1), 3, 1);
        // A filter of one pixel and stride 2 sees every second pixel of what is blurred.
        return activated(y, block.second, 2, 0).add_(at::conv2d(blur(x, 1, 2), block.skip.weight));
    }
};

FaceEncoder::Motion FaceEncoder::prepare_motion(const Lease& lease) const {
    const double half = 1 / std::sqrt(2.0);  // of a block's sum: its variance stays
    const auto filter = [&](const Conv& conv, double gain) {
        return Motion::Filter{scaled(lease[conv.weight], gain),
                              conv.bias.declared() ? lease[conv.bias] * gain : at::Tensor()};
    };
    Motion motion;
    motion.in = filter(conv_in_, kLeakyGain);
    for (const ResBlock& block : blocks_) {
        motion.blocks.push_back({.first = filter(block.first, kLeakyGain),
                                 .second = filter(block.second, kLeakyGain * half),
                                 .skip = filter(block.skip, half)});
    }
    motion.out = filter(conv_out_, 1);
    for (const Conv& linear : linears_) motion.linears.push_back(filter(linear, 1));
    motion.directions = std::get<0>(at::linalg_qr(lease[synthesis_] + kSynthesisOffset));
    return motion;
}

at::Tensor FaceEncoder::motion_of(const at::Tensor& faces, const Motion& motion) const {
    std::size_t alone = 0;  // blocks that take pictures one by one
    for (std::int64_t size = config_.size; size > kLargestBatched; size /= 2) ++alone;
    std::vector<at::Tensor> pictures;
    for (std::int64_t i = 0; i < faces.size(0); ++i) {
        at::Tensor x = faces.narrow(0, i, 1).contiguous(at::MemoryFormat::ChannelsLast);
        x = Motion::activated(x, motion.in, 1, 0);
        for (std::size_t b = 0; b < alone; ++b) x = Motion::run(motion.blocks[b], x);
        pictures.push_back(x);
    }
    at::Tensor x = at::cat(pictures);
    pictures.clear();
    for (std::size_t b = alone; b < motion.blocks.size(); ++b) x = Motion::run(motion.blocks[b], x);
    x = at::conv2d(x, motion.out.weight).flatten(1);
    for (const Motion::Filter& linear : motion.linears)
        x = at::linear(x, linear.weight, linear.bias);
    return at::matmul(x, motion.directions.t());
}

at::Tensor FaceEncoder::tokens_of(const at::Tensor& motion, const Lease& lease) const {
    const std::int64_t frames = motion.size(1);
    at::Tensor x = causal(motion, lease[local_.weight], lease[local_.bias], 1);
    x = x.reshape({frames, config_.heads, config_.hidden_dim}).transpose(0, 1);  // heads apart
    x = norm_silu(x);
    x = norm_silu(causal(x, lease[second_.weight], lease[second_.bias], 2));
    x = norm_silu(causal(x, lease[third_.weight], lease[third_.bias], 2));
    x = at::linear(x, lease[out_.weight], lease[out_.bias]).transpose(0, 1);
    const at::Tensor padding = lease[padding_].view({1, 1, dim_}).expand({x.size(0), 1, dim_});
    return at::cat({x, padding}, 1);
}

at::Tensor FaceEncoder::encode(const at::Tensor& faces, std::int64_t frames,
                               const Lease& lease) const {
    const std::int64_t given = faces.size(2);
    ZT_CHECK((given == frames || given == 1) && faces.size(3) == config_.size &&
                 faces.size(4) == config_.size,
             internal, "face pictures [{}] for {} frames of {} pixels a side",
             fmt::join(faces.sizes(), ", "), frames, config_.size);
    const Motion prepared = prepare_motion(lease);
    std::vector<at::Tensor> vectors;
    for (std::int64_t first = 0; first < given; first += config_.batch_size) {
        const std::int64_t count = std::min(config_.batch_size, given - first);
        const at::Tensor pictures = faces[0].narrow(1, first, count).transpose(0, 1);
        vectors.push_back(motion_of(pictures.to(at::kFloat), prepared));
    }
    at::Tensor motion = at::cat(vectors).unsqueeze(0);
    if (given < frames) motion = motion.expand({1, frames, motion.size(2)});
    const at::Tensor tokens = tokens_of(motion, lease);
    return at::cat({at::zeros_like(tokens.narrow(0, 0, 1)), tokens});
}

double FaceEncoder::flop(std::int64_t frames) const {
    double per_picture = 0;
    std::int64_t in = config_.channels.at(config_.size);
    per_picture += 2.0 * 3 * static_cast<double>(in * config_.size * config_.size);
    for (std::int64_t size = config_.size; size > 4; size /= 2) {
        const std::int64_t out = config_.channels.at(size / 2);
        per_picture += 2.0 * 9 * static_cast<double>(in * in * size * size);
        per_picture += 2.0 * (9 + 1) * static_cast<double>(in * out * (size / 2) * (size / 2));
        in = out;
    }
    per_picture += 2.0 * kLastKernel * kLastKernel * static_cast<double>(in * config_.style_dim);
    const double in_time = 2.0 * kTaps * static_cast<double>(config_.hidden_dim * config_.heads) *
                           static_cast<double>(config_.vector_dim + config_.hidden_dim);
    return static_cast<double>(frames) * (per_picture + in_time);
}

}  // namespace zoetrope
