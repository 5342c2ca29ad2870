#include "engine/animate_inputs.h"

#include "engine/inputs.h"
#include "media/resize.h"
#include "vision/pixels.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace zoetrope {

at::Tensor to_filled(const Frame& frame, int height, int width) {
    const double ratio = static_cast<double>(width) / height;
    const double own = static_cast<double>(frame.width) / frame.height;
    const auto whole = [](std::int64_t a, std::int64_t b, std::int64_t c) {
        return static_cast<int>(std::max<std::int64_t>(1, a * b / c));
    };
    const int fitted_width = ratio < own ? width : whole(frame.width, height, frame.height);
    const int fitted_height = ratio >= own ? height : whole(frame.height, width, frame.width);
    const Frame fitted = resize(frame, fitted_width, fitted_height, ResizeFilter::lanczos);
    Frame canvas(width, height);
    const int left = width / 2 - fitted_width / 2, top = height / 2 - fitted_height / 2;
    for (int row = 0; row < fitted_height; ++row) {
        const auto from =
            static_cast<std::size_t>(row) * static_cast<std::size_t>(fitted_width) * 3;
        const auto to = (static_cast<std::size_t>(row + top) * static_cast<std::size_t>(width) +
                         static_cast<std::size_t>(left)) *
                        3;
        std::copy_n(fitted.rgb.begin() + static_cast<std::ptrdiff_t>(from), fitted_width * 3,
                    canvas.rgb.begin() + static_cast<std::ptrdiff_t>(to));
    }
    return to_video_pixels(canvas);
}

at::Tensor to_mask(const Frame& frame, int height, int width) {
    const Frame sized = resize(frame, width, height, ResizeFilter::lanczos);
    at::Tensor mask = at::empty({height, width}, at::kFloat);
    auto* out = mask.mutable_data_ptr<float>();
    for (std::size_t i = 0; i < sized.rgb.size() / 3; ++i) {
        const std::uint32_t r = sized.rgb[3 * i], g = sized.rgb[3 * i + 1],
                            b = sized.rgb[3 * i + 2];
        // Pillow's conversion to grey: ITU-R 601-2 in 16 bits of fraction.
        out[i] = static_cast<float>((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) / 255.0F;
    }
    return mask;
}

}  // namespace zoetrope
