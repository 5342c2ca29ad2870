// Pictures as 8-bit RGB, the form in which they enter and leave files.
//
// Plain values: a Frame owns its pixels; copies are deep. Nothing here is shared between threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace zoetrope {

struct Frame {
    int width = 0;
    int height = 0;
    std::vector<std::uint8_t> rgb;  // [height, width, 3], rows without padding

    Frame() = default;
    Frame(int w, int h)
        : width(w), height(h), rgb(static_cast<std::size_t>(w) * static_cast<std::size_t>(h) * 3) {}
};

// How a picture's new pixels are made of the old ones. In the order of Pillow's numbers, which
// saved configs hold.
enum class ResizeFilter { nearest, lanczos, bilinear, bicubic, box, hamming };

}  // namespace zoetrope
