// Picture files to 8-bit RGB, with the pixels that Pillow gives: opened, turned upright by the EXIF
// or XMP orientation, converted to RGB.
//
// PNG, JPEG, WebP, BMP and GIF (the first frame of an animation) are found by content, never by the
// name, and decoded by the libraries that Pillow itself uses, or here; every other format goes to
// FFmpeg, whose pixels may differ by a step. Alpha is dropped, colour profiles are not applied,
// both as Pillow does. Nothing in a file makes this crash or take more memory than its pixels ask
// for. Pure functions, any thread. Errors: not_found; io for a broken or truncated file;
// bad_request for more pixels than the limit; unsupported for kinds of a format that are not read.
#pragma once

#include "base/frames.h"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>

namespace zoetrope {

struct PictureLimits {
    std::int64_t pixels = 178'956'970;  // where Pillow suspects a decompression bomb
};

Frame load_picture(const std::filesystem::path& path, const PictureLimits& limits = {});

// The same of a file in memory, called `name` in messages; nothing where it is of another format
// than those named above.
std::optional<Frame> decode_picture(std::span<const std::uint8_t> file, std::string_view name,
                                    const PictureLimits& limits = {});

}  // namespace zoetrope
