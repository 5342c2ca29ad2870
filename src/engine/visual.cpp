// Pictures and videos become what the denoiser takes: CLIP embeddings, masks and latents.
#include "base/error.h"
#include "engine/inputs.h"
#include "engine/parts.h"
#include "engine/pixel_encoder.h"
#include "engine/segment_run.h"
#include "media/resize.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_upsample_nearest_exact3d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>

namespace zoetrope {
namespace {

// A video's mask as channels: each of the 8x8 pixels under a latent pixel is one.
// mask: [frames, H, W] in [0, 1] -> [1, 64, F, h, w] (64: pixels squared of a latent pixel)
at::Tensor mask_channels(const at::Tensor& mask, std::int64_t spatial, std::int64_t latent_frames) {
    const std::int64_t frames = mask.size(0), h = mask.size(1) / spatial,
                       w = mask.size(2) / spatial;
    const at::Tensor channels = mask.view({frames, h, spatial, w, spatial})
                                    .permute({2, 4, 0, 1, 3})
                                    .reshape({1, spatial * spatial, frames, h, w});
    return at::_upsample_nearest_exact3d(channels, {latent_frames, h, w});
}

// What WanVACEPipeline gives its control branch: the video without and with what the mask marks,
// reference pictures before it (the last one first), and the mask itself. Without a video, frames
// of zeros that are all to be made.
// -> [1, 2 z + spatial^2, references + F, h, w] fp32
at::Tensor control_latents(const VisualInputs& inputs, std::int64_t num_frames,
                           const PixelEncoder& encoder) {
    const VaeConfig& config = encoder.vae.layers.config();
    const auto at_size = [&](const FrameSequence& video, std::int64_t i) {
        return to_pixels(video.at(static_cast<int>(i)), encoder.height, encoder.width);
    };
    const auto mask_at = [&](std::int64_t i) {
        return at_size(inputs.mask, inputs.mask.size() == 1 ? 0 : i).add(1).div_(2).clamp_(0, 1);
    };
    const auto part_of_video = [&](bool marked) {
        return encoder.encode(num_frames, [&](std::int64_t i) -> at::Tensor {
            if (inputs.video.empty() || (inputs.mask.empty() && !marked)) return {};
            const at::Tensor video = at_size(inputs.video, i);
            if (inputs.mask.empty()) return video;
            const at::Tensor inside = mask_at(i) > 0.5;
            return video * (marked ? inside : inside.logical_not());
        });
    };
    at::Tensor latents = at::cat({part_of_video(false), part_of_video(true)}, 1).to(at::kCPU);

    at::Tensor mask = at::ones({num_frames, encoder.height, encoder.width}, at::kFloat);
    for (std::int64_t i = 0; !inputs.mask.empty() && i < num_frames; ++i)
        mask.select(0, i).copy_(mask_at(i).select(0, 0));
    mask = mask_channels(mask, config.scale_factor_spatial, latents.size(2));

    for (const Frame& reference : inputs.reference_images) {
        const at::Tensor canvas = to_canvas(reference, encoder.height, encoder.width,
                                            static_cast<int>(config.scale_factor_spatial));
        const at::Tensor encoded =
            encoder.encode(1, [&](std::int64_t) { return canvas; }).to(at::kCPU);
        latents = at::cat({at::cat({encoded, at::zeros_like(encoded)}, 1), latents}, 2);
        mask = at::cat({at::zeros_like(mask.narrow(2, 0, 1)), mask}, 2);
    }
    return at::cat({latents, mask}, 1);
}

// What the Fun-Control models take beside the noise: the control video, and the first picture as
// the first latent frame, zeros behind it. -> [1, 2 z, F, h, w] fp32
at::Tensor control_channels(const VisualInputs& inputs, std::int64_t num_frames,
                            const PixelEncoder& encoder) {
    const auto pixels = [&](const Frame& frame) {
        return to_pixels(frame, encoder.height, encoder.width);
    };
    const at::Tensor control =
        encoder
            .encode(num_frames,
                    [&](std::int64_t i) { return pixels(inputs.video.at(static_cast<int>(i))); })
            .to(at::kCPU);
    at::Tensor first = at::zeros_like(control);
    if (inputs.image) {
        const at::Tensor picture = pixels(*inputs.image);
        first.narrow(2, 0, 1).copy_(encoder.encode(1, [&](std::int64_t) { return picture; }));
    }
    return at::cat({control, first}, 1);
}

}  // namespace

at::Tensor Engine::Parts::encode_pictures(const VisualInputs& inputs) {
    // Models of one picture's tokens (Fun-InP, Wan2.1 I2V) see the last one in their channels only.
    const bool two = inputs.last_image && dit_config.pos_embed_seq_len > 0;
    return encode_pictures(inputs.image ? &*inputs.image : nullptr,
                           two ? &*inputs.last_image : nullptr);
}

at::Tensor Engine::Parts::encode_pictures(const Frame* first, const Frame* last) {
    auto& part = open_image_encoder();
    if (options.keep_resident) part.keep();
    const ClipVisionConfig& clip = part.layers.config();
    if (first == nullptr)  // a control video alone: what stands for no picture
        return at::zeros({1, clip.tokens(), clip.hidden_size}, at::kFloat);
    const auto preprocess = model.image_processor
                                ? ClipPreprocess::from_json(*model.image_processor)
                                : ClipPreprocess();
    std::vector<at::Tensor> pixels;
    for (const Frame* frame : {first, last}) {
        if (frame == nullptr) continue;
        const PictureSize size = preprocess.resize_size({frame->width, frame->height});
        pixels.push_back(
            preprocess.to_pixels(resize(*frame, size.width, size.height, preprocess.filter)));
    }
    return part.layers.encode(at::cat(pixels).to(compute.device), *part.residency).to(at::kCPU);
}

at::Tensor Engine::Parts::channels_of(const at::Tensor& latents, std::int64_t num_frames,
                                      std::int64_t given, bool last) const {
    at::Tensor frames = at::zeros({num_frames, latents.size(3), latents.size(4)}, at::kFloat);
    frames.narrow(0, 0, given).fill_(1);
    if (last) frames.select(0, num_frames - 1).fill_(1);
    return at::cat({mask_of_frames(frames, vae_config.scale_factor_temporal), latents}, 1);
}

VisualConditions Engine::encode_visual(const ResolvedRequest& request, const RunControl& control,
                                       Report& report) {
    const c10::InferenceMode inference;
    return parts_->encode_window(request, {.length = request.num_frames}, control, report);
}

VisualConditions Engine::Parts::encode_window(const ResolvedRequest& request,
                                              const plan::Segment& segment,
                                              const RunControl& control, Report& report) {
    VisualConditions result;
    const VisualInputs& inputs = request.inputs;
    if (inputs.empty() && request.task != Task::vace) return result;
    const std::int64_t frames = vae_config.latent_frames(segment.length);
    const bool known_frame = kind() == ModelKind::text_or_image;
    const auto references = static_cast<std::int64_t>(inputs.reference_images.size());
    const bool clip = dit_config.image_dim > 0;
    const bool control_branch = dit_config.has_control();
    const std::int64_t chunks = control_branch ? 2 * frames + references
                                : known_frame && inputs.image
                                    ? 1
                                    : frames + (request.task == Task::vace && inputs.image ? 1 : 0);
    StageProgress progress(control, static_cast<int>(chunks + (clip ? 1 : 0)));
    control.throw_if_stopped();
    if (clip) {
        result.image = encode_pictures(inputs);
        progress.step();
    }

    {
        auto& part = open_vae();
        const Lease lease = part.residency->lease(part.layers.encoder_params());
        const PixelEncoder encoder{part,           lease,         vae_compute,
                                   request.height, request.width, progress};
        const auto pixels = [&](const Frame& frame) {
            return to_pixels(frame, request.height, request.width);
        };
        switch (request.task) {
            case Task::i2v:
            case Task::flf2v: {
                const at::Tensor first = pixels(*inputs.image);
                if (known_frame) {
                    result.known_frames = encoder.encode(1, [&](std::int64_t) { return first; });
                    break;
                }
                const at::Tensor last =
                    inputs.last_image ? pixels(*inputs.last_image) : at::Tensor();
                const at::Tensor latents = encoder.encode(segment.length, [&](std::int64_t i) {
                    return i == 0 ? first : i == segment.length - 1 ? last : at::Tensor();
                });
                result.channels =
                    channels_of(latents.to(at::kCPU), segment.length, 1, last.defined());
                break;
            }
            case Task::v2v:
                result.source = encoder.encode(segment.length, [&](std::int64_t i) {
                    return pixels(inputs.video.at(static_cast<int>(i)));
                });
                break;
            case Task::vace:
                if (control_branch) {
                    result.control = control_latents(inputs, segment.length, encoder);
                } else {
                    result.channels = control_channels(inputs, segment.length, encoder);
                }
                break;
            default: break;
        }
    }
    close(vae);
    report.add_stage(Stage::encode_image, progress.seconds());
    return result;
}

}  // namespace zoetrope
