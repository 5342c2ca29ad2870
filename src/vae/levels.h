// The levels of the Wan VAEs: all layers of one resolution, and the way out of it to half or twice
// the size. In a residual VAE (Wan 2.2) each has a shortcut past all of it.
#pragma once

#include "vae/layers.h"
#include "vae/vae.h"

namespace zoetrope::vae {

struct DownLevel {
    std::vector<ResidualBlock> blocks;
    std::optional<Downsample> resample;  // not in the last one
    std::optional<AverageDown> shortcut;

    at::Tensor forward(at::Tensor x, const Lease& lease, Carried& carried) const;
    // x goes through it and is let go; its result is held.
    void account(ops::ClipShape& x, Ledger& ledger) const;
};

struct UpLevel {
    std::vector<ResidualBlock> blocks;
    std::optional<Upsample> resample;     // not in the last one
    std::optional<DuplicateUp> shortcut;  // nor this

    at::Tensor forward(at::Tensor x, const Lease& lease, Carried& carried) const;
    void account(ops::ClipShape& x, Ledger& ledger) const;  // as DownLevel's
};

// From the largest pictures to the smallest, and back.
std::vector<DownLevel> encoder_levels(Builder& builder, const VaeConfig& config);
std::vector<UpLevel> decoder_levels(Builder& builder, const VaeConfig& config);

// x goes through the layer and is let go.
template <typename Layer>
void account_step(const Layer& layer, ops::ClipShape& x, Ledger& ledger) {
    const ops::ClipShape out = layer.account(x, ledger);
    ledger.drop(x);
    x = out;
}

}  // namespace zoetrope::vae
