// Pictures sampled and resized as the preprocessing of Wan-Animate does it.
//
// Sizes are in pixels. resize_linear and resize_area follow OpenCV's INTER_LINEAR and INTER_AREA on
// 8-bit pictures. Pure functions, any thread. Errors: bad_request for a size that is not positive.
#pragma once

#include "base/frames.h"
#include "preprocess/skeleton.h"

#include <array>
#include <cstdint>
#include <span>

namespace zoetrope::preprocess {

Frame resize_linear(const Frame& picture, int width, int height);
Frame resize_area(const Frame& picture, int width, int height);

// Made to fit into width x height by the larger of the two shrinkages and centred on black.
enum class Resampling { linear, area };
Frame padded_resize(const Frame& picture, int width, int height,
                    Resampling resampling = Resampling::linear);

struct Size {
    int width = 0;
    int height = 0;

    friend bool operator==(const Size&, const Size&) = default;
};

// The picture's shape with that area, both sides cut to multiples of 16.
Size size_by_area(Size picture, std::int64_t area);

// padded_resize to size_by_area, averaging where that shrinks.
Frame resize_by_area(const Frame& picture, std::int64_t area);

// The part inside x0 <= x < x1, y0 <= y < y1, which must lie in the picture and not be empty.
Frame cropped(const Frame& picture, int x0, int y0, int x1, int y1);

// What a network sees: `region` of the picture, bilinearly, black outside. into: [height, width,
// 3], each value is low + (high - low) * v / 255.
struct SampleOptions {
    int width = 0;
    int height = 0;
    float low = 0;
    float high = 1;
};
void sample_region(const Frame& picture, const Region& region, const SampleOptions& options,
                   std::span<float> into);

}  // namespace zoetrope::preprocess
