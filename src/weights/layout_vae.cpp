// The VAE's names: the original Wan2.1_VAE.pth and Wan2.2_VAE.pth, which ComfyUI's files have too.
#include "weights/layout_rules.h"

#include <array>
#include <charconv>
#include <cmath>

namespace zoetrope {
namespace {

// One residual block, wherever it stands.
constexpr NameRule kBlock[] = {
    {"residual.0.gamma", "norm1.gamma"}, {"residual.2.@", "conv1.@"},
    {"residual.3.gamma", "norm2.gamma"}, {"residual.6.@", "conv2.@"},
    {"shortcut.@", "conv_shortcut.@"},
};

constexpr NameRule kPlain[] = {
    {"conv1.@", "quant_conv.@"},
    {"conv2.@", "post_quant_conv.@"},
    {"*.conv1.@", "*.conv_in.@"},
    {"*.head.0.gamma", "*.norm_out.gamma"},
    {"*.head.2.@", "*.conv_out.@"},
    {"*.middle.0.>", "*.mid_block.resnets.0.>"},
    {"*.middle.1.>", "*.mid_block.attentions.0.>"},
    {"*.middle.2.>", "*.mid_block.resnets.1.>"},
    {"encoder.downsamples.#.>", "encoder.down_blocks.#.>"},
    {"decoder.upsamples.#.flat.%.resample.1.@", "decoder.up_blocks.#.upsamplers.0.resample.1.@"},
    {"decoder.upsamples.#.flat.%.time_conv.@", "decoder.up_blocks.#.upsamplers.0.time_conv.@"},
    {"decoder.upsamples.#.flat.#.>", "decoder.up_blocks.#.resnets.#.>"},
};

constexpr NameRule kResidual[] = {
    {"conv1.@", "quant_conv.@"},
    {"conv2.@", "post_quant_conv.@"},
    {"*.conv1.@", "*.conv_in.@"},
    {"*.head.0.gamma", "*.norm_out.gamma"},
    {"*.head.2.@", "*.conv_out.@"},
    {"*.middle.0.>", "*.mid_block.resnets.0.>"},
    {"*.middle.1.>", "*.mid_block.attentions.0.>"},
    {"*.middle.2.>", "*.mid_block.resnets.1.>"},
    {"encoder.downsamples.#.downsamples.%.resample.1.@",
     "encoder.down_blocks.#.downsampler.resample.1.@"},
    {"encoder.downsamples.#.downsamples.%.time_conv.@",
     "encoder.down_blocks.#.downsampler.time_conv.@"},
    {"encoder.downsamples.#.downsamples.#.>", "encoder.down_blocks.#.resnets.#.>"},
    {"decoder.upsamples.#.upsamples.%.resample.1.@", "decoder.up_blocks.#.upsampler.resample.1.@"},
    {"decoder.upsamples.#.upsamples.%.time_conv.@", "decoder.up_blocks.#.upsampler.time_conv.@"},
    {"decoder.upsamples.#.upsamples.#.>", "decoder.up_blocks.#.resnets.#.>"},
};

// Mean and deviation of the latents of the two released VAEs (vae2_1.py and vae2_2.py of the
// Wan2.2 repository).
constexpr std::array kMean16 = {-0.7571, -0.7089, -0.9113, 0.1075,  -0.1745, 0.9653,
                                -0.1517, 1.5508,  0.4134,  -0.0715, 0.5517,  -0.3632,
                                -0.1922, -0.9497, 0.2503,  -0.2921};
constexpr std::array kStd16 = {2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
                               3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160};
constexpr std::array kMean48 = {
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174,  0.1838,  0.1557,  -0.1382, 0.0542,
    0.2813,  0.0891,  0.1570,  -0.0098, 0.0375,  -0.1825, -0.2246, -0.1207, -0.0698, 0.5109,
    0.2665,  -0.2108, -0.2158, 0.2502,  -0.2055, -0.0322, 0.1109,  0.1567,  -0.0729, 0.0899,
    -0.2799, -0.1230, -0.0313, -0.1649, 0.0117,  0.0723,  -0.2839, -0.2083, -0.0520, 0.3748,
    0.0152,  0.1957,  0.1433,  -0.2944, 0.3573,  -0.0548, -0.1681, -0.0667};
constexpr std::array kStd48 = {
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744};

constexpr std::string_view kUpsamples = "decoder.upsamples.";
constexpr std::string_view kFlat = ".flat.";

// The number that a text begins with and where it ends; -1 where there is none.
std::pair<std::int64_t, std::size_t> leading_number(std::string_view text) {
    std::int64_t number = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || text.front() == '-') return {-1, 0};
    return {number, static_cast<std::size_t>(end - text.data())};
}

// What the encoder's levels are, from its names.
struct Levels {
    std::int64_t num_res_blocks = 0;
    std::vector<std::int64_t> channels;  // of each level
    std::vector<bool> temporal;          // whether time is halved behind it; of all but the last
};

Levels residual_levels(const Shapes& shapes) {
    Levels levels;
    levels.num_res_blocks = shapes.count("encoder.down_blocks.0.resnets.", ".conv1.weight");
    for (std::int64_t i = 0;; ++i) {
        const std::string level = fmt::format("encoder.down_blocks.{}.", i);
        if (!shapes.has(level + "resnets.0.conv1.weight")) break;
        levels.channels.push_back(shapes.at(level + "resnets.0.conv1.weight", 5)[0]);
        if (shapes.has(level + "downsampler.resample.1.weight"))
            levels.temporal.push_back(shapes.has(level + "downsampler.time_conv.weight"));
    }
    return levels;
}

Levels plain_levels(const Shapes& shapes) {
    Levels levels;
    bool new_level = true;
    for (std::int64_t i = 0;; ++i) {
        const std::string layer = fmt::format("encoder.down_blocks.{}.", i);
        if (shapes.has(layer + "resample.1.weight")) {
            if (levels.num_res_blocks == 0) levels.num_res_blocks = i;
            levels.temporal.push_back(shapes.has(layer + "time_conv.weight"));
            new_level = true;
        } else if (shapes.has(layer + "conv1.weight")) {
            if (new_level) levels.channels.push_back(shapes.at(layer + "conv1.weight", 5)[0]);
            new_level = false;
        } else {
            if (levels.num_res_blocks == 0) levels.num_res_blocks = i;
            return levels;
        }
    }
}

void add_statistics(nlohmann::json& config, std::int64_t z_dim, const Shapes& shapes) {
    if (z_dim == static_cast<std::int64_t>(kMean16.size())) {
        config["latents_mean"] = kMean16;
        config["latents_std"] = kStd16;
    } else if (z_dim == static_cast<std::int64_t>(kMean48.size())) {
        config["latents_mean"] = kMean48;
        config["latents_std"] = kStd48;
    } else {
        shapes.refuse(
            fmt::format("the mean and deviation of its {} latent channels are known for "
                        "the released VAEs only (16 and 48 channels)",
                        z_dim));
    }
}

}  // namespace

std::span<const NameRule> vae_rules(Layout layout, bool is_residual) {
    if (layout == Layout::diffusers) return {};
    return is_residual ? std::span<const NameRule>(kResidual) : std::span<const NameRule>(kPlain);
}

std::span<const NameRule> vae_block_rules() { return kBlock; }

std::string group_levels(const std::string& name, std::int64_t num_res_blocks) {
    if (!name.starts_with(kUpsamples)) return name;
    const std::string_view rest = std::string_view(name).substr(kUpsamples.size());
    const auto [number, end] = leading_number(rest);
    if (number < 0) return name;
    const std::int64_t layers = num_res_blocks + 2;  // of a level: one more block, and upsampling
    return fmt::format("{}{}{}{}{}", kUpsamples, number / layers, kFlat, number % layers,
                       rest.substr(end));
}

std::string flatten_levels(const std::string& name, std::int64_t num_res_blocks) {
    const std::size_t flat = name.find(kFlat);
    if (!name.starts_with(kUpsamples) || flat == std::string::npos) return name;
    const std::string_view text = name;
    const auto level = leading_number(text.substr(kUpsamples.size())).first;
    const std::string_view rest = text.substr(flat + kFlat.size());
    const auto [layer, end] = leading_number(rest);
    return fmt::format("{}{}{}", kUpsamples, level * (num_res_blocks + 2) + layer,
                       rest.substr(end));
}

nlohmann::json infer_vae_config(const Shapes& shapes) {
    const bool is_residual = shapes.has("encoder.down_blocks.0.resnets.0.conv1.weight");
    const Levels levels = is_residual ? residual_levels(shapes) : plain_levels(shapes);
    const auto& first = shapes.at("encoder.conv_in.weight", 5);
    const std::int64_t base = first[0];
    const std::int64_t z_dim = shapes.at("post_quant_conv.weight", 5)[0];
    std::vector<std::int64_t> dim_mult;
    for (const std::int64_t channels : levels.channels) {
        if (channels % base != 0)
            shapes.refuse(
                fmt::format("a level has {} channels, no multiple of the first layer's "
                            "{}",
                            channels, base));
        dim_mult.push_back(channels / base);
    }
    if (dim_mult.empty() || levels.temporal.size() + 1 != dim_mult.size())
        shapes.refuse("its encoder's levels cannot be told apart");
    const std::int64_t decoder_base = shapes.at("decoder.conv_in.weight", 5)[0] / dim_mult.back();
    const std::int64_t in_channels = first[1];
    const auto patch = std::llround(std::sqrt(static_cast<double>(in_channels) / 3));
    nlohmann::json config = {
        {"_class_name", "AutoencoderKLWan"},
        {"base_dim", base},
        {"decoder_base_dim",
         decoder_base == base ? nlohmann::json() : nlohmann::json(decoder_base)},
        {"z_dim", z_dim},
        {"dim_mult", dim_mult},
        {"num_res_blocks", levels.num_res_blocks},
        {"attn_scales", nlohmann::json::array()},
        {"temperal_downsample", levels.temporal},
        {"is_residual", is_residual},
        {"in_channels", in_channels},
        {"out_channels", shapes.at("decoder.conv_out.weight", 5)[0]},
        {"patch_size", is_residual && patch > 1 ? nlohmann::json(patch) : nlohmann::json()},
        {"scale_factor_temporal",
         std::int64_t{1} << std::count(levels.temporal.begin(), levels.temporal.end(), true)},
        {"scale_factor_spatial", (is_residual ? std::max<std::int64_t>(patch, 1) : 1)
                                     << levels.temporal.size()}};
    add_statistics(config, z_dim, shapes);
    return config;
}

}  // namespace zoetrope
