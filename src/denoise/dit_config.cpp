#include "base/error.h"
#include "denoise/dit.h"

#include <nlohmann/json.hpp>

namespace zoetrope {
namespace {

// Sizes beyond this are broken files, not models: 2^20 channels, layers or positions.
constexpr std::int64_t kLargestSize = 1 << 20;

// Reads config.json of one component, naming it and the key where a value does not fit.
struct Reader {
    const nlohmann::json& config;
    std::string_view component;

    const nlohmann::json* find(const char* key) const {
        const auto found = config.find(key);
        return found == config.end() || found->is_null() ? nullptr : &*found;
    }
    void check(bool fits, const char* key, const nlohmann::json& value,
               std::string_view wanted) const {
        ZT_CHECK(fits, io, "{}/config.json: {} is {}, wanted {}", component, key, value.dump(),
                 wanted);
    }
    std::int64_t size(const char* key, std::int64_t otherwise) const {
        const nlohmann::json* value = find(key);
        if (value == nullptr) return otherwise;
        const bool fits = value->is_number_integer() && value->get<double>() >= 1 &&
                          value->get<double>() <= static_cast<double>(kLargestSize);
        check(fits, key, *value, fmt::format("a whole number from 1 to {}", kLargestSize));
        return value->get<std::int64_t>();
    }
    bool flag(const char* key, bool otherwise) const {
        const nlohmann::json* value = find(key);
        if (value == nullptr) return otherwise;
        check(value->is_boolean(), key, *value, "true or false");
        return value->get<bool>();
    }
    double positive(const char* key, double otherwise) const {
        const nlohmann::json* value = find(key);
        if (value == nullptr) return otherwise;
        check(value->is_number() && value->get<double>() > 0 && value->get<double>() < 1, key,
              *value, "a number between 0 and 1");
        return value->get<double>();
    }
    std::string text(const char* key, const std::string& otherwise) const {
        const nlohmann::json* value = find(key);
        if (value == nullptr) return otherwise;
        check(value->is_string(), key, *value, "a string");
        return value->get<std::string>();
    }
};

void refuse_if_set(const nlohmann::json& config, const char* key, const char* what) {
    const auto found = config.find(key);
    ZT_CHECK(found == config.end() || found->is_null(), unsupported,
             "this transformer takes {} ({} is {} in its config.json), which is not built yet: "
             "text-to-video "
             "models run",
             what, key, found->dump());
}

}  // namespace

DitConfig DitConfig::from_json(const nlohmann::json& json, std::string_view component) {
    ZT_CHECK(json.is_object(), io, "{}/config.json is not a JSON object", component);
    const Reader reader{json, component};
    const std::string type = reader.text("_class_name", "WanTransformer3DModel");
    ZT_CHECK(type == "WanTransformer3DModel", unsupported,
             "the transformer is a {}: WanTransformer3DModel is what runs", type);
    refuse_if_set(json, "image_dim", "image embeddings");
    refuse_if_set(json, "added_kv_proj_dim", "image keys and values");
    refuse_if_set(json, "pos_embed_seq_len", "positions of image embeddings");

    DitConfig config;
    if (const auto* patch = reader.find("patch_size")) {
        const bool fits =
            patch->is_array() && patch->size() == 3 &&
            std::all_of(patch->begin(), patch->end(), [](const nlohmann::json& n) {
                return n.is_number_integer() && n.get<double>() >= 1 && n.get<double>() <= 64;
            });
        reader.check(fits, "patch_size", *patch, "three whole numbers from 1 to 64");
        config.patch_size = patch->get<std::array<std::int64_t, 3>>();
    }
    config.num_attention_heads = reader.size("num_attention_heads", config.num_attention_heads);
    config.attention_head_dim = reader.size("attention_head_dim", config.attention_head_dim);
    config.in_channels = reader.size("in_channels", config.in_channels);
    config.out_channels = reader.size("out_channels", config.in_channels);
    config.text_dim = reader.size("text_dim", config.text_dim);
    config.freq_dim = reader.size("freq_dim", config.freq_dim);
    config.ffn_dim = reader.size("ffn_dim", config.ffn_dim);
    config.num_layers = reader.size("num_layers", config.num_layers);
    config.rope_max_seq_len = reader.size("rope_max_seq_len", config.rope_max_seq_len);
    config.cross_attn_norm = reader.flag("cross_attn_norm", config.cross_attn_norm);
    config.eps = reader.positive("eps", config.eps);
    ZT_CHECK(config.attention_head_dim % 2 == 0, io,
             "{}/config.json: attention_head_dim is {}, wanted an even number", component,
             config.attention_head_dim);
    return config;
}

}  // namespace zoetrope
