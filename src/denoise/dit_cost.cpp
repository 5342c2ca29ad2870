// What a pass over the DiT costs: operations and memory, from shapes alone.
#include "denoise/dit.h"
#include "ops/device.h"
#include "ops/linear.h"

#include <algorithm>

namespace zoetrope {

Dit::Flop Dit::flop(const LatentSize& size, std::int64_t text_length) const {
    const auto [pt, ph, pw] = config_.patch_size;
    const double tokens =
        static_cast<double>((size.frames / pt) * (size.height / ph) * (size.width / pw));
    const double text = static_cast<double>(text_length);
    const double dim = static_cast<double>(config_.dim());
    const double layers = static_cast<double>(config_.num_layers);
    Flop flop;
    flop.self_attention = layers * 4 * tokens * tokens * dim;
    const double projections = 2 * dim * dim * (4 * tokens + 2 * tokens + 2 * text);
    const double cross_attention = 4 * tokens * text * dim;
    const double feed_forward = 4 * tokens * dim * static_cast<double>(config_.ffn_dim);
    flop.total = flop.self_attention + layers * (projections + cross_attention + feed_forward);
    return flop;
}

Dit::Memory Dit::memory(const LatentSize& size, std::int64_t text_length,
                        std::int64_t element) const {
    const auto [pt, ph, pw] = config_.patch_size;
    const std::int64_t tokens = (size.frames / pt) * (size.height / ph) * (size.width / pw);
    const std::int64_t dim = config_.dim();
    constexpr std::int64_t kFloat = 4;  // bytes
    // Self-attention at its widest: queries, keys, values, its result, and the copies of keys and
    // values that are packed. Feed-forward: its input and output, and some tokens' hidden layer.
    const std::int64_t attention = tokens * dim * 6 * element;
    const std::int64_t feed_forward =
        (2 * tokens * dim + std::min(tokens, kFeedForwardTokens) * config_.ffn_dim) * element;
    const std::int64_t residual = tokens * dim * kFloat;
    Memory memory;
    memory.activations =
        std::max(attention, feed_forward) + ops::linear_workspace_bytes(ops::threads());
    memory.per_branch = residual + config_.num_layers * 2 * text_length * dim * element +
                        tokens * config_.attention_head_dim * kFloat;  // rotary table
    return memory;
}

}  // namespace zoetrope
