// Pictures as numbers: what Transformers' CLIPImageProcessor (its Pillow backend) and Diffusers'
// VideoProcessor do with 8-bit pixels, to the bit.
//
// Resizing belongs to media and lies between two calls: resize_size() says to what, to_pixels()
// takes the result. Plain values and pure functions, any thread. Errors: io for settings that make
// no sense, unsupported for those that are not built.
#pragma once

#include "base/frames.h"

#include <ATen/core/Tensor.h>

#include <nlohmann/json_fwd.hpp>

#include <array>
#include <cstdint>

namespace zoetrope {

struct PictureSize {
    int width = 0;
    int height = 0;

    friend bool operator==(const PictureSize&, const PictureSize&) = default;
};

// The defaults are CLIP's own, which Wan's models keep.
struct ClipPreprocess {
    bool resize = true;
    int shortest_edge = 224;  // keeps the aspect ratio; 0: exactly `exact_size`
    PictureSize exact_size;
    ResizeFilter filter = ResizeFilter::bicubic;
    bool center_crop = true;
    PictureSize crop{224, 224};         // filled up with zeros where the picture is smaller
    double rescale_factor = 1.0 / 255;  // 1: pixels stay 0 to 255
    std::array<double, 3> mean = {0.48145466, 0.4578275, 0.40821073};  // 0 and 1: as they are
    std::array<double, 3> deviation = {0.26862954, 0.26130258, 0.27577711};

    // From image_processor/preprocessor_config.json. Absent keys have CLIP's defaults.
    static ClipPreprocess from_json(const nlohmann::json& config);

    // The size that a picture is to be resized to, with `filter`.
    PictureSize resize_size(PictureSize picture) const;

    // The resized picture cropped and normalised -> [1, 3, height, width] fp32
    at::Tensor to_pixels(const Frame& resized) const;
};

// A picture of the video's size, resized with ResizeFilter::lanczos, for the VAE -> [3, H, W] fp32
// in [-1, 1]
at::Tensor to_video_pixels(const Frame& resized);

}  // namespace zoetrope
