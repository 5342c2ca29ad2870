#include "denoise/dit.h"

#include "base/error.h"
#include "ops/attention.h"
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

// Rows of a block's modulation table: shift, scale and gate of self-attention, then of the
// feed-forward part.
enum Modulation { kShift, kScale, kGate, kFfnShift, kFfnScale, kFfnGate, kModulationRows };

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

at::Tensor apply_linear(const at::Tensor& x, const Param& weight, const Param& bias,
                        const Lease& lease, ops::Epilogue epilogue = ops::Epilogue::none) {
    return ops::linear(
        {.x = x, .weight = lease.matrix(weight), .bias = lease[bias], .epilogue = epilogue});
}

// Whether a layer's products are of int8: attention's are then as well. (The prompt's attention
// stays as it is: it is short, and packing would take what int8 saves.)
bool multiplies_int8(const ops::Matrix& weight) { return weight.layout == ops::MatrixLayout::int8; }

// [B, L, H * D] -> [B, L, H, D]
at::Tensor split_heads(const at::Tensor& x, std::int64_t heads) {
    return x.view({x.size(0), x.size(1), heads, x.size(2) / heads});
}

// The parameters that were declared from that position on.
std::vector<Param> declared_since(const Weights& weights, std::size_t begin) {
    const auto all = weights.params();
    return {all.begin() + static_cast<std::ptrdiff_t>(begin), all.end()};
}

}  // namespace

Dit::Attention Dit::declare_attention(Weights& weights, const std::string& prefix) const {
    const std::int64_t dim = config_.dim();
    const auto matrix = [&](const char* name) {
        return weights.param(prefix + name + ".weight", {dim, dim}, Role::matrix);
    };
    const auto bias = [&](const char* name) {
        return weights.param(prefix + name + ".bias", {dim}, Role::vector);
    };
    const auto norm = [&](const char* name) {
        return weights.param(prefix + name + ".weight", {dim}, Role::fp32);
    };
    return {.q_weight = matrix("to_q"),
            .q_bias = bias("to_q"),
            .k_weight = matrix("to_k"),
            .k_bias = bias("to_k"),
            .v_weight = matrix("to_v"),
            .v_bias = bias("to_v"),
            .out_weight = matrix("to_out.0"),
            .out_bias = bias("to_out.0"),
            .q_norm = norm("norm_q"),
            .k_norm = norm("norm_k")};
}

Dit::Dit(const DitConfig& config, Weights& weights) : config_(config) {
    const std::int64_t dim = config.dim();
    const auto [pt, ph, pw] = config.patch_size;
    patch_weight_ =
        weights.param("patch_embedding.weight", {dim, config.in_channels, pt, ph, pw}, Role::fp32);
    patch_bias_ = weights.param("patch_embedding.bias", {dim}, Role::fp32);
    const std::string embedder = "condition_embedder.";
    time_1_weight_ = weights.param(embedder + "time_embedder.linear_1.weight",
                                   {dim, config.freq_dim}, Role::fp32);
    time_1_bias_ = weights.param(embedder + "time_embedder.linear_1.bias", {dim}, Role::fp32);
    time_2_weight_ =
        weights.param(embedder + "time_embedder.linear_2.weight", {dim, dim}, Role::fp32);
    time_2_bias_ = weights.param(embedder + "time_embedder.linear_2.bias", {dim}, Role::fp32);
    time_projection_weight_ =
        weights.param(embedder + "time_proj.weight", {kModulationRows * dim, dim}, Role::conv);
    time_projection_bias_ =
        weights.param(embedder + "time_proj.bias", {kModulationRows * dim}, Role::fp32);
    text_1_weight_ = weights.param(embedder + "text_embedder.linear_1.weight",
                                   {dim, config.text_dim}, Role::matrix);
    text_1_bias_ = weights.param(embedder + "text_embedder.linear_1.bias", {dim}, Role::vector);
    text_2_weight_ =
        weights.param(embedder + "text_embedder.linear_2.weight", {dim, dim}, Role::matrix);
    text_2_bias_ = weights.param(embedder + "text_embedder.linear_2.bias", {dim}, Role::vector);
    out_weight_ =
        weights.param("proj_out.weight", {config.out_channels * pt * ph * pw, dim}, Role::fp32);
    out_bias_ = weights.param("proj_out.bias", {config.out_channels * pt * ph * pw}, Role::fp32);
    out_modulation_ = weights.param("scale_shift_table", {1, 2, dim}, Role::fp32);
    outer_params_ = declared_since(weights, 0);

    for (std::int64_t i = 0; i < config.num_layers; ++i) {
        const std::string prefix = fmt::format("blocks.{}.", i);
        const std::size_t begin = weights.params().size();
        Block block;
        block.modulation =
            weights.param(prefix + "scale_shift_table", {1, kModulationRows, dim}, Role::fp32);
        block.self = declare_attention(weights, prefix + "attn1.");
        block.cross = declare_attention(weights, prefix + "attn2.");
        if (config.cross_attn_norm) {
            block.cross_norm_weight = weights.param(prefix + "norm2.weight", {dim}, Role::fp32);
            block.cross_norm_bias = weights.param(prefix + "norm2.bias", {dim}, Role::fp32);
        }
        block.up_weight =
            weights.param(prefix + "ffn.net.0.proj.weight", {config.ffn_dim, dim}, Role::matrix);
        block.up_bias =
            weights.param(prefix + "ffn.net.0.proj.bias", {config.ffn_dim}, Role::vector);
        block.down_weight =
            weights.param(prefix + "ffn.net.2.weight", {dim, config.ffn_dim}, Role::matrix);
        block.down_bias = weights.param(prefix + "ffn.net.2.bias", {dim}, Role::vector);
        blocks_.push_back(std::move(block));
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
    prepared.cross.resize(blocks_.size());
    ops::trace("text", prepared.text);
    return prepared;
}

Dit::State Dit::embed(const at::Tensor& latents, const FrameTimesteps& timesteps,
                      Prepared& prepared, const Lease& lease) const {
    const LatentSize size{latents.size(2), latents.size(3), latents.size(4)};
    ZT_CHECK(size == prepared.size && latents.size(1) == config_.in_channels, internal,
             "embed: latents [{}] do not fit what was prepared", fmt::join(latents.sizes(), ", "));
    const auto [pt, ph, pw] = config_.patch_size;
    const auto [gt, gh, gw] = prepared.grid;
    const std::int64_t batch = latents.size(0);

    State state;
    state.prepared = &prepared;
    const at::Tensor patches =
        latents.to(at::kFloat)
            .view({batch, config_.in_channels, gt, pt, gh, ph, gw, pw})
            .permute({0, 2, 4, 6, 1, 3, 5, 7})
            .reshape({batch, gt * gh * gw, config_.in_channels * pt * ph * pw});
    state.x = at::linear(patches, lease[patch_weight_].flatten(1), lease[patch_bias_]);

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
    ops::trace("patch_embedding", state.x);
    ops::trace("time", state.time);
    ops::trace("modulation", state.modulation);
    return state;
}

void Dit::blocks(std::int64_t first, std::int64_t last, State& state, const Lease& lease) const {
    for (std::int64_t i = first; i < last; ++i) {
        const Block& block = blocks_.at(static_cast<std::size_t>(i));
        Prepared::KeyValue& cached = state.prepared->cross.at(static_cast<std::size_t>(i));
        const at::Tensor modulation = lease[block.modulation] + state.modulation;  // [T, 6, dim]
        const auto row = [&modulation](Modulation which) { return modulation.select(1, which); };
        const auto named = [i](const char* part) { return fmt::format("blocks.{}.{}", i, part); };
        const at::ScalarType dtype = state.prepared->text.scalar_type();
        at::Tensor& x = state.x;

        // 1. Self-attention
        at::Tensor branch =
            ops::layer_norm_modulate(x, row(kShift), row(kScale), state.frames, config_.eps, dtype);
        branch = self_attention(block, std::move(branch), state, lease);
        ops::trace(named("attn1"), branch);
        ops::add_gated(x, branch, row(kGate), state.frames);

        // 2. Cross-attention
        branch = config_.cross_attn_norm
                     ? ops::layer_norm(x, lease[block.cross_norm_weight],
                                       lease[block.cross_norm_bias], config_.eps, dtype)
                     : x.to(dtype);
        branch = cross_attention(block, std::move(branch), cached, state.prepared->text, lease);
        ops::trace(named("attn2"), branch);
        ops::add_gated(x, branch, {}, {});

        // 3. Feed-forward
        branch = ops::layer_norm_modulate(x, row(kFfnShift), row(kFfnScale), state.frames,
                                          config_.eps, dtype);
        branch = feed_forward(block, std::move(branch), lease);
        ops::trace(named("ffn"), branch);
        ops::add_gated(x, branch, row(kFfnGate), state.frames);
        ops::trace(fmt::format("blocks.{}", i), x);
    }
}

at::Tensor Dit::self_attention(const Block& block, at::Tensor x, const State& state,
                               const Lease& lease) const {
    const Attention& layer = block.self;
    const ops::RotaryTable& rotary = state.prepared->rotary;
    at::Tensor q = apply_linear(x, layer.q_weight, layer.q_bias, lease);
    q = ops::rms_norm_rotary(q, lease[layer.q_norm], config_.eps, rotary);
    at::Tensor k = apply_linear(x, layer.k_weight, layer.k_bias, lease);
    k = ops::rms_norm_rotary(k, lease[layer.k_norm], config_.eps, rotary);
    const at::Tensor v =
        split_heads(apply_linear(x, layer.v_weight, layer.v_bias, lease), q.size(2));
    x.reset();  // not needed while attention runs
    const at::Tensor out = ops::attention({.q = q,
                                           .k = k,
                                           .v = v,
                                           .name = "self_attention",
                                           .int8 = multiplies_int8(lease.matrix(layer.q_weight))})
                               .out;
    return apply_linear(out.flatten(2), layer.out_weight, layer.out_bias, lease);
}

at::Tensor Dit::cross_attention(const Block& block, at::Tensor x, Prepared::KeyValue& cached,
                                const at::Tensor& text, const Lease& lease) const {
    const Attention& layer = block.cross;
    const std::int64_t heads = config_.num_attention_heads;
    if (!cached.key.defined()) {
        const at::Tensor k = apply_linear(text, layer.k_weight, layer.k_bias, lease);
        cached.key = split_heads(ops::rms_norm(k, lease[layer.k_norm], config_.eps), heads);
        cached.value = split_heads(apply_linear(text, layer.v_weight, layer.v_bias, lease), heads);
    }
    at::Tensor q = apply_linear(x, layer.q_weight, layer.q_bias, lease);
    q = split_heads(ops::rms_norm(q, lease[layer.q_norm], config_.eps), heads);
    const at::Tensor out =
        ops::attention({.q = q, .k = cached.key, .v = cached.value, .name = "cross_attention"}).out;
    return apply_linear(out.flatten(2), layer.out_weight, layer.out_bias, lease);
}

at::Tensor Dit::feed_forward(const Block& block, at::Tensor x, const Lease& lease) const {
    const at::Tensor rows = x.flatten(0, 1);
    const at::Tensor out = at::empty(rows.sizes(), rows.options());
    for (std::int64_t first = 0; first < rows.size(0); first += kFeedForwardTokens) {
        const std::int64_t count = std::min(kFeedForwardTokens, rows.size(0) - first);
        const at::Tensor hidden = apply_linear(rows.narrow(0, first, count), block.up_weight,
                                               block.up_bias, lease, ops::Epilogue::gelu_tanh);
        ops::linear({.x = hidden,
                     .weight = lease.matrix(block.down_weight),
                     .bias = lease[block.down_bias],
                     .out = out.narrow(0, first, count)});
    }
    return out.view(x.sizes());
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
