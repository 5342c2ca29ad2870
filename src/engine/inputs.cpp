#include "engine/inputs.h"

#include "base/error.h"
#include "base/error_context.h"
#include "media/picture.h"
#include "media/resize.h"
#include "vision/pixels.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/upsample_bilinear2d.h>

namespace zoetrope {
namespace {

FrameSequence open_video(std::string_view flag, const std::filesystem::path& path, int max_frames) {
    if (path.empty()) return {};
    return with_context(flag,
                        [&] { return FrameSequence::open(path, {.most_frames = max_frames}); });
}

Frame read_one(std::string_view flag, const std::filesystem::path& path) {
    return with_context(flag, [&] { return load_picture(path); });
}

}  // namespace

VisualInputs read_inputs(const Request& request, int max_frames, bool driven) {
    VisualInputs inputs;
    if (!request.image.empty()) inputs.image = read_one("--image", request.image);
    if (!request.last_image.empty())
        inputs.last_image = read_one("--last-image", request.last_image);
    for (const auto& path : request.reference_images)
        inputs.reference_images.push_back(read_one("--reference-image", path));
    if (!driven) inputs.video = open_video("--video", request.video, max_frames);
    inputs.mask = open_video("--mask-video", request.mask_video, max_frames);
    inputs.pose = open_video("--pose-video", request.pose_video, max_frames);
    inputs.face = open_video("--face-video", request.face_video, max_frames);
    inputs.background = open_video("--background-video", request.background_video, max_frames);
    ZT_CHECK(inputs.mask.size() <= 1 || inputs.mask.size() >= inputs.video.size(), bad_request,
             "--mask-video has {} frames and --video has {}: one picture, or as many frames are "
             "wanted",
             inputs.mask.size(), inputs.video.size());
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
