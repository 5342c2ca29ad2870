// The image encoder's names: the vision half of the open-clip model with XLM-RoBERTa that the Wan
// repositories have, and Transformers' CLIP with and without "vision_model." before its names.
#include "weights/layout_rules.h"

#include <cmath>

namespace zoetrope {
namespace {

// Channels of a head of ViT-H/14: 1280 / 16.
constexpr std::int64_t kHeadChannels = 80;

constexpr NameRule kOriginal[] = {
    {"patch_embedding.weight", "vision_model.embeddings.patch_embedding.weight"},
    {"cls_embedding", "vision_model.embeddings.class_embedding", 1},
    {"pos_embedding", "vision_model.embeddings.position_embedding.weight", 2},
    {"pre_norm.@", "vision_model.pre_layrnorm.@"},  // spelt so by Transformers
    {"post_norm.@", "vision_model.post_layernorm.@"},
    {"transformer.#.norm1.@", "vision_model.encoder.layers.#.layer_norm1.@"},
    {"transformer.#.attn.to_qkv.@", "vision_model.encoder.layers.#.self_attn.q_proj.@", 0, 0, 3},
    {"transformer.#.attn.to_qkv.@", "vision_model.encoder.layers.#.self_attn.k_proj.@", 0, 1, 3},
    {"transformer.#.attn.to_qkv.@", "vision_model.encoder.layers.#.self_attn.v_proj.@", 0, 2, 3},
    {"transformer.#.attn.proj.@", "vision_model.encoder.layers.#.self_attn.out_proj.@"},
    {"transformer.#.norm2.@", "vision_model.encoder.layers.#.layer_norm2.@"},
    {"transformer.#.mlp.0.@", "vision_model.encoder.layers.#.mlp.fc1.@"},
    {"transformer.#.mlp.2.@", "vision_model.encoder.layers.#.mlp.fc2.@"},
    {"head", ""},  // the projection into the space shared with text
};

constexpr NameRule kTransformers[] = {
    {"embeddings.position_ids", ""},
    {"visual_projection.weight", ""},
    {">", "vision_model.>"},
};

}  // namespace

std::span<const NameRule> clip_rules(Layout layout) {
    return layout == Layout::original ? std::span<const NameRule>(kOriginal)
                                      : std::span<const NameRule>(kTransformers);
}

nlohmann::json infer_clip_config(const Shapes& shapes) {
    const auto& patch = shapes.at("vision_model.embeddings.patch_embedding.weight", 4);
    const std::int64_t hidden = patch[0];
    if (hidden % kHeadChannels != 0) {
        shapes.refuse(
            fmt::format("its {} channels are no multiple of ViT-H's {} per head, so a "
                        "config.json beside it must say how many heads there are",
                        hidden, kHeadChannels));
    }
    const std::int64_t positions =
        shapes.at("vision_model.embeddings.position_embedding.weight", 2)[0];
    const auto side = std::llround(std::sqrt(static_cast<double>(positions - 1)));
    return {{"architectures", {"CLIPVisionModel"}},
            {"model_type", "clip_vision_model"},
            {"hidden_size", hidden},
            {"intermediate_size", shapes.at("vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0]},
            {"num_hidden_layers",
             shapes.count("vision_model.encoder.layers.", ".self_attn.q_proj.weight")},
            {"num_attention_heads", hidden / kHeadChannels},
            {"num_channels", patch[1]},
            {"patch_size", patch[2]},
            {"image_size", side * patch[2]},
            {"projection_dim", 1024},
            {"hidden_act", "gelu"},
            {"layer_norm_eps", 1e-5}};
}

}  // namespace zoetrope
