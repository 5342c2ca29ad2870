// Wan-Animate: a character's picture moved by pose and face videos, in overlapping segments, each
// conditioned on the last frames of the one before.
#include "engine/animate_inputs.h"
#include "engine/inputs.h"
#include "engine/parts.h"
#include "engine/pixel_encoder.h"
#include "engine/segment_run.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/upsample_nearest2d.h>
#include <ATen/ops/zeros.h>

namespace zoetrope {
namespace {

class AnimateSource : public SegmentSource {
public:
    AnimateSource(Engine::Parts& parts, const ResolvedRequest& request)
        : parts_(parts), request_(request), replace_(request.task == Task::replace) {}

    VisualConditions conditions(const plan::Segment& segment, const Carried& carried,
                                const RunControl& control, Report& report) override {
        VisualConditions visual;
        if (!picture_.defined()) picture_ = parts_.encode_pictures(request_.inputs);
        visual.image = picture_;
        visual.faces = faces(segment);
        {
            auto& part = parts_.open_vae();
            const Lease lease = part.residency->lease(part.layers.encoder_params());
            const std::int64_t frames = parts_.vae_config.latent_frames(segment.length);
            StageProgress progress(control,
                                   static_cast<int>(2 * frames + (reference_.defined() ? 0 : 1)));
            const PixelEncoder encoder{part,           lease,   parts_.vae_compute, request_.height,
                                       request_.width, progress};
            if (!reference_.defined()) reference_ = encode_reference(encoder);
            const at::Tensor known = encode_known(encoder, segment, carried);
            const at::Tensor mask = mask_of(segment, known.size(3), known.size(4));
            visual.channels = at::cat({reference_, at::cat({mask, known}, 1)}, 2);
            visual.pose = encoder
                              .encode(segment.length,
                                      [&](std::int64_t i) {
                                          return pixels(request_.inputs.pose, segment, i);
                                      })
                              .to(at::kCPU);
            report.add_stage(Stage::encode_image, progress.seconds());
        }
        parts_.close(parts_.vae);
        return visual;
    }

    // WanAnimatePipeline hands them out as its VAE takes them, unlike the other pipelines.
    at::Tensor result(const at::Tensor& latents) const override {
        return parts_.open_vae().layers.denormalize(latents);
    }

private:
    // The frame of a driving video behind frame i of a segment. Padding is reflected: of one shot
    // at each video's own end, as Diffusers does it, of several at the shot's.
    const Frame& frame(const FrameSequence& video, const plan::Segment& segment,
                       std::int64_t i) const {
        const int place = segment.start + static_cast<int>(i);
        const int index = request_.segments.shots.size() > 1
                              ? plan::source_frame(request_.segments, place)
                              : plan::reflect(place, video.size());
        return video.at(index);
    }

    at::Tensor pixels(const FrameSequence& video, const plan::Segment& segment,
                      std::int64_t i) const {
        return to_pixels(frame(video, segment, i), request_.height, request_.width);
    }

    // The character as a latent frame of its own, with channels that say that it is given.
    at::Tensor encode_reference(const PixelEncoder& encoder) const {
        const at::Tensor character =
            to_filled(*request_.inputs.image, request_.height, request_.width);
        const at::Tensor encoded =
            encoder.encode(1, [&](std::int64_t) { return character; }).to(at::kCPU);
        const at::Tensor ones = at::ones_like(encoded.narrow(1, 0, 4));
        return at::cat({ones, encoded}, 1);
    }

    // What is there of a segment: frames carried over, then the background or nothing.
    // -> [1, z, F, h, w] fp32
    at::Tensor encode_known(const PixelEncoder& encoder, const plan::Segment& segment,
                            const Carried& carried) const {
        const auto frame_at = [&](std::int64_t i) -> at::Tensor {
            if (i < segment.carried_frames) return carried.tail.select(1, i).mul(2).sub_(1);
            return replace_ ? pixels(request_.inputs.background, segment, i) : at::Tensor();
        };
        at::Tensor known = encoder.encode(segment.length, frame_at).to(at::kCPU);
        put_carried_latents(known, segment, carried, request_.joins);
        return known;
    }

    // Which pixels of the segment are given: [1, 4, F, h, w].
    at::Tensor mask_of(const plan::Segment& segment, std::int64_t height,
                       std::int64_t width) const {
        at::Tensor frames = at::zeros({segment.length, height, width}, at::kFloat);
        for (int i = 0; replace_ && i < segment.length; ++i) {
            const at::Tensor person =
                to_mask(frame(request_.inputs.mask, segment, i), request_.height, request_.width);
            frames.select(0, i).copy_(
                at::upsample_nearest2d((1 - person).unsqueeze(0).unsqueeze(0), {height, width})
                    .view({height, width}));
        }
        frames.narrow(0, 0, segment.carried_frames).fill_(1);
        return mask_of_frames(frames, parts_.vae_config.scale_factor_temporal);
    }

    // [1, 3, length, size, size] fp32 in [-1, 1]
    at::Tensor faces(const plan::Segment& segment) const {
        const auto size = static_cast<int>(parts_.dit_config.face.size);
        std::vector<at::Tensor> frames;
        for (int i = 0; i < segment.length; ++i)
            frames.push_back(to_pixels(frame(request_.inputs.face, segment, i), size, size));
        return at::stack(frames, 1).unsqueeze(0);
    }

    Engine::Parts& parts_;
    const ResolvedRequest& request_;
    const bool replace_;
    at::Tensor picture_;    // CLIP's embeddings of the character
    at::Tensor reference_;  // [1, 4 + z, 1, h, w] fp32
};

}  // namespace

std::unique_ptr<SegmentSource> animate_source(Engine::Parts& parts,
                                              const ResolvedRequest& request) {
    return std::make_unique<AnimateSource>(parts, request);
}

}  // namespace zoetrope
