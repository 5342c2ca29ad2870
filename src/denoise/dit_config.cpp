#include "base/error.h"
#include "denoise/dit.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdlib>
#include <functional>

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

// Positions of the control branch's blocks: rising, the first beside block 0, all beside a block.
std::vector<std::int64_t> read_vace_layers(const Reader& reader, std::int64_t num_layers) {
    const nlohmann::json* value = reader.find("vace_layers");
    if (value == nullptr) {
        std::vector<std::int64_t> layers;  // the default of Diffusers' class: every fifth of 40
        for (std::int64_t i = 0; i < 40; i += 5) layers.push_back(i);
        reader.check(layers.back() < num_layers, "vace_layers", nullptr, "a list");
        return layers;
    }
    const bool numbers = value->is_array() && !value->empty() &&
                         std::all_of(value->begin(), value->end(), [&](const nlohmann::json& n) {
                             return n.is_number_integer() && n.get<double>() >= 0 &&
                                    n.get<double>() < static_cast<double>(num_layers);
                         });
    const std::string wanted =
        fmt::format("rising block numbers below {} that begin with 0", num_layers);
    reader.check(numbers, "vace_layers", *value, wanted);
    auto layers = value->get<std::vector<std::int64_t>>();
    const bool rising =
        std::adjacent_find(layers.begin(), layers.end(), std::greater_equal<>()) == layers.end();
    reader.check(rising && layers.front() == 0, "vace_layers", *value, wanted);
    return layers;
}

constexpr std::int64_t kClipDim = 1280;  // of CLIP ViT-H/14, the default of Animate's class

FaceConfig read_face(const Reader& reader) {
    FaceConfig face;
    if (const auto* sizes = reader.find("motion_encoder_channel_sizes")) {
        const bool fits = sizes->is_object() &&
                          std::all_of(sizes->begin(), sizes->end(), [](const nlohmann::json& n) {
                              return n.is_number_integer() && n.get<double>() >= 1 &&
                                     n.get<double>() <= static_cast<double>(kLargestSize);
                          });
        reader.check(fits, "motion_encoder_channel_sizes", *sizes, "channels by pixels");
        face.channels.clear();
        for (const auto& [pixels, channels] : sizes->items())
            face.channels[std::strtoll(pixels.c_str(), nullptr, 10)] = channels;
    }
    face.size = reader.size("motion_encoder_size", face.size);
    bool known = face.size >= 8 && (face.size & (face.size - 1)) == 0;
    for (std::int64_t size = face.size; known && size >= 4; size /= 2)
        known = face.channels.contains(size);
    reader.check(known, "motion_encoder_size", face.size,
                 "a power of two from 8 on with channels for it and every half of it down to 4");
    face.style_dim = reader.size("motion_style_dim", face.style_dim);
    face.motion_dim = reader.size("motion_dim", face.motion_dim);
    face.vector_dim = reader.size("motion_encoder_dim", face.vector_dim);
    face.hidden_dim = reader.size("face_encoder_hidden_dim", face.hidden_dim);
    face.heads = reader.size("face_encoder_num_heads", face.heads);
    face.batch_size = reader.size("motion_encoder_batch_size", face.batch_size);
    return face;
}

}  // namespace

DitConfig DitConfig::from_json(const nlohmann::json& json, std::string_view component) {
    ZT_CHECK(json.is_object(), io, "{}/config.json is not a JSON object", component);
    const Reader reader{json, component};
    const std::string type = reader.text("_class_name", "WanTransformer3DModel");
    constexpr std::string_view kPlain = "WanTransformer3DModel";
    constexpr std::string_view kControl = "WanVACETransformer3DModel";
    constexpr std::string_view kAnimate = "WanAnimateTransformer3DModel";
    ZT_CHECK(type == kPlain || type == kControl || type == kAnimate, unsupported,
             "the transformer is a {}: {}, {} and {} are what runs", type, kPlain, kControl,
             kAnimate);

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
    config.image_dim = reader.size("image_dim", type == kAnimate ? kClipDim : 0);
    config.pos_embed_seq_len = reader.size("pos_embed_seq_len", 0);
    const std::int64_t image_width = reader.size("added_kv_proj_dim", 0);
    const bool images = config.image_dim > 0;
    ZT_CHECK(images == (image_width > 0) && (!images || image_width == config.dim()), io,
             "{}/config.json: image_dim is {} and added_kv_proj_dim is {}: wanted are both, the "
             "latter {} like the model's channels, or neither",
             component, config.image_dim, image_width, config.dim());
    if (type == kAnimate) {
        config.pose_channels = reader.size("latent_channels", config.pose_channels);
        config.face_every = reader.size("inject_face_latents_blocks", 5);
        ZT_CHECK(config.num_layers % config.face_every == 0, io,
                 "{}/config.json: num_layers is {} and inject_face_latents_blocks is {}: wanted is "
                 "a divisor",
                 component, config.num_layers, config.face_every);
        config.face = read_face(reader);
    }
    if (type == kControl) {
        config.vace_layers = read_vace_layers(reader, config.num_layers);
        config.vace_in_channels = reader.size("vace_in_channels", config.vace_in_channels);
    }
    ZT_CHECK(config.attention_head_dim % 2 == 0, io,
             "{}/config.json: attention_head_dim is {}, wanted an even number", component,
             config.attention_head_dim);
    return config;
}

}  // namespace zoetrope
