// The text encoder's names: T5Encoder of the Wan repositories (shared_pos off: a table of positions
// in each block), and llama.cpp's T5 encoders.
#include "weights/layout_rules.h"

namespace zoetrope {
namespace {

constexpr NameRule kOriginal[] = {
    {"token_embedding.weight", "shared.weight"},
    {"norm.weight", "encoder.final_layer_norm.weight"},
    {"blocks.#.norm1.weight", "encoder.block.#.layer.0.layer_norm.weight"},
    {"blocks.#.attn.q.weight", "encoder.block.#.layer.0.SelfAttention.q.weight"},
    {"blocks.#.attn.k.weight", "encoder.block.#.layer.0.SelfAttention.k.weight"},
    {"blocks.#.attn.v.weight", "encoder.block.#.layer.0.SelfAttention.v.weight"},
    {"blocks.#.attn.o.weight", "encoder.block.#.layer.0.SelfAttention.o.weight"},
    {"blocks.#.pos_embedding.embedding.weight",
     "encoder.block.#.layer.0.SelfAttention.relative_attention_bias.weight"},
    {"blocks.#.norm2.weight", "encoder.block.#.layer.1.layer_norm.weight"},
    {"blocks.#.ffn.gate.0.weight", "encoder.block.#.layer.1.DenseReluDense.wi_0.weight"},
    {"blocks.#.ffn.fc1.weight", "encoder.block.#.layer.1.DenseReluDense.wi_1.weight"},
    {"blocks.#.ffn.fc2.weight", "encoder.block.#.layer.1.DenseReluDense.wo.weight"},
};

constexpr NameRule kLlamaCpp[] = {
    {"token_embd.weight", "shared.weight"},
    {"enc.output_norm.weight", "encoder.final_layer_norm.weight"},
    {"enc.blk.#.attn_norm.weight", "encoder.block.#.layer.0.layer_norm.weight"},
    {"enc.blk.#.attn_q.weight", "encoder.block.#.layer.0.SelfAttention.q.weight"},
    {"enc.blk.#.attn_k.weight", "encoder.block.#.layer.0.SelfAttention.k.weight"},
    {"enc.blk.#.attn_v.weight", "encoder.block.#.layer.0.SelfAttention.v.weight"},
    {"enc.blk.#.attn_o.weight", "encoder.block.#.layer.0.SelfAttention.o.weight"},
    {"enc.blk.#.attn_rel_b.weight",
     "encoder.block.#.layer.0.SelfAttention.relative_attention_bias.weight"},
    {"enc.blk.#.ffn_norm.weight", "encoder.block.#.layer.1.layer_norm.weight"},
    {"enc.blk.#.ffn_gate.weight", "encoder.block.#.layer.1.DenseReluDense.wi_0.weight"},
    {"enc.blk.#.ffn_up.weight", "encoder.block.#.layer.1.DenseReluDense.wi_1.weight"},
    {"enc.blk.#.ffn_down.weight", "encoder.block.#.layer.1.DenseReluDense.wo.weight"},
    {"dec.>", ""},
    {"output.weight", ""},
};

constexpr NameRule kTransformers[] = {
    // A whole UMT5 has a decoder and a head too.
    {"decoder.>", ""},
    {"lm_head.weight", ""},
    // ComfyUI's files carry the tokenizer (spiece.model) as bytes.
    {"spiece_model", ""},
    {"logit_scale", ""},
};

}  // namespace

std::span<const NameRule> umt5_rules(Layout layout) {
    switch (layout) {
        case Layout::diffusers: return kTransformers;
        case Layout::original: return kOriginal;
        case Layout::llama_cpp: return kLlamaCpp;
    }
    return {};
}

nlohmann::json infer_umt5_config(const Shapes& shapes) {
    const std::string block = "encoder.block.0.layer.";
    const bool shared = shapes.has("shared.weight");
    const auto& table = shapes.at(shared ? "shared.weight" : "encoder.embed_tokens.weight", 2);
    const auto& bias = shapes.at(block + "0.SelfAttention.relative_attention_bias.weight", 2);
    const std::int64_t heads = bias[1];
    const std::int64_t inner = shapes.at(block + "0.SelfAttention.q.weight", 2)[0];
    if (heads < 1 || inner % heads != 0)
        shapes.refuse(
            fmt::format("{} channels of attention are no multiple of {} heads", inner, heads));
    return {{"architectures", {"UMT5EncoderModel"}},
            {"model_type", "umt5"},
            {"vocab_size", table[0]},
            {"d_model", table[1]},
            {"d_kv", inner / heads},
            {"d_ff", shapes.at(block + "1.DenseReluDense.wi_0.weight", 2)[0]},
            {"num_layers", shapes.count("encoder.block.", ".layer.0.SelfAttention.q.weight")},
            {"num_heads", heads},
            {"relative_attention_num_buckets", bias[0]},
            {"relative_attention_max_distance", 128},
            {"layer_norm_epsilon", 1e-6},
            {"feed_forward_proj", "gated-gelu"},
            {"dense_act_fn", "gelu_new"},
            {"is_gated_act", true}};
}

}  // namespace zoetrope
