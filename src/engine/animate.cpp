// Wan-Animate: a character's picture moved by pose and face videos, in overlapping segments, each
// conditioned on the last frames of the one before.
#include "engine/animate_inputs.h"
#include "engine/inputs.h"
#include "engine/parts.h"
#include "engine/pixel_encoder.h"

#include "base/error.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/upsample_nearest2d.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <deque>

namespace zoetrope {
namespace {

// One run's constant parts and its way through the videos.
struct Animation {
    const ResolvedRequest& request;
    const DitConfig& dit;
    bool replace;

    const Frame& at(const std::vector<Frame>& video, int place) const {
        return video[static_cast<std::size_t>(
            plan::reflect(place, static_cast<int>(video.size())))];
    }
    at::Tensor pixels(const std::vector<Frame>& video, int place) const {
        return to_pixels(at(video, place), request.height, request.width);
    }

    // [1, 3, length, size, size] fp32 in [-1, 1]
    at::Tensor faces(const plan::Segment& segment) const {
        const auto size = static_cast<int>(dit.face.size);
        std::vector<at::Tensor> frames;
        for (int i = 0; i < segment.length; ++i)
            frames.push_back(to_pixels(at(request.inputs.face, segment.start + static_cast<int>(i)),
                                       size, size));
        return at::stack(frames, 1).unsqueeze(0);
    }

    // Which pixels of the segment are given: [1, 4, F, h, w]. carried: frames of the last segment.
    at::Tensor mask(const plan::Segment& segment, std::int64_t carried, std::int64_t height,
                    std::int64_t width) const {
        at::Tensor frames = at::zeros({segment.length, height, width}, at::kFloat);
        for (int i = 0; replace && i < segment.length; ++i) {
            const at::Tensor person =
                to_mask(at(request.inputs.mask, segment.start + static_cast<int>(i)),
                        request.height, request.width);
            frames.select(0, i).copy_(
                at::upsample_nearest2d((1 - person).unsqueeze(0).unsqueeze(0), {height, width})
                    .view({height, width}));
        }
        frames.narrow(0, 0, carried).fill_(1);
        // The first latent frame stands for the first frame alone, the others for four each.
        const at::Tensor first = frames.narrow(0, 0, 1).expand({4, height, width});
        const at::Tensor all = at::cat({first, frames.narrow(0, 1, segment.length - 1)});
        return all.view({-1, 4, height, width}).transpose(0, 1).unsqueeze(0);
    }
};

// The last frames handed out, in [-1, 1].
class Tail {
public:
    explicit Tail(std::size_t most) : most_(most) {}
    void push(const at::Tensor& frames) {  // [3, n, H, W] in [0, 1]
        for (std::int64_t i = 0; i < frames.size(1); ++i) {
            frames_.push_back(frames.select(1, i).mul(2).sub_(1));
            if (frames_.size() > most_) frames_.pop_front();
        }
    }
    const at::Tensor& operator[](std::int64_t i) const {
        return frames_[static_cast<std::size_t>(i)];
    }

private:
    std::size_t most_;
    std::deque<at::Tensor> frames_;
};

}  // namespace

at::Tensor Engine::animate(const ResolvedRequest& request, const FrameCallback& sink,
                           const RunControl& control, Report& report) {
    const c10::InferenceMode inference;
    Parts& parts = *parts_;
    const Animation animation{request, parts.dit_config, request.task == Task::replace};
    const VisualInputs& inputs = request.inputs;
    const TextEmbeddings text = encode_text(request, control, report);
    const struct Hold {
        bool& hold;
        explicit Hold(bool& held) : hold(held) { hold = true; }
        ~Hold() { hold = false; }
    } hold(parts.hold);
    VisualConditions visual;
    visual.image = parts.encode_pictures(inputs);

    at::Generator generator = at::detail::createCPUGenerator(request.seed);
    at::Tensor reference, latents;
    const std::vector<plan::Segment>& segments = request.segments.segments;
    Tail tail(static_cast<std::size_t>(request.segments.overlap));
    int given = 0;
    for (std::size_t index = 0; index < segments.size(); ++index) {
        const plan::Segment& segment = segments[index];
        RunControl numbered = control;
        numbered.on_progress = [&](const Progress& progress) {
            Progress with_segment = progress;
            with_segment.segment = static_cast<int>(index);
            with_segment.segments = static_cast<int>(segments.size());
            control.report(with_segment);
        };
        {
            auto& part = parts.open_vae();
            const Lease lease = part.residency->lease(part.layers.encoder_params());
            const std::int64_t frames = parts.vae_config.latent_frames(segment.length);
            StageProgress progress(numbered, static_cast<int>(2 * frames + (index == 0 ? 1 : 0)));
            const PixelEncoder encoder{part,           lease,         parts.vae_compute,
                                       request.height, request.width, progress};
            if (index == 0) {
                const at::Tensor character =
                    to_filled(*inputs.image, request.height, request.width);
                const at::Tensor encoded =
                    encoder.encode(1, [&](std::int64_t) { return character; }).to(at::kCPU);
                const at::Tensor ones = at::ones_like(encoded.narrow(1, 0, 4));
                reference = at::cat({ones, encoded}, 1);
            }
            const std::int64_t carried = segment.carried_frames;
            const at::Tensor known =
                encoder
                    .encode(segment.length,
                            [&](std::int64_t i) -> at::Tensor {
                                if (i < carried) return tail[i];
                                return animation.replace
                                           ? animation.pixels(inputs.background,
                                                              segment.start + static_cast<int>(i))
                                           : at::Tensor();
                            })
                    .to(at::kCPU);
            const at::Tensor mask = animation.mask(segment, carried, known.size(3), known.size(4));
            visual.channels = at::cat({reference, at::cat({mask, known}, 1)}, 2);
            visual.pose = encoder
                              .encode(segment.length,
                                      [&](std::int64_t i) {
                                          return animation.pixels(
                                              inputs.pose, segment.start + static_cast<int>(i));
                                      })
                              .to(at::kCPU);
            visual.faces = animation.faces(segment);
            report.add_stage(Stage::encode_image, progress.seconds());
        }
        at::Tensor noise = at::randn({1, parts.vae_config.z_dim, visual.channels.size(2),
                                      visual.channels.size(3), visual.channels.size(4)},
                                     generator, at::kFloat);
        if (index == 0 && !request.request.latents.empty()) noise = draw_noise(request);
        latents = parts.run_loop(request, text, visual, 0, request.last_step, noise, generator,
                                 numbered, report);
        if (!sink && index + 1 == segments.size()) break;
        int skip = segment.carried_frames;
        decode(
            latents.narrow(2, 1, latents.size(2) - 1),
            [&](int output, const at::Tensor& frames) {
                tail.push(frames);
                const int count = static_cast<int>(frames.size(1));
                const int first = std::min(skip, count);
                skip -= first;
                const int wanted = std::min(count - first, request.num_frames - given);
                if (wanted <= 0) return;
                given += wanted;
                if (sink) sink(output, frames.narrow(1, first, wanted));
            },
            numbered, report);
    }
    // WanAnimatePipeline hands them out as its VAE takes them, unlike the other pipelines.
    return parts.open_vae().layers.denormalize(latents);
}

}  // namespace zoetrope
