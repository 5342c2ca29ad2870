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
    const double layers =
        static_cast<double>(config_.num_layers) + static_cast<double>(config_.vace_layers.size());
    const double image = static_cast<double>(image_tokens());
    Flop flop;
    flop.self_attention = layers * 4 * tokens * tokens * dim;
    const double projections = 2 * dim * dim * (6 * tokens + 2 * (text + image));
    const double cross_attention = 4 * tokens * (text + image) * dim;
    const double feed_forward = 4 * tokens * dim * static_cast<double>(config_.ffn_dim);
    const double hints = 2 * dim * dim * tokens * static_cast<double>(config_.vace_layers.size());
    // Two products for a block that looks at faces; the few face tokens cost next to nothing.
    const double looks = 4 * dim * dim * tokens * static_cast<double>(face_adapters_.size());
    flop.total = flop.self_attention + layers * (projections + cross_attention + feed_forward) +
                 hints + looks;
    return flop;
}

std::int64_t Dit::image_tokens() const {
    constexpr std::int64_t kPictureTokens = 257;  // CLIP ViT-H/14 at 224 pixels: 16 x 16 and one
    if (config_.image_dim == 0) return 0;
    return std::max(config_.pos_embed_seq_len, kPictureTokens);
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
    const auto control_layers = static_cast<std::int64_t>(config_.vace_layers.size());
    memory.per_branch =
        residual +
        (config_.num_layers + control_layers) * 2 * (text_length + image_tokens()) * dim * element +
        tokens * config_.attention_head_dim * kFloat;  // rotary table
    if (config_.has_control()) {
        // The control branch's stream and what enters it; a hint and the stream's copy for it.
        memory.per_branch += 2 * residual;
        memory.activations += 2 * tokens * dim * element;
    }
    return memory;
}

}  // namespace zoetrope
