// Lines, discs and convex polygons on a picture, pixel for pixel as OpenCV 4 draws them without
// anti-aliasing: the models were trained on pictures that it drew.
//
// Coordinates are whole pixels and may lie outside. Pure functions on the caller's picture.
#pragma once

#include "base/frames.h"

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace zoetrope::preprocess {

using Color = std::array<std::uint8_t, 3>;  // as the picture's channels

struct Pixel {
    std::int64_t x = 0;
    std::int64_t y = 0;

    friend bool operator==(const Pixel&, const Pixel&) = default;
};

void draw_line(Frame& picture, Pixel from, Pixel to, const Color& color, int thickness);
void fill_disc(Frame& picture, Pixel centre, int radius, const Color& color);
void fill_polygon(Frame& picture, std::span<const Pixel> corners, const Color& color);

// The outline of an ellipse in steps of one degree; `angle` in whole degrees, clockwise on the
// screen, is that of the axis whose half is half_width.
std::vector<Pixel> ellipse_outline(Pixel centre, int half_width, int half_height, int angle);

}  // namespace zoetrope::preprocess
