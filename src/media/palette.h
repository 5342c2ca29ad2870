// True colour to 255 colours, for GIF: a palette per scene and ordered dithering, frame by frame.
//
// A palette is kept as long as it fits the frames nearly as well as one of their own would, so that
// still parts of a video stay still and cost no bytes. Memory does not grow with the number of
// frames. Deterministic. One thread per object.
#pragma once

#include "base/frames.h"

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace zoetrope {

class PaletteQuantizer {
public:
    using Color = std::array<std::uint8_t, 3>;
    using Point = std::array<double, 3>;  // a colour between the 8-bit ones

    // The 256th entry of a GIF palette is left free for "transparent".
    static constexpr int kColors = 255;

    // Writes one index into palette() per pixel. indices: [height, stride], stride in bytes.
    void quantize(const Frame& frame, std::uint8_t* indices, std::ptrdiff_t stride);

    // kColors entries, unused ones black; those of the frame that was quantized last.
    std::span<const Color> palette() const { return palette_; }

private:
    struct Bin;

    static std::vector<Bin> histogram(const Frame& frame);
    static std::vector<Point> cut(const std::vector<Bin>& bins);
    static std::vector<Color> refine(const std::vector<Bin>& bins, std::vector<Point> centres);
    bool quantize_exactly(const Frame& frame, std::uint8_t* indices, std::ptrdiff_t stride);
    void take_palette(std::vector<Color> palette);
    int nearest(int r, int g, int b);

    std::vector<Color> palette_;
    int used_ = 0;                       // entries of palette_ that the next frame may keep
    int spread_ = 0;                     // of the dithering, in grey levels
    std::vector<std::int16_t> nearest_;  // nearest index per 6:6:6-bit colour; -1: not known yet
};

}  // namespace zoetrope
