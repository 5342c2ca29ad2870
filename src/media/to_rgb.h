// Decoded pictures of any pixel format to upright 8-bit RGB. Inside media only.
//
// Keeps a scaler for the format that came last. One thread per object.
#pragma once

#include "base/frames.h"
#include "media/ffmpeg.h"

#include <array>
#include <cstdint>
#include <string_view>

namespace zoetrope::ffmpeg {

// How a stored picture becomes the shown one: x' = a x + c y, y' = b x + d y, entries -1, 0, 1.
struct Orientation {
    int a = 1;
    int b = 0;
    int c = 0;
    int d = 1;

    bool swaps_sides() const { return a == 0; }
    bool mirrored() const { return a * d - b * c < 0; }
    int rotation() const;  // degrees clockwise, after the mirroring

    friend bool operator==(const Orientation&, const Orientation&) = default;
};

// Of a display matrix (9 numbers, 16.16 fixed point); angles between are rounded to quarters.
Orientation orientation_of_matrix(const std::int32_t* matrix);

// EXIF 2.3, tag 274: 1 to 8; others are upright.
Orientation orientation_of_exif(int value);

// The colour of a decoded picture with the gaps filled.
struct ColorSpace {
    AVColorSpace matrix = AVCOL_SPC_BT709;
    bool full_range = false;
    AVChromaLocation chroma = AVCHROMA_LOC_LEFT;

    friend bool operator==(const ColorSpace&, const ColorSpace&) = default;
};

// is_still: from a picture file, whose chroma lies between the pixels where it does not say.
ColorSpace color_space_of(const AVFrame& picture, bool is_still);

// "rgb", "bt601", "bt709", ...
std::string_view name_of_matrix(AVColorSpace matrix);

class RgbConverter {
public:
    // width, height: of the result, upright; a picture of another size is scaled to them.
    // Errors: unsupported for pixel formats and matrices that cannot be converted.
    Frame convert(const AVFrame& picture, const ColorSpace& color, const Orientation& orientation,
                  int width, int height);

private:
    void prepare(const AVFrame& picture, const ColorSpace& color, int width, int height);

    Scaler scaler_;
    std::array<int, 5> made_for_{};  // sizes in and out, pixel format
    ColorSpace color_;
    PictureHandle rgb_;  // as stored, rows padded as the scaler likes them
};

}  // namespace zoetrope::ffmpeg
