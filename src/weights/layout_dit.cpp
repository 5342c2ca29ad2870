// The transformer's names: WanModel, VaceWanModel and WanAnimateModel of the Wan repositories (and
// ref_conv of the Fun models) beside Diffusers' classes.
#include "weights/layout_rules.h"

#include <algorithm>

namespace zoetrope {
namespace {

// Every head of a released model has 128 channels.
constexpr std::int64_t kHeadChannels = 128;

constexpr NameRule kOriginal[] = {
    {"patch_embedding.@", "patch_embedding.@"},
    {"text_embedding.0.@", "condition_embedder.text_embedder.linear_1.@"},
    {"text_embedding.2.@", "condition_embedder.text_embedder.linear_2.@"},
    {"time_embedding.0.@", "condition_embedder.time_embedder.linear_1.@"},
    {"time_embedding.2.@", "condition_embedder.time_embedder.linear_2.@"},
    {"time_projection.1.@", "condition_embedder.time_proj.@"},
    {"img_emb.proj.0.@", "condition_embedder.image_embedder.norm1.@"},
    {"img_emb.proj.1.@", "condition_embedder.image_embedder.ff.net.0.proj.@"},
    {"img_emb.proj.3.@", "condition_embedder.image_embedder.ff.net.2.@"},
    {"img_emb.proj.4.@", "condition_embedder.image_embedder.norm2.@"},
    {"img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed"},
    {"head.head.@", "proj_out.@"},
    {"head.modulation", "scale_shift_table"},

    // Of "blocks" and "vace_blocks". Both models number the norms in the order they were made in,
    // not the same one: the norm before cross-attention, the only one with weights, is the
    // original's third and Diffusers' second.
    {"*.#.self_attn.q.@", "*.#.attn1.to_q.@"},
    {"*.#.self_attn.k.@", "*.#.attn1.to_k.@"},
    {"*.#.self_attn.v.@", "*.#.attn1.to_v.@"},
    {"*.#.self_attn.o.@", "*.#.attn1.to_out.0.@"},
    {"*.#.self_attn.norm_q.@", "*.#.attn1.norm_q.@"},
    {"*.#.self_attn.norm_k.@", "*.#.attn1.norm_k.@"},
    {"*.#.cross_attn.q.@", "*.#.attn2.to_q.@"},
    {"*.#.cross_attn.k.@", "*.#.attn2.to_k.@"},
    {"*.#.cross_attn.v.@", "*.#.attn2.to_v.@"},
    {"*.#.cross_attn.o.@", "*.#.attn2.to_out.0.@"},
    {"*.#.cross_attn.norm_q.@", "*.#.attn2.norm_q.@"},
    {"*.#.cross_attn.norm_k.@", "*.#.attn2.norm_k.@"},
    {"*.#.cross_attn.k_img.@", "*.#.attn2.add_k_proj.@"},
    {"*.#.cross_attn.v_img.@", "*.#.attn2.add_v_proj.@"},
    {"*.#.cross_attn.norm_k_img.@", "*.#.attn2.norm_added_k.@"},
    {"*.#.norm3.@", "*.#.norm2.@"},
    {"*.#.ffn.0.@", "*.#.ffn.net.0.proj.@"},
    {"*.#.ffn.2.@", "*.#.ffn.net.2.@"},
    {"*.#.modulation", "*.#.scale_shift_table"},

    {"vace_patch_embedding.@", "vace_patch_embedding.@"},
    {"vace_blocks.#.before_proj.@", "vace_blocks.#.proj_in.@"},
    {"vace_blocks.#.after_proj.@", "vace_blocks.#.proj_out.@"},

    {"ref_conv.@", "ref_conv.@"},

    {"pose_patch_embedding.@", "pose_patch_embedding.@"},
    {"motion_encoder.dec.direction.weight", "motion_encoder.motion_synthesis_weight"},
    {"motion_encoder.enc.fc.#.@", "motion_encoder.motion_network.#.@"},
    {"motion_encoder.enc.net_app.convs.0.0.weight", "motion_encoder.conv_in.weight"},
    {"motion_encoder.enc.net_app.convs.0.1.bias", "motion_encoder.conv_in.act_fn.bias", 1},
    // convs: the first, the residual blocks, the last.
    {"motion_encoder.enc.net_app.convs.%.weight", "motion_encoder.conv_out.weight"},
    {"motion_encoder.enc.net_app.convs.+.conv1.0.weight",
     "motion_encoder.res_blocks.#.conv1.weight"},
    {"motion_encoder.enc.net_app.convs.+.conv1.1.bias",
     "motion_encoder.res_blocks.#.conv1.act_fn.bias", 1},
    {"motion_encoder.enc.net_app.convs.+.conv2.1.weight",
     "motion_encoder.res_blocks.#.conv2.weight"},
    {"motion_encoder.enc.net_app.convs.+.conv2.2.bias",
     "motion_encoder.res_blocks.#.conv2.act_fn.bias", 1},
    {"motion_encoder.enc.net_app.convs.+.skip.1.weight",
     "motion_encoder.res_blocks.#.conv_skip.weight"},
    // The blur's kernel is the same in every model: (1, 3, 3, 1) squared.
    {"motion_encoder.enc.net_app.convs.+.conv2.0.kernel", ""},
    {"motion_encoder.enc.net_app.convs.+.skip.0.kernel", ""},

    {"face_encoder.conv1_local.conv.@", "face_encoder.conv1_local.@"},
    {"face_encoder.conv2.conv.@", "face_encoder.conv2.@"},
    {"face_encoder.conv3.conv.@", "face_encoder.conv3.@"},
    {"face_encoder.out_proj.@", "face_encoder.out_proj.@"},
    {"face_encoder.padding_tokens", "face_encoder.padding_tokens"},
    {"face_adapter.fuser_blocks.#.linear1_q.@", "face_adapter.#.to_q.@"},
    {"face_adapter.fuser_blocks.#.linear1_kv.@", "face_adapter.#.to_k.@", 0, 0, 2},
    {"face_adapter.fuser_blocks.#.linear1_kv.@", "face_adapter.#.to_v.@", 0, 1, 2},
    {"face_adapter.fuser_blocks.#.linear2.@", "face_adapter.#.to_out.@"},
    {"face_adapter.fuser_blocks.#.q_norm.@", "face_adapter.#.norm_q.@"},
    {"face_adapter.fuser_blocks.#.k_norm.@", "face_adapter.#.norm_k.@"},
};

constexpr NameRule kDiffusers[] = {
    // Early conversions of image-to-video models have it; nothing uses it.
    {"*.#.attn2.norm_added_q.@", ""},
};

// What Diffusers' Animate class takes where its config names no channels: by side of the picture,
// halved from block to block.
std::int64_t released_motion_channels(std::int64_t side) {
    return side >= 64 ? std::max<std::int64_t>(16384 / side, 1) : 512;
}

std::int64_t product(const std::vector<std::int64_t>& sizes, std::size_t first) {
    std::int64_t result = 1;
    for (std::size_t i = first; i < sizes.size(); ++i) result *= sizes[i];
    return result;
}

std::vector<std::int64_t> vace_layers(std::int64_t layers, std::int64_t vace_blocks,
                                      const nlohmann::json& original, const Shapes& shapes) {
    if (original.is_object() && original.contains("vace_layers")) {
        const nlohmann::json& given = original["vace_layers"];
        const bool numbers =
            given.is_array() && std::all_of(given.begin(), given.end(), [](const auto& layer) {
                return layer.is_number_integer();
            });
        if (numbers) return given.get<std::vector<std::int64_t>>();
    }
    if (vace_blocks < 1 || layers % vace_blocks != 0) {
        shapes.refuse(
            fmt::format("{} vace_blocks do not divide {} blocks evenly, so a config.json "
                        "must say where they belong (vace_layers)",
                        vace_blocks, layers));
    }
    std::vector<std::int64_t> result;
    for (std::int64_t i = 0; i < vace_blocks; ++i) result.push_back(i * (layers / vace_blocks));
    return result;
}

void add_animate(nlohmann::json& config, const Shapes& shapes, std::int64_t layers) {
    config["_class_name"] = "WanAnimateTransformer3DModel";
    config["latent_channels"] = shapes.at("pose_patch_embedding.weight", 5)[1];
    const auto& synthesis = shapes.at("motion_encoder.motion_synthesis_weight", 2);
    const std::int64_t blocks = shapes.count("motion_encoder.res_blocks.", ".conv1.weight");
    const std::int64_t side = std::int64_t{4} << std::min<std::int64_t>(blocks, 20);
    config["motion_encoder_size"] = side;
    config["motion_style_dim"] = shapes.at("motion_encoder.conv_out.weight", 4)[0];
    config["motion_dim"] = synthesis[1];
    config["motion_encoder_dim"] = synthesis[0];
    nlohmann::json channels = {
        {std::to_string(side), shapes.at("motion_encoder.conv_in.weight", 4)[0]}};
    for (std::int64_t i = 0; i < blocks; ++i) {
        const std::string name = fmt::format("motion_encoder.res_blocks.{}.conv2.weight", i);
        channels[std::to_string(side >> (i + 1))] = shapes.at(name, 4)[0];
    }
    bool released = true;
    for (const auto& [at, count] : channels.items())
        released = released && count == released_motion_channels(std::stoll(at));
    config["motion_encoder_channel_sizes"] = released ? nlohmann::json() : channels;
    const std::int64_t hidden = shapes.at("face_encoder.conv2.weight", 3)[0];
    config["face_encoder_hidden_dim"] = hidden;
    config["face_encoder_num_heads"] = shapes.at("face_encoder.conv1_local.weight", 3)[0] / hidden;
    const std::int64_t adapters = shapes.count("face_adapter.", ".to_q.weight");
    if (adapters < 1) shapes.refuse("it has a face_encoder and no face_adapter");
    config["inject_face_latents_blocks"] = layers / adapters;
    config["motion_encoder_batch_size"] = 8;
}

}  // namespace

std::span<const NameRule> dit_rules(Layout layout) {
    if (layout == Layout::original) return kOriginal;
    return kDiffusers;
}

nlohmann::json infer_dit_config(const Shapes& shapes, const nlohmann::json& original) {
    const auto& patch = shapes.at("patch_embedding.weight", 5);
    const std::int64_t dim = patch[0];
    const std::int64_t layers = shapes.count("blocks.", ".attn1.to_q.weight");
    if (layers == 0) shapes.refuse("it has no tensor blocks.0.attn1.to_q.weight");
    // A config.json of another model may lie in the same folder.
    const auto own = [&](const char* key) {
        return original.is_object() && original.value("dim", nlohmann::json()) == dim &&
               original.contains(key) && original[key].is_number();
    };
    const bool told = own("num_heads") && original["num_heads"].is_number_integer();
    const std::int64_t heads =
        told ? original["num_heads"].get<std::int64_t>() : dim / kHeadChannels;
    if (heads < 1 || dim % heads != 0 || (!told && dim % kHeadChannels != 0)) {
        shapes.refuse(
            fmt::format("its {} channels are not divided by {}, so a config.json beside "
                        "it must say how many heads there are (num_heads)",
                        dim, told ? heads : kHeadChannels));
    }
    const auto optional_size = [&](const std::string& name, std::size_t rank, std::size_t at) {
        return shapes.has(name) ? nlohmann::json(shapes.at(name, rank)[at]) : nlohmann::json();
    };
    const std::string image = "condition_embedder.image_embedder.";
    nlohmann::json config = {
        {"_class_name", "WanTransformer3DModel"},
        {"patch_size", {patch[2], patch[3], patch[4]}},
        {"num_attention_heads", heads},
        {"attention_head_dim", dim / heads},
        {"in_channels", patch[1]},
        {"out_channels", shapes.at("proj_out.weight", 2)[0] / product(patch, 2)},
        {"text_dim", shapes.at("condition_embedder.text_embedder.linear_1.weight", 2)[1]},
        {"freq_dim", shapes.at("condition_embedder.time_embedder.linear_1.weight", 2)[1]},
        {"ffn_dim", shapes.at("blocks.0.ffn.net.0.proj.weight", 2)[0]},
        {"num_layers", layers},
        {"cross_attn_norm", shapes.has("blocks.0.norm2.weight")},
        {"qk_norm", shapes.has("blocks.0.attn1.norm_q.weight")
                        ? nlohmann::json("rms_norm_across_heads")
                        : nlohmann::json()},
        {"eps", own("eps") ? original["eps"].get<double>() : 1e-6},
        {"image_dim", optional_size(image + "norm1.weight", 1, 0)},
        {"added_kv_proj_dim", optional_size("blocks.0.attn2.add_k_proj.weight", 2, 1)},
        {"rope_max_seq_len", 1024},
        {"pos_embed_seq_len", optional_size(image + "pos_embed", 3, 1)}};
    if (shapes.has("vace_patch_embedding.weight")) {
        config["_class_name"] = "WanVACETransformer3DModel";
        config["vace_in_channels"] = shapes.at("vace_patch_embedding.weight", 5)[1];
        config["vace_layers"] = vace_layers(
            layers, shapes.count("vace_blocks.", ".attn1.to_q.weight"), original, shapes);
    }
    if (shapes.has("face_encoder.out_proj.weight")) add_animate(config, shapes, layers);
    return config;
}

}  // namespace zoetrope
