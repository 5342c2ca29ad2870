#include "engine/pixel_encoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

namespace zoetrope {

StageProgress::StageProgress(const RunControl& control, int steps)
    : control_(control), progress_{.stage = Stage::encode_image, .steps = steps} {
    control_.report(progress_);
}

void StageProgress::step() {
    progress_.step += 1;
    progress_.seconds = seconds();
    progress_.predicted_seconds_left =
        progress_.seconds / progress_.step * (progress_.steps - progress_.step);
    control_.report(progress_);
    control_.throw_if_stopped();
}

at::Tensor PixelEncoder::encode(std::int64_t num_frames, const FramePixels& frame) const {
    const std::int64_t chunk = vae.layers.config().scale_factor_temporal;
    auto stream = vae.layers.encode_stream(lease);
    std::vector<at::Tensor> latents;
    for (std::int64_t first = 0; first < num_frames; first += first == 0 ? 1 : chunk) {
        const std::int64_t count = first == 0 ? 1 : chunk;
        at::Tensor pixels = at::zeros({1, 3, count, height, width}, at::kFloat);
        for (std::int64_t i = 0; i < count; ++i) {
            const at::Tensor given = frame(first + i);
            if (given.defined()) pixels.select(2, i).copy_(given);
        }
        latents.push_back(stream.push(pixels.to(compute.device, compute.compute_dtype)));
        progress.step();
    }
    return vae.layers.normalize(at::cat(latents, 2).to(at::kFloat));
}

}  // namespace zoetrope
