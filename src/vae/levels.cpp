#include "vae/levels.h"

#include <fmt/format.h>

namespace zoetrope::vae {

at::Tensor DownLevel::forward(at::Tensor x, const Lease& lease, Carried& carried) const {
    // Before x is written over.
    const at::Tensor past = shortcut ? shortcut->forward(x) : at::Tensor();
    for (const ResidualBlock& block : blocks) x = block.forward(x, lease, carried);
    if (resample) x = resample->forward(x, lease, carried);
    return shortcut ? past.add_(x) : x;  // x may be what a stream carries on
}

void DownLevel::account(ops::ClipShape& x, Ledger& ledger) const {
    if (shortcut) shortcut->account(x, ledger);
    for (const ResidualBlock& block : blocks) account_step(block, x, ledger);
    if (resample) account_step(*resample, x, ledger);
    if (shortcut) ledger.drop(x);
}

at::Tensor UpLevel::forward(at::Tensor x, const Lease& lease, Carried& carried) const {
    const at::Tensor before = shortcut ? x : at::Tensor();
    for (const ResidualBlock& block : blocks)
        x = block.forward(x, lease, carried, x.is_same(before));
    if (resample) x = resample->forward(x, lease, carried);
    if (shortcut) shortcut->add(before, carried.first, x);
    return x;
}

void UpLevel::account(ops::ClipShape& x, Ledger& ledger) const {
    const ops::ClipShape before = x;
    bool keep_x = shortcut.has_value();
    for (const ResidualBlock& block : blocks) {
        const ops::ClipShape out = block.account(x, ledger, keep_x);
        if (!keep_x) ledger.drop(x);
        keep_x = false;
        x = out;
    }
    if (resample) account_step(*resample, x, ledger);
    if (shortcut) ledger.drop(before);
}

std::vector<DownLevel> encoder_levels(Builder& builder, const VaeConfig& config) {
    std::vector<DownLevel> levels(config.dim_mult.size());
    std::int64_t channels = config.base_dim;
    int index = 0;  // down_blocks is one flat list, or one of levels
    for (std::size_t i = 0; i < levels.size(); ++i) {
        DownLevel& level = levels[i];
        const bool last = i + 1 == levels.size();
        const bool temporal = !last && config.temporal_downsample[i];
        const std::int64_t in = channels, out = config.base_dim * config.dim_mult[i];
        const auto name = [&](const std::string& part) {
            return config.is_residual ? fmt::format("encoder.down_blocks.{}.{}", i, part)
                                      : fmt::format("encoder.down_blocks.{}", index++);
        };
        for (std::int64_t j = 0; j < config.num_res_blocks; ++j) {
            level.blocks.emplace_back(builder, name(fmt::format("resnets.{}", j)), channels, out);
            channels = out;
        }
        if (!last) level.resample.emplace(builder, name("downsampler"), out, temporal);
        if (config.is_residual) {
            level.shortcut.emplace(ShortcutShape{
                .in = in, .out = out, .frames = temporal ? 2 : 1, .side = last ? 1 : 2});
        }
    }
    return levels;
}

// From the smallest pictures to the largest, so dim_mult and temporal_downsample backwards.
std::vector<UpLevel> decoder_levels(Builder& builder, const VaeConfig& config) {
    std::vector<UpLevel> levels(config.dim_mult.size());
    std::int64_t channels = config.decoder_base_dim * config.dim_mult.back();
    for (std::size_t i = 0; i < levels.size(); ++i) {
        UpLevel& level = levels[i];
        const std::size_t mirrored = levels.size() - 1 - i;
        const std::int64_t in = channels;
        const std::int64_t out = config.decoder_base_dim * config.dim_mult[mirrored];
        const std::string prefix = fmt::format("decoder.up_blocks.{}", i);
        for (std::int64_t j = 0; j <= config.num_res_blocks; ++j) {
            level.blocks.emplace_back(builder, fmt::format("{}.resnets.{}", prefix, j), channels,
                                      out);
            channels = out;
        }
        if (mirrored == 0) break;
        const bool temporal = config.temporal_downsample[mirrored - 1];
        channels = config.is_residual ? out : out / 2;
        level.resample.emplace(builder,
                               prefix + (config.is_residual ? ".upsampler" : ".upsamplers.0"),
                               Upsample::Shape{.in = out, .out = channels, .temporal = temporal});
        if (config.is_residual) {
            level.shortcut.emplace(
                ShortcutShape{.in = in, .out = out, .frames = temporal ? 2 : 1, .side = 2});
        }
    }
    return levels;
}

}  // namespace zoetrope::vae
