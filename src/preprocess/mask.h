// Masks of the person that is to be replaced: grown, made blocky, cut out of frames.
//
// Masks are 0 or 1 per pixel. Pure functions, any thread.
#pragma once

#include "base/frames.h"
#include "preprocess/skeleton.h"

#include <cstdint>
#include <vector>

namespace zoetrope::preprocess {

struct Mask {
    int width = 0;
    int height = 0;
    std::vector<std::uint8_t> inside;  // [height, width], 0 or 1

    Mask() = default;
    Mask(int w, int h)
        : width(w), height(h), inside(static_cast<std::size_t>(w) * static_cast<std::size_t>(h)) {}
};

// The outline on a picture of that size: inside where its alpha is at least one half.
Mask mask_of(const PersonMask& outline, int width, int height);

struct MaskOptions {
    int kernel = 7;      // pixels: side of the square by which the mask grows each time
    int iterations = 3;  // 0: the mask stays as it is, without blocks either
    int columns = 1;     // blocks into which the box around the mask is divided; 1: the whole box
    int rows = 1;
};

// Grown, then every block of the box around it that holds a part of it filled.
Mask augmented(const Mask& mask, const MaskOptions& options);

// The frame with black inside the mask; the mask as a white on black frame.
Frame blanked(const Frame& frame, const Mask& mask);
Frame frame_of(const Mask& mask);

}  // namespace zoetrope::preprocess
