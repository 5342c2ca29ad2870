// The blocks of the DiT: self-attention, cross-attention to the prompt and pictures, feed-forward;
// and the control branch beside them (VACE, Jiang et al. 2025, arXiv 2503.07598).
#include "base/error.h"
#include "denoise/dit.h"
#include "denoise/dit_parts.h"
#include "ops/attention.h"
#include "ops/trace.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

namespace zoetrope {
namespace {

// Whether a layer's products are of int8: attention's are then as well. (The prompt's attention
// stays as it is: it is short, and packing would take what int8 saves.)
bool multiplies_int8(const ops::Matrix& weight) { return weight.layout == ops::MatrixLayout::int8; }

// [B, L, H * D] -> [B, L, H, D]
at::Tensor split_heads(const at::Tensor& x, std::int64_t heads) {
    return x.view({x.size(0), x.size(1), heads, x.size(2) / heads});
}

}  // namespace

void Dit::blocks(std::int64_t first, std::int64_t last, State& state, const Lease& lease) const {
    for (std::int64_t i = first; i < last; ++i) {
        const auto index = static_cast<std::size_t>(i);
        const auto beside = std::find(config_.vace_layers.begin(), config_.vace_layers.end(), i);
        at::Tensor hint;
        if (beside != config_.vace_layers.end()) {
            hint = control_hint(static_cast<std::size_t>(beside - config_.vace_layers.begin()),
                                state, lease);
        }
        const std::string name = fmt::format("blocks.{}", i);
        run_block(blocks_.at(index), state.x, state.prepared->cross.at(index), state, lease, name);
        if (hint.defined()) ops::add_gated(state.x, hint, {}, {});
        if (config_.has_face() && i % config_.face_every == 0) {
            const auto adapter = static_cast<std::size_t>(i / config_.face_every);
            ops::add_gated(state.x, look_at_faces(adapter, state, lease), {}, {});
        }
        ops::trace(name, state.x);
    }
}

// The control branch's stream goes on from block to block without the model's, so its blocks run
// when their hint is wanted and one hint exists at a time.
at::Tensor Dit::control_hint(std::size_t index, State& state, const Lease& lease) const {
    Prepared& prepared = *state.prepared;
    const Block& block = control_blocks_[index];
    if (index == 0) state.control = state.x + prepared.control;
    const std::string name = fmt::format("vace_blocks.{}", index);
    run_block(block, state.control, prepared.cross.at(blocks_.size() + index), state, lease, name);
    ops::trace(name, state.control);
    at::Tensor hint = apply_linear(state.control.to(prepared.text.scalar_type()), block.hint_weight,
                                   block.hint_bias, lease);
    if (index + 1 == control_blocks_.size()) state.control.reset();
    return prepared.control_scale == 1 ? hint : hint.mul_(prepared.control_scale);
}

// Tokens of a latent frame attend to the face tokens of that frame alone: frames are the batch.
at::Tensor Dit::look_at_faces(std::size_t index, const State& state, const Lease& lease) const {
    const Attention& layer = face_adapters_[index];
    Prepared& prepared = *state.prepared;
    const std::int64_t heads = config_.num_attention_heads, frames = prepared.grid[0];
    const std::int64_t batch = state.x.size(0);
    const at::ScalarType dtype = prepared.text.scalar_type();
    const at::Tensor zero = at::zeros({1, config_.dim()}, state.x.options());
    const auto normed = [&](const at::Tensor& x) {
        return ops::layer_norm_modulate(x, zero, zero, {}, config_.eps, dtype);
    };
    Prepared::KeyValue& kept = prepared.face_cross.at(index);
    if (!kept.key.defined()) {
        const at::Tensor faces = normed(prepared.faces);
        const at::Tensor k =
            split_heads(apply_linear(faces, layer.k_weight, layer.k_bias, lease), heads);
        kept.key = ops::rms_norm(k, lease[layer.k_norm], config_.eps);
        kept.value = split_heads(apply_linear(faces, layer.v_weight, layer.v_bias, lease), heads);
    }
    at::Tensor q = apply_linear(normed(state.x), layer.q_weight, layer.q_bias, lease);
    q = ops::rms_norm(split_heads(q, heads), lease[layer.q_norm], config_.eps);
    q = q.view({batch * frames, -1, heads, config_.attention_head_dim});
    const auto of_batch = [batch](const at::Tensor& x) {
        return batch == 1 ? x : x.repeat({batch, 1, 1, 1});
    };
    const at::Tensor out =
        ops::attention(
            {.q = q, .k = of_batch(kept.key), .v = of_batch(kept.value), .name = "face_attention"})
            .out;
    return apply_linear(out.reshape(state.x.sizes()), layer.out_weight, layer.out_bias, lease);
}

void Dit::run_block(const Block& block, at::Tensor& x, Prepared::CrossCache& cached,
                    const State& state, const Lease& lease, const std::string& name) const {
    const at::Tensor modulation = lease[block.modulation] + state.modulation;  // [T, 6, dim]
    const auto row = [&modulation](Modulation which) { return modulation.select(1, which); };
    const at::ScalarType dtype = state.prepared->text.scalar_type();

    // 1. Self-attention
    at::Tensor branch =
        ops::layer_norm_modulate(x, row(kShift), row(kScale), state.frames, config_.eps, dtype);
    branch = self_attention(block, std::move(branch), state, lease);
    ops::trace(name + ".attn1", branch);
    ops::add_gated(x, branch, row(kGate), state.frames);

    // 2. Cross-attention
    branch = config_.cross_attn_norm
                 ? ops::layer_norm(x, lease[block.cross_norm_weight], lease[block.cross_norm_bias],
                                   config_.eps, dtype)
                 : x.to(dtype);
    branch = cross_attention(block, std::move(branch), cached, *state.prepared, lease);
    ops::trace(name + ".attn2", branch);
    ops::add_gated(x, branch, {}, {});

    // 3. Feed-forward
    branch = ops::layer_norm_modulate(x, row(kFfnShift), row(kFfnScale), state.frames, config_.eps,
                                      dtype);
    branch = feed_forward(block, std::move(branch), lease);
    ops::trace(name + ".ffn", branch);
    ops::add_gated(x, branch, row(kFfnGate), state.frames);
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

at::Tensor Dit::cross_attention(const Block& block, at::Tensor x, Prepared::CrossCache& cached,
                                const Prepared& prepared, const Lease& lease) const {
    const Attention& layer = block.cross;
    const std::int64_t heads = config_.num_attention_heads;
    const auto keys_and_values =
        [&](Prepared::KeyValue& kept, const at::Tensor& tokens, const Param& k_weight,
            const Param& k_bias, const Param& k_norm, const Param& v_weight, const Param& v_bias) {
            if (kept.key.defined()) return;
            const at::Tensor k = apply_linear(tokens, k_weight, k_bias, lease);
            kept.key = split_heads(ops::rms_norm(k, lease[k_norm], config_.eps), heads);
            kept.value = split_heads(apply_linear(tokens, v_weight, v_bias, lease), heads);
        };
    keys_and_values(cached.text, prepared.text, layer.k_weight, layer.k_bias, layer.k_norm,
                    layer.v_weight, layer.v_bias);
    at::Tensor q = apply_linear(x, layer.q_weight, layer.q_bias, lease);
    q = split_heads(ops::rms_norm(q, lease[layer.q_norm], config_.eps), heads);
    at::Tensor out =
        ops::attention(
            {.q = q, .k = cached.text.key, .v = cached.text.value, .name = "cross_attention"})
            .out;
    if (prepared.image.defined()) {
        keys_and_values(cached.image, prepared.image, layer.image_k_weight, layer.image_k_bias,
                        layer.image_k_norm, layer.image_v_weight, layer.image_v_bias);
        out.add_(
            ops::attention(
                {.q = q, .k = cached.image.key, .v = cached.image.value, .name = "image_attention"})
                .out);
    }
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

}  // namespace zoetrope
