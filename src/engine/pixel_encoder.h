// Pixels to latents for one run, with progress.
//
// Private to the engine's sources. Borrows everything it is made of. One thread.
#pragma once

#include "base/timer.h"
#include "engine/parts.h"

#include <functional>

namespace zoetrope {

// Progress of Stage::encode_image, chunk by chunk.
class StageProgress {
public:
    StageProgress(const RunControl& control, int steps);

    void step();
    double seconds() const { return timer_.seconds(); }

private:
    const RunControl& control_;
    Progress progress_;
    Timer timer_;
};

// Gives frame i as [3, H, W] fp32 in [-1, 1]; undefined: a frame of zeros (mid-grey).
using FramePixels = std::function<at::Tensor(std::int64_t)>;

struct PixelEncoder {
    const Part<Vae>& vae;
    const Lease& lease;
    const ResidencyOptions& compute;
    int height, width;
    StageProgress& progress;

    // -> [1, z, F, h, w] fp32, normalised: the mode of the posterior
    at::Tensor encode(std::int64_t num_frames, const FramePixels& frame) const;
};

}  // namespace zoetrope
