#include "denoise/dit.h"

#include "base/error.h"
#include "denoise/dit_parts.h"
#include "ops/linear.h"
#include "ops/trace.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tensor.h>

#include <cmath>

namespace zoetrope {
namespace {

constexpr double kRotaryTheta = 10000;  // base of the rotary frequencies (RoFormer, Su et al. 2021)
constexpr double kTimestepPeriod =
    10000;  // longest period of the time embedding (DDPM, Ho et al. 2020)

// cos and sin of the angles of `channels` / 2 pairs at positions 0 .. count - 1, in float64 as the
// reference has them.
ops::RotaryTable axis_angles(std::int64_t channels, std::int64_t count) {
    const at::Tensor exponents =
        at::arange(0, channels, 2, at::kDouble) / static_cast<double>(channels);
    const at::Tensor frequencies = at::pow(kRotaryTheta, exponents).reciprocal();
    const at::Tensor angles = at::outer(at::arange(count, at::kDouble), frequencies);
    return {at::cos(angles).to(at::kFloat), at::sin(angles).to(at::kFloat)};
}

// The 3D table: channels are split between time, height and width; the latter two get 2 * (head_dim
// / 6) each.
ops::RotaryTable rotary_table(std::int64_t head_dim, const std::array<std::int64_t, 3>& grid,
                              at::Device device) {
    const std::int64_t side = 2 * (head_dim / 6);
    const std::array<std::int64_t, 3> channels = {head_dim - 2 * side, side, side};
    std::vector<at::Tensor> cos, sin;
    for (std::size_t axis = 0; axis < 3; ++axis) {
        const auto angles = axis_angles(channels[axis], grid[axis]);
        std::vector<std::int64_t> shape = {1, 1, 1, channels[axis] / 2};
        shape[axis] = grid[axis];
        const std::vector<std::int64_t> full = {grid[0], grid[1], grid[2], channels[axis] / 2};
        cos.push_back(angles.cos.view(shape).expand(full));
        sin.push_back(angles.sin.view(shape).expand(full));
    }
    const std::int64_t tokens = grid[0] * grid[1] * grid[2];
    return {at::cat(cos, 3).reshape({tokens, head_dim / 2}).to(device),
            at::cat(sin, 3).reshape({tokens, head_dim / 2}).to(device)};
}

// [T] -> [T, channels] fp32: cosines, then sines.
at::Tensor sinusoidal_embedding(const at::Tensor& timesteps, std::int64_t channels) {
    const std::int64_t half = channels / 2;
    const at::Tensor exponents = at::arange(half, timesteps.options()) *
                                 -std::log(kTimestepPeriod) / static_cast<double>(half);
    const at::Tensor angles = timesteps.unsqueeze(1) * at::exp(exponents).unsqueeze(0);
    return at::cat({at::cos(angles), at::sin(angles)}, 1);
}

// The parameters that were declared from that position on.
std::vector<Param> declared_since(const Weights& weights, std::size_t begin) {
    const auto all = weights.params();
    return {all.begin() + static_cast<std::ptrdiff_t>(begin), all.end()};
}

}  // namespace

Dit::Attention Dit::declare_attention(Weights& weights, const std::string& prefix, const char* out,
                                      std::int64_t norm_channels) const {
    const std::int64_t dim = config_.dim();
    const auto matrix = [&](const char* name) {
        return weights.param(prefix + name + ".weight", {dim, dim}, Role::matrix);
    };
    const auto bias = [&](const char* name) {
        return weights.param(prefix + name + ".bias", {dim}, Role::vector);
    };
    const auto norm = [&](const char* name) {
        return weights.param(prefix + name + ".weight", {norm_channels}, Role::fp32);
    };
    Attention layer{.q_weight = matrix("to_q"),
                    .q_bias = bias("to_q"),
                    .k_weight = matrix("to_k"),
                    .k_bias = bias("to_k"),
                    .v_weight = matrix("to_v"),
                    .v_bias = bias("to_v"),
                    .out_weight = matrix(out),
                    .out_bias = bias(out),
                    .q_norm = norm("norm_q"),
                    .k_norm = norm("norm_k")};
    if (config_.image_dim > 0 && prefix.ends_with("attn2.")) {
        layer.image_k_weight = matrix("add_k_proj");
        layer.image_k_bias = bias("add_k_proj");
        layer.image_v_weight = matrix("add_v_proj");
        layer.image_v_bias = bias("add_v_proj");
        layer.image_k_norm = norm("norm_added_k");
        // Some released files have it, and no version of the model used it.
        weights.ignore(prefix + "norm_added_q.weight");
    }
    return layer;
}

Dit::Block Dit::declare_block(Weights& weights, const std::string& prefix) const {
    const std::int64_t dim = config_.dim();
    Block block;
    block.modulation =
        weights.param(prefix + "scale_shift_table", {1, kModulationRows, dim}, Role::fp32);
    block.self = declare_attention(weights, prefix + "attn1.", "to_out.0", dim);
    block.cross = declare_attention(weights, prefix + "attn2.", "to_out.0", dim);
    if (config_.cross_attn_norm) {
        block.cross_norm_weight = weights.param(prefix + "norm2.weight", {dim}, Role::fp32);
        block.cross_norm_bias = weights.param(prefix + "norm2.bias", {dim}, Role::fp32);
    }
    block.up_weight =
        weights.param(prefix + "ffn.net.0.proj.weight", {config_.ffn_dim, dim}, Role::matrix);
    block.up_bias = weights.param(prefix + "ffn.net.0.proj.bias", {config_.ffn_dim}, Role::vector);
    block.down_weight =
        weights.param(prefix + "ffn.net.2.weight", {dim, config_.ffn_dim}, Role::matrix);
    block.down_bias = weights.param(prefix + "ffn.net.2.bias", {dim}, Role::vector);
    return block;
}

void Dit::declare_embedders(Weights& weights) {
    const std::int64_t dim = config_.dim();
    const auto [pt, ph, pw] = config_.patch_size;
    patch_weight_ =
        weights.param("patch_embedding.weight", {dim, config_.in_channels, pt, ph, pw}, Role::fp32);
    patch_bias_ = weights.param("patch_embedding.bias", {dim}, Role::fp32);
    const std::string embedder = "condition_embedder.";
    time_1_weight_ = weights.param(embedder + "time_embedder.linear_1.weight",
                                   {dim, config_.freq_dim}, Role::fp32);
    time_1_bias_ = weights.param(embedder + "time_embedder.linear_1.bias", {dim}, Role::fp32);
    time_2_weight_ =
        weights.param(embedder + "time_embedder.linear_2.weight", {dim, dim}, Role::fp32);
    time_2_bias_ = weights.param(embedder + "time_embedder.linear_2.bias", {dim}, Role::fp32);
    time_projection_weight_ =
        weights.param(embedder + "time_proj.weight", {kModulationRows * dim, dim}, Role::conv);
    time_projection_bias_ =
        weights.param(embedder + "time_proj.bias", {kModulationRows * dim}, Role::fp32);
    text_1_weight_ = weights.param(embedder + "text_embedder.linear_1.weight",
                                   {dim, config_.text_dim}, Role::matrix);
    text_1_bias_ = weights.param(embedder + "text_embedder.linear_1.bias", {dim}, Role::vector);
    text_2_weight_ =
        weights.param(embedder + "text_embedder.linear_2.weight", {dim, dim}, Role::matrix);
    text_2_bias_ = weights.param(embedder + "text_embedder.linear_2.bias", {dim}, Role::vector);
    if (const std::int64_t width = config_.image_dim; width > 0) {
        const std::string image = embedder + "image_embedder.";
        image_ = {
            .norm_1_weight = weights.param(image + "norm1.weight", {width}, Role::fp32),
            .norm_1_bias = weights.param(image + "norm1.bias", {width}, Role::fp32),
            .up_weight =
                weights.param(image + "ff.net.0.proj.weight", {width, width}, Role::matrix),
            .up_bias = weights.param(image + "ff.net.0.proj.bias", {width}, Role::vector),
            .down_weight = weights.param(image + "ff.net.2.weight", {dim, width}, Role::matrix),
            .down_bias = weights.param(image + "ff.net.2.bias", {dim}, Role::vector),
            .norm_2_weight = weights.param(image + "norm2.weight", {dim}, Role::fp32),
            .norm_2_bias = weights.param(image + "norm2.bias", {dim}, Role::fp32),
            .positions = {}};
        if (config_.pos_embed_seq_len > 0) {
            image_.positions = weights.param(image + "pos_embed",
                                             {1, config_.pos_embed_seq_len, width}, Role::vector);
        }
    }
    if (config_.has_control()) {
        control_patch_weight_ = weights.param(
            "vace_patch_embedding.weight", {dim, config_.vace_in_channels, pt, ph, pw}, Role::fp32);
        control_patch_bias_ = weights.param("vace_patch_embedding.bias", {dim}, Role::fp32);
        control_in_weight_ =
            weights.param("vace_blocks.0.proj_in.weight", {dim, dim}, Role::matrix);
        control_in_bias_ = weights.param("vace_blocks.0.proj_in.bias", {dim}, Role::vector);
    }
    if (config_.has_face()) {
        pose_patch_weight_ = weights.param("pose_patch_embedding.weight",
                                           {dim, config_.pose_channels, pt, ph, pw}, Role::fp32);
        pose_patch_bias_ = weights.param("pose_patch_embedding.bias", {dim}, Role::fp32);
        face_encoder_.emplace(config_.face, dim, weights);
    }
    out_weight_ =
        weights.param("proj_out.weight", {config_.out_channels * pt * ph * pw, dim}, Role::fp32);
    out_bias_ = weights.param("proj_out.bias", {config_.out_channels * pt * ph * pw}, Role::fp32);
    out_modulation_ = weights.param("scale_shift_table", {1, 2, dim}, Role::fp32);
}

Dit::Dit(const DitConfig& config, Weights& weights) : config_(config) {
    const std::int64_t dim = config.dim();
    const std::size_t start = weights.params().size();
    declare_embedders(weights);
    outer_params_ = declared_since(weights, start);
    for (std::int64_t i = 0; i < config.num_layers; ++i) {
        const std::size_t begin = weights.params().size();
        blocks_.push_back(declare_block(weights, fmt::format("blocks.{}.", i)));
        const std::size_t control = control_blocks_.size();
        if (control < config.vace_layers.size() && config.vace_layers[control] == i) {
            const std::string prefix = fmt::format("vace_blocks.{}.", control);
            Block block = declare_block(weights, prefix);
            block.hint_weight = weights.param(prefix + "proj_out.weight", {dim, dim}, Role::matrix);
            block.hint_bias = weights.param(prefix + "proj_out.bias", {dim}, Role::vector);
            control_blocks_.push_back(std::move(block));
        }
        if (config.has_face() && i % config.face_every == 0) {
            face_adapters_.push_back(
                declare_attention(weights, fmt::format("face_adapter.{}.", face_adapters_.size()),
                                  "to_out", config.attention_head_dim));
        }
        block_params_.push_back(declared_since(weights, begin));
    }
}

std::span<const Param> Dit::params(std::int64_t block) const {
    return block_params_.at(static_cast<std::size_t>(block));
}

std::span<const Param> Dit::outer_params() const { return outer_params_; }

Dit::Prepared Dit::prepare(const Conditions& conditions, const Lease& lease) const {
    const LatentSize& size = conditions.size;
    const auto [pt, ph, pw] = config_.patch_size;
    ZT_CHECK(size.frames > 0 && size.height > 0 && size.width > 0 && size.frames % pt == 0 &&
                 size.height % ph == 0 && size.width % pw == 0,
             bad_request, "latents of {} frames, {}x{} cannot be cut into patches of {}x{}x{}",
             size.frames, size.height, size.width, pt, ph, pw);
    Prepared prepared;
    prepared.size = size;
    prepared.grid = {size.frames / pt, size.height / ph, size.width / pw};
    for (const std::int64_t length : prepared.grid) {
        ZT_CHECK(length <= config_.rope_max_seq_len, bad_request,
                 "the video is {} patches long in one dimension; the model's positions end at {}",
                 length, config_.rope_max_seq_len);
    }
    prepared.rotary =
        rotary_table(config_.attention_head_dim, prepared.grid, conditions.text.device());
    const at::Tensor hidden = apply_linear(conditions.text, text_1_weight_, text_1_bias_, lease,
                                           ops::Epilogue::gelu_tanh);
    prepared.text = apply_linear(hidden, text_2_weight_, text_2_bias_, lease);
    const at::ScalarType dtype = prepared.text.scalar_type();
    ZT_CHECK(conditions.image.defined() == (config_.image_dim > 0), internal,
             "prepare: this model takes {} picture embeddings", config_.image_dim > 0 ? "" : "no");
    if (conditions.image.defined()) {
        prepared.image = embed_images(conditions.image, lease, dtype);
        ops::trace("image", prepared.image);
    }
    prepared.channels = conditions.channels;
    ZT_CHECK(conditions.control.defined() == config_.has_control(), internal,
             "prepare: this model takes {} control latents", config_.has_control() ? "" : "no");
    if (conditions.control.defined()) {
        ZT_CHECK(conditions.control.size(1) == config_.vace_in_channels &&
                     conditions.control.size(2) == size.frames &&
                     conditions.control.size(3) == size.height &&
                     conditions.control.size(4) == size.width,
                 internal, "prepare: control latents [{}] for {} frames of {}x{}",
                 fmt::join(conditions.control.sizes(), ", "), size.frames, size.height, size.width);
        const at::Tensor embedded =
            at::linear(patches_of(conditions.control), lease[control_patch_weight_].flatten(1),
                       lease[control_patch_bias_]);
        prepared.control =
            apply_linear(embedded.to(dtype), control_in_weight_, control_in_bias_, lease)
                .to(at::kFloat);
        prepared.control_scale = conditions.control_scale;
    }
    prepare_animation(conditions, prepared, lease);
    prepared.cross.resize(blocks_.size() + control_blocks_.size());
    ops::trace("text", prepared.text);
    return prepared;
}

void Dit::prepare_animation(const Conditions& conditions, Prepared& prepared,
                            const Lease& lease) const {
    ZT_CHECK(conditions.pose.defined() == config_.has_face() &&
                 conditions.faces.defined() == config_.has_face(),
             internal, "prepare: this model takes {} poses and faces",
             config_.has_face() ? "" : "no");
    if (!config_.has_face()) return;
    const at::Tensor& pose = conditions.pose;
    const LatentSize& size = prepared.size;
    ZT_CHECK(pose.size(1) == config_.pose_channels && pose.size(2) == size.frames - 1 &&
                 pose.size(3) == size.height && pose.size(4) == size.width,
             internal, "prepare: pose latents [{}] for {} frames of {}x{}",
             fmt::join(pose.sizes(), ", "), size.frames, size.height, size.width);
    prepared.pose =
        at::linear(patches_of(pose), lease[pose_patch_weight_].flatten(1), lease[pose_patch_bias_]);
    // The reference picture's latent frame and one for the first frame of video, then one for four.
    const std::int64_t frames = 4 * (size.frames - 2) + 1;
    prepared.faces =
        face_encoder_->encode(conditions.faces, frames, lease).to(prepared.text.scalar_type());
    prepared.face_cross.resize(face_adapters_.size());
    ops::trace("faces", prepared.faces);
}

at::Tensor Dit::embed_images(const at::Tensor& image, const Lease& lease,
                             at::ScalarType dtype) const {
    constexpr double kImageNormEps = 1e-5;  // torch.nn.LayerNorm's own, which Diffusers leaves
    at::Tensor tokens = image.to(dtype).reshape({1, -1, config_.image_dim});
    if (config_.pos_embed_seq_len > 0) {
        ZT_CHECK(tokens.size(1) == config_.pos_embed_seq_len, bad_request,
                 "this model takes {} picture tokens, a first and a last picture, and was given {}",
                 config_.pos_embed_seq_len, tokens.size(1));
        tokens = tokens + lease[image_.positions];
    }
    tokens = ops::layer_norm(tokens, lease[image_.norm_1_weight], lease[image_.norm_1_bias],
                             kImageNormEps, dtype);
    tokens = apply_linear(tokens, image_.up_weight, image_.up_bias, lease, ops::Epilogue::gelu_erf);
    tokens = apply_linear(tokens, image_.down_weight, image_.down_bias, lease);
    return ops::layer_norm(tokens, lease[image_.norm_2_weight], lease[image_.norm_2_bias],
                           kImageNormEps, dtype);
}

// [B, C, F, H, W] -> [B, L, C * patch] fp32
at::Tensor Dit::patches_of(const at::Tensor& latents) const {
    const auto [pt, ph, pw] = config_.patch_size;
    const std::int64_t batch = latents.size(0), channels = latents.size(1);
    const std::int64_t gt = latents.size(2) / pt, gh = latents.size(3) / ph,
                       gw = latents.size(4) / pw;
    return latents.to(at::kFloat)
        .reshape({batch, channels, gt, pt, gh, ph, gw, pw})
        .permute({0, 2, 4, 6, 1, 3, 5, 7})
        .reshape({batch, gt * gh * gw, channels * pt * ph * pw});
}

Dit::State Dit::embed(const at::Tensor& latents, const FrameTimesteps& timesteps,
                      Prepared& prepared, const Lease& lease) const {
    const at::Tensor& extra = prepared.channels;
    const std::int64_t channels = latents.size(1) + (extra.defined() ? extra.size(1) : 0);
    const LatentSize size{latents.size(2), latents.size(3), latents.size(4)};
    ZT_CHECK(size == prepared.size && channels == config_.in_channels, internal,
             "embed: latents [{}] with {} more channels do not fit what was prepared",
             fmt::join(latents.sizes(), ", "), channels - latents.size(1));
    const auto [gt, gh, gw] = prepared.grid;
    const std::int64_t pt = config_.patch_size[0];

    State state;
    state.prepared = &prepared;
    at::Tensor input = latents.to(at::kFloat);
    if (extra.defined()) {
        std::vector<std::int64_t> shape = extra.sizes().vec();
        shape[0] = latents.size(0);
        input = at::cat({input, extra.expand(shape)}, 1);
    }
    state.x = at::linear(patches_of(input), lease[patch_weight_].flatten(1), lease[patch_bias_]);

    ops::trace("patch_embedding", state.x);
    if (prepared.pose.defined()) {
        const std::int64_t frame = gh * gw;
        state.x.narrow(1, frame, state.x.size(1) - frame).add_(prepared.pose);
    }

    const at::Tensor values = at::tensor(timesteps.values, at::kFloat).to(latents.device());
    at::Tensor time = at::linear(sinusoidal_embedding(values, config_.freq_dim),
                                 lease[time_1_weight_], lease[time_1_bias_]);
    state.time = at::linear(at::silu(time), lease[time_2_weight_], lease[time_2_bias_]);
    state.modulation = ops::linear_fp32(at::silu(state.time), lease.matrix(time_projection_weight_),
                                        lease[time_projection_bias_])
                           .view({-1, kModulationRows, config_.dim()});
    if (timesteps.values.size() > 1) {
        ZT_CHECK(static_cast<std::int64_t>(timesteps.frame_value.size()) == gt * pt, internal,
                 "embed: {} latent frames, time steps for {}", gt * pt,
                 timesteps.frame_value.size());
        for (std::int64_t f = 0; f < gt; ++f) {
            state.frames.rows.push_back(timesteps.frame_value[static_cast<std::size_t>(f * pt)]);
        }
        state.frames.frame_tokens = gh * gw;
    }
    ops::trace("time", state.time);
    ops::trace("modulation", state.modulation);
    return state;
}

at::Tensor Dit::head(const State& state, const Lease& lease) const {
    const at::Tensor modulation = lease[out_modulation_] + state.time.unsqueeze(1);  // [T, 2, dim]
    const at::Tensor normed =
        ops::layer_norm_modulate(state.x, modulation.select(1, 0), modulation.select(1, 1),
                                 state.frames, config_.eps, at::kFloat);
    const at::Tensor patches = at::linear(normed, lease[out_weight_], lease[out_bias_]);
    const auto [pt, ph, pw] = config_.patch_size;
    const auto [gt, gh, gw] = state.prepared->grid;
    const std::int64_t batch = patches.size(0);
    const at::Tensor velocity =
        patches.view({batch, gt, gh, gw, pt, ph, pw, config_.out_channels})
            .permute({0, 7, 1, 4, 2, 5, 3, 6})
            .reshape({batch, config_.out_channels, gt * pt, gh * ph, gw * pw});
    ops::trace("velocity", velocity);
    return velocity;
}

}  // namespace zoetrope
