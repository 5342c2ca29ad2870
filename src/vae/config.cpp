#include "base/error.h"
#include "vae/vae.h"

#include <nlohmann/json.hpp>

#include <cmath>

namespace zoetrope {
namespace {

using nlohmann::json;

// Larger numbers are broken files, not models.
constexpr std::int64_t kLargestSize = 1 << 16;
constexpr std::size_t kMostLevels = 8;

// The defaults of AutoencoderKLWan: statistics of Wan 2.1's latents.
constexpr std::array kWanMean = {-0.7571F, -0.7089F, -0.9113F, 0.1075F,  -0.1745F, 0.9653F,
                                 -0.1517F, 1.5508F,  0.4134F,  -0.0715F, 0.5517F,  -0.3632F,
                                 -0.1922F, -0.9497F, 0.2503F,  -0.2921F};
constexpr std::array kWanStd = {2.8184F, 1.4541F, 2.3275F, 2.6558F, 1.2196F, 1.7708F,
                                2.6052F, 2.0743F, 3.2687F, 2.1526F, 2.8652F, 1.5579F,
                                1.6382F, 1.1253F, 2.8251F, 1.9160F};

// The value of a key, or null where it is absent.
json value_of(const json& config, const char* key) {
    const auto found = config.find(key);
    return found == config.end() ? json() : *found;
}

bool is_size(const json& value) {
    return value.is_number_integer() && value.get<double>() >= 1 &&
           value.get<double>() <= static_cast<double>(kLargestSize);
}

std::int64_t size_of(const json& config, const char* key, std::int64_t otherwise) {
    const json value = value_of(config, key);
    if (value.is_null()) return otherwise;
    ZT_CHECK(is_size(value), io, "vae/config.json: {} is {}, wanted a whole number from 1 to {}",
             key, value.dump(), kLargestSize);
    return value.get<std::int64_t>();
}

// A list of which every element passes; empty where the key is absent.
template <typename Element, typename Accepts>
std::vector<Element> list_of(const json& config, const char* key, const char* wanted,
                             Accepts accepts) {
    const json value = value_of(config, key);
    if (value.is_null()) return {};
    ZT_CHECK(value.is_array() && !value.empty() && std::all_of(value.begin(), value.end(), accepts),
             io, "vae/config.json: {} is {}, wanted a list of {}", key, value.dump(), wanted);
    return value.get<std::vector<Element>>();
}

std::vector<float> statistics_of(const json& config, const char* key,
                                 std::span<const float> otherwise, std::int64_t z_dim) {
    std::vector<float> values = list_of<float>(config, key, "numbers", [](const json& value) {
        return value.is_number() && std::isfinite(value.get<float>());
    });
    if (values.empty()) values.assign(otherwise.begin(), otherwise.end());
    ZT_CHECK(static_cast<std::int64_t>(values.size()) == z_dim, io,
             "vae/config.json: {} has {} numbers, wanted z_dim of them, {}", key, values.size(),
             z_dim);
    return values;
}

bool flag_of(const json& config, const char* key) {
    const json value = value_of(config, key);
    ZT_CHECK(value.is_null() || value.is_boolean(), io,
             "vae/config.json: {} is {}, wanted true or false", key, value.dump());
    return value == json(true);
}

void refuse_other_variants(const json& config, bool residual) {
    const std::string type = config.value("_class_name", json("AutoencoderKLWan")).dump();
    ZT_CHECK(type == "\"AutoencoderKLWan\"", unsupported,
             "the VAE is a {}: AutoencoderKLWan is what runs", type);
    const json scales = value_of(config, "attn_scales");
    ZT_CHECK(residual || scales.is_null() || scales == json::array(), unsupported,
             "this VAE has attention at the scales {} (attn_scales in its config.json): only the "
             "middle block's attention is built",
             scales.dump());
}

// Whether channels and pixels can be dealt out to the shortcuts past residual levels: whole pixels
// of a channel to a number of channels, or whole channels to one.
bool shortcut_fits(std::int64_t in, std::int64_t out, std::int64_t pixels) {
    if (in * pixels % out != 0) return false;
    const std::int64_t group = in * pixels / out;
    return group % pixels == 0 || pixels % group == 0;
}

void check_residual(const VaeConfig& config) {
    const std::vector<std::int64_t>& mult = config.dim_mult;
    for (std::size_t i = 0; i < mult.size(); ++i) {
        const bool last = i + 1 == mult.size();
        // Down to half the size after level i of the encoder, up to twice before that of the
        // decoder.
        const std::int64_t down = last ? 1 : config.temporal_downsample[i] ? 8 : 4;
        const std::int64_t up = i == 0 ? 1 : config.temporal_downsample[i - 1] ? 8 : 4;
        ZT_CHECK(shortcut_fits(i == 0 ? 1 : mult[i - 1], mult[i], down) &&
                     (i == 0 || shortcut_fits(mult[i], mult[last ? i : i + 1], up)),
                 io,
                 "vae/config.json: dim_mult is [{}], of which level {} cannot have the shortcut of "
                 "is_residual: wanted 1, 2, 4 or 8 times the channels of the level before or after",
                 fmt::join(mult, ", "), i);
    }
}

void check_patches(const VaeConfig& config) {
    const std::int64_t pixels = config.patch_size * config.patch_size;
    ZT_CHECK(config.in_channels % pixels == 0 && config.out_channels % pixels == 0, io,
             "vae/config.json: in_channels is {} and out_channels {}, wanted multiples of the {} "
             "pixels of a patch (patch_size {})",
             config.in_channels, config.out_channels, pixels, config.patch_size);
}

}  // namespace

VaeConfig VaeConfig::from_json(const json& given) {
    ZT_CHECK(given.is_object(), io, "vae/config.json is not a JSON object");
    VaeConfig config;
    config.is_residual = flag_of(given, "is_residual");
    refuse_other_variants(given, config.is_residual);
    config.base_dim = size_of(given, "base_dim", config.base_dim);
    config.decoder_base_dim = size_of(given, "decoder_base_dim", config.base_dim);
    config.z_dim = size_of(given, "z_dim", config.z_dim);
    config.num_res_blocks = size_of(given, "num_res_blocks", config.num_res_blocks);
    config.in_channels = size_of(given, "in_channels", config.in_channels);
    config.out_channels = size_of(given, "out_channels", config.out_channels);
    config.patch_size = size_of(given, "patch_size", config.patch_size);
    check_patches(config);
    if (auto list = list_of<std::int64_t>(given, "dim_mult", "whole numbers", is_size);
        !list.empty()) {
        config.dim_mult = std::move(list);
    }
    ZT_CHECK(config.dim_mult.size() <= kMostLevels, io,
             "vae/config.json: dim_mult has {} levels, wanted at most {}", config.dim_mult.size(),
             kMostLevels);
    if (given.contains("temperal_downsample")) {  // spelt so in the files
        const json& list = given["temperal_downsample"];
        const bool fits =
            list.is_array() &&
            std::all_of(list.begin(), list.end(), [](const json& v) { return v.is_boolean(); });
        ZT_CHECK(fits, io,
                 "vae/config.json: temperal_downsample is {}, wanted a list of true and false",
                 list.dump());
        config.temporal_downsample = list.get<std::vector<bool>>();
    }
    ZT_CHECK(config.temporal_downsample.size() + 1 == config.dim_mult.size(), io,
             "vae/config.json: temperal_downsample has {} values, wanted one fewer than dim_mult, "
             "{}",
             config.temporal_downsample.size(), config.dim_mult.size() - 1);
    if (config.is_residual) check_residual(config);
    config.latents_mean = statistics_of(given, "latents_mean", kWanMean, config.z_dim);
    config.latents_std = statistics_of(given, "latents_std", kWanStd, config.z_dim);
    ZT_CHECK(std::all_of(config.latents_std.begin(), config.latents_std.end(),
                         [](float value) { return value > 0; }),
             io, "vae/config.json: latents_std has values that are not above 0");
    config.scale_factor_spatial = config.patch_size << config.temporal_downsample.size();
    config.scale_factor_temporal = std::int64_t{1}
                                   << std::count(config.temporal_downsample.begin(),
                                                 config.temporal_downsample.end(), true);
    return config;
}

}  // namespace zoetrope
