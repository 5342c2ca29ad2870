#include "engine/inputs.h"

#include "base/error.h"
#include "base/error_context.h"
#include "media/picture.h"
#include "media/reader.h"
#include "media/resize.h"
#include "vision/pixels.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/upsample_bilinear2d.h>

namespace zoetrope {
namespace {

std::vector<Frame> read_video(std::string_view flag, const std::filesystem::path& path,
                              int max_frames) {
    return with_context(flag, [&] {
        std::vector<Frame> frames;
        VideoReader reader(path);
        while (max_frames == 0 || static_cast<int>(frames.size()) < max_frames) {
            auto frame = reader.read();
            if (!frame) break;
            frames.push_back(std::move(frame->frame));
        }
        ZT_CHECK(reader.damage().empty(), io, "{} breaks off after {} frames: {}", path.string(),
                 frames.size(), reader.damage());
        return frames;
    });
}

Frame read_one(std::string_view flag, const std::filesystem::path& path) {
    return with_context(flag, [&] { return load_picture(path); });
}

}  // namespace

VisualInputs read_inputs(const Request& request, int max_frames) {
    VisualInputs inputs;
    if (!request.image.empty()) inputs.image = read_one("--image", request.image);
    if (!request.last_image.empty())
        inputs.last_image = read_one("--last-image", request.last_image);
    for (const auto& path : request.reference_images)
        inputs.reference_images.push_back(read_one("--reference-image", path));
    const auto video = [max_frames](const char* flag, const std::filesystem::path& path) {
        return path.empty() ? std::vector<Frame>() : read_video(flag, path, max_frames);
    };
    inputs.video = video("--video", request.video);
    inputs.pose = video("--pose-video", request.pose_video);
    inputs.face = video("--face-video", request.face_video);
    inputs.background = video("--background-video", request.background_video);
    if (!inputs.pose.empty()) {
        inputs.mask = video("--mask-video", request.mask_video);
    } else if (!request.mask_video.empty()) {
        inputs.mask = read_video("--mask-video", request.mask_video, max_frames);
        // A single picture masks every frame.
        if (inputs.mask.size() == 1) inputs.mask.resize(inputs.video.size(), inputs.mask.front());
        ZT_CHECK(inputs.mask.size() >= inputs.video.size(), bad_request,
                 "--mask-video has {} frames and --video has {}: one picture, or as many frames "
                 "are wanted",
                 inputs.mask.size(), inputs.video.size());
    }
    return inputs;
}

at::Tensor to_pixels(const Frame& frame, int height, int width) {
    return to_video_pixels(resize(frame, width, height, ResizeFilter::lanczos));
}

at::Tensor to_canvas(const Frame& frame, int height, int width, int multiple) {
    const at::Tensor picture = to_pixels(frame, frame.height - frame.height % multiple,
                                         frame.width - frame.width % multiple);
    const auto from_height = static_cast<double>(picture.size(1));
    const auto from_width = static_cast<double>(picture.size(2));
    const double scale = std::min(height / from_height, width / from_width);
    const auto fitted_height = static_cast<std::int64_t>(from_height * scale);
    const auto fitted_width = static_cast<std::int64_t>(from_width * scale);
    const at::Tensor fitted =
        at::upsample_bilinear2d(picture.unsqueeze(0), {fitted_height, fitted_width}, false)
            .squeeze(0);
    at::Tensor canvas = at::ones({3, height, width}, picture.options());
    canvas.narrow(1, (height - fitted_height) / 2, fitted_height)
        .narrow(2, (width - fitted_width) / 2, fitted_width)
        .copy_(fitted);
    return canvas;
}

}  // namespace zoetrope
