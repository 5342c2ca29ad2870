// The picture formats one by one, as decode_picture() takes them. Inside media only.
//
// Each gives the stored pixels as RGB and says how they are to be turned. Pure functions, any
// thread; errors as in picture.h.
#pragma once

#include "base/frames.h"
#include "media/picture.h"

#include <cstdint>
#include <span>
#include <string_view>

namespace zoetrope::picture {

struct File {
    std::span<const std::uint8_t> bytes;
    std::string_view name;  // for messages
    PictureLimits limits;
};

struct Stored {
    Frame frame;
    int orientation = 1;  // EXIF 2.3, tag 274; upright where it is none of 2 to 8
};

Stored decode_png(const File& file);
Stored decode_jpeg(const File& file);
Stored decode_webp(const File& file);
Stored decode_bmp(const File& file);
Stored decode_gif(const File& file);

// Errors: bad_request for more pixels than the file's limits, io for none.
void check_size(const File& file, std::int64_t width, std::int64_t height);

// The orientation that EXIF data (with or without "Exif\0\0" in front) and, where that says
// nothing, XMP text ask for; 1 where neither does.
int orientation_of(std::span<const std::uint8_t> exif, std::string_view xmp);

Frame upright(Frame stored, int orientation);

}  // namespace zoetrope::picture
