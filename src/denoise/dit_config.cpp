#include "base/error.h"
#include "denoise/dit.h"

#include <nlohmann/json.hpp>

namespace zoetrope {
namespace {

// Sizes beyond this are broken files, not models: 2^20 channels, layers or positions.
constexpr std::int64_t kLargestSize = 1 << 20;

std::int64_t size_of(const nlohmann::json& config, const char* key, std::int64_t otherwise) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null()) return otherwise;
    const bool fits = found->is_number_integer() && found->get<std::int64_t>() > 0 &&
                      found->get<std::int64_t>() <= kLargestSize;
    ZT_CHECK(fits, io, "transformer/config.json: {} is {}, wanted a whole number from 1 to {}", key,
             found->dump(), kLargestSize);
    return found->get<std::int64_t>();
}

void refuse_if_set(const nlohmann::json& config, const char* key, const char* what) {
    const auto found = config.find(key);
    ZT_CHECK(found == config.end() || found->is_null(), unsupported,
             "this transformer takes {} ({} is {} in its config.json), which is not built yet: "
             "text-to-video "
             "models run",
             what, key, found->dump());
}

}  // namespace

DitConfig DitConfig::from_json(const nlohmann::json& json) {
    ZT_CHECK(json.is_object(), io, "transformer/config.json is not a JSON object");
    const std::string type = json.value("_class_name", "WanTransformer3DModel");
    ZT_CHECK(type == "WanTransformer3DModel", unsupported,
             "the transformer is a {}: WanTransformer3DModel is what runs", type);
    refuse_if_set(json, "image_dim", "image embeddings");
    refuse_if_set(json, "added_kv_proj_dim", "image keys and values");
    refuse_if_set(json, "pos_embed_seq_len", "positions of image embeddings");

    DitConfig config;
    if (const auto patch = json.find("patch_size"); patch != json.end()) {
        const bool fits = patch->is_array() && patch->size() == 3 &&
                          std::all_of(patch->begin(), patch->end(), [](const nlohmann::json& n) {
                              return n.is_number_integer() && n.get<std::int64_t>() >= 1 &&
                                     n.get<std::int64_t>() <= 64;
                          });
        ZT_CHECK(fits, io, "transformer/config.json: patch_size is {}, wanted three whole numbers",
                 patch->dump());
        config.patch_size = patch->get<std::array<std::int64_t, 3>>();
    }
    config.num_attention_heads = size_of(json, "num_attention_heads", config.num_attention_heads);
    config.attention_head_dim = size_of(json, "attention_head_dim", config.attention_head_dim);
    config.in_channels = size_of(json, "in_channels", config.in_channels);
    config.out_channels = size_of(json, "out_channels", config.in_channels);
    config.text_dim = size_of(json, "text_dim", config.text_dim);
    config.freq_dim = size_of(json, "freq_dim", config.freq_dim);
    config.ffn_dim = size_of(json, "ffn_dim", config.ffn_dim);
    config.num_layers = size_of(json, "num_layers", config.num_layers);
    config.rope_max_seq_len = size_of(json, "rope_max_seq_len", config.rope_max_seq_len);
    config.cross_attn_norm = json.value("cross_attn_norm", config.cross_attn_norm);
    config.eps = json.value("eps", config.eps);
    ZT_CHECK(config.attention_head_dim % 2 == 0, io,
             "transformer/config.json: attention_head_dim is {}, wanted an even number",
             config.attention_head_dim);
    return config;
}

}  // namespace zoetrope
