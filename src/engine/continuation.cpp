// Videos of a prompt or a picture that are longer than a window: each segment goes on from the last
// frames of the one before, by whatever means its model has.
#include "engine/engine.h"
#include "engine/parts.h"
#include "engine/pixel_encoder.h"
#include "engine/segment_run.h"

#include <ATen/TensorOperators.h>

namespace zoetrope {
namespace {

class ContinuationSource : public SegmentSource {
public:
    ContinuationSource(Engine::Parts& parts, const ResolvedRequest& request)
        : parts_(parts), request_(request) {}

    VisualConditions conditions(const plan::Segment& segment, const Carried& carried,
                                const RunControl& control, Report& report) override {
        if (segment.carried_frames == 0)
            return parts_.encode_window(request_, segment, control, report);
        VisualConditions visual;
        switch (parts_.kind()) {
            case ModelKind::image:
                go_on_in_channels(visual, segment, carried, control, report);
                break;
            case ModelKind::text_or_image:
                visual.known_frames = shared_latents(segment, carried, control, report);
                break;
            default: visual.kept_frames = shared_latents(segment, carried, control, report); break;
        }
        parts_.close(parts_.vae);
        return visual;
    }

private:
    // Encodes frames of a segment that begins with those carried over, zeros behind them.
    at::Tensor encode(std::int64_t num_frames, const Carried& carried,
                      StageProgress& progress) const {
        auto& part = parts_.open_vae();
        const Lease lease = part.residency->lease(part.layers.encoder_params());
        const PixelEncoder encoder{part,           lease,   parts_.vae_compute, request_.height,
                                   request_.width, progress};
        const auto frame_at = [&](std::int64_t i) -> at::Tensor {
            if (i >= carried.tail.size(1)) return {};
            return carried.tail.select(1, i).mul(2).sub_(1);
        };
        return encoder.encode(num_frames, frame_at).to(at::kCPU);
    }

    // Latents of the frames that the segment shares with the one before it: [1, z, n, h, w].
    at::Tensor shared_latents(const plan::Segment& segment, const Carried& carried,
                              const RunControl& control, Report& report) const {
        if (request_.joins.carry == Carry::latents) return carried.tail_latents;
        StageProgress progress(
            control, static_cast<int>(parts_.vae_config.latent_frames(segment.carried_frames)));
        const at::Tensor latents = encode(segment.carried_frames, carried, progress);
        report.add_stage(Stage::encode_image, progress.seconds());
        return latents;
    }

    // Image-to-video models: more frames are given than one. What the model sees through CLIP is
    // the window's first frame, as it was when it was trained.
    void go_on_in_channels(VisualConditions& visual, const plan::Segment& segment,
                           const Carried& carried, const RunControl& control,
                           Report& report) const {
        const bool clip = parts_.dit_config.image_dim > 0;
        StageProgress progress(
            control,
            static_cast<int>(parts_.vae_config.latent_frames(segment.length)) + (clip ? 1 : 0));
        if (clip) {
            const Frame first = to_frames(carried.tail.narrow(1, 0, 1)).front();
            visual.image = parts_.encode_pictures(&first, nullptr);
            progress.step();
        }
        at::Tensor latents = encode(segment.length, carried, progress);
        put_carried_latents(latents, segment, carried, request_.joins);
        visual.channels =
            parts_.channels_of(latents, segment.length, segment.carried_frames, false);
        report.add_stage(Stage::encode_image, progress.seconds());
    }

    Engine::Parts& parts_;
    const ResolvedRequest& request_;
};

}  // namespace

std::unique_ptr<SegmentSource> continuation_source(Engine::Parts& parts,
                                                   const ResolvedRequest& request) {
    return std::make_unique<ContinuationSource>(parts, request);
}

}  // namespace zoetrope
