// Finds a picture's format by its first bytes and turns what the decoder gives upright.
#include "base/error.h"
#include "media/picture.h"
#include "media/picture_codecs.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

namespace zoetrope {
namespace picture {
namespace {

struct Format {
    std::string_view start;
    std::string_view at_8;  // what follows eight bytes in; empty: anything
    Stored (*decode)(const File& file);
};

constexpr std::array kFormats{
    Format{"\x89PNG\r\n\x1a\n", "", decode_png},
    Format{"\xff\xd8\xff", "", decode_jpeg},
    Format{"RIFF", "WEBP", decode_webp},
    Format{"BM", "", decode_bmp},
    Format{"GIF87a", "", decode_gif},
    Format{"GIF89a", "", decode_gif},
};

const Format* format_of(std::span<const std::uint8_t> bytes) {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    for (const Format& format : kFormats) {
        if (!text.starts_with(format.start)) continue;
        if (format.at_8.empty()) return &format;
        if (text.size() >= 8 && text.substr(8).starts_with(format.at_8)) return &format;
    }
    return nullptr;
}

}  // namespace

void check_size(const File& file, std::int64_t width, std::int64_t height) {
    ZT_CHECK(width > 0 && height > 0, io, "'{}' says that its picture has {}x{} pixels", file.name,
             width, height);
    ZT_CHECK(height <= file.limits.pixels / width, bad_request,
             "'{}' has {}x{} pixels: accepted are pictures of up to {} pixels", file.name, width,
             height, file.limits.pixels);
}

Frame upright(Frame stored, int orientation) {
    if (orientation < 2 || orientation > 8) return stored;
    const bool swaps = orientation >= 5;
    Frame out(swaps ? stored.height : stored.width, swaps ? stored.width : stored.height);
    const std::ptrdiff_t pixel = 3, row = pixel * stored.width;
    // Where the first pixel of the result lies in the stored picture, and how far the next one to
    // the right and the next one below are.
    const bool from_right =
        orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool from_bottom =
        orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    const std::ptrdiff_t along = from_right ? -pixel : pixel, down = from_bottom ? -row : row;
    const std::ptrdiff_t right = swaps ? down : along, below = swaps ? along : down;
    const std::uint8_t* line = stored.rgb.data() + (from_right ? row - pixel : 0) +
                               (from_bottom ? row * (stored.height - 1) : 0);
    std::uint8_t* result = out.rgb.data();
    for (int y = 0; y < out.height; ++y) {
        std::ptrdiff_t offset = below * y;
        for (int x = 0; x < out.width; ++x, offset += right) {
            result = std::copy_n(line + offset, pixel, result);
        }
    }
    return out;
}

}  // namespace picture

std::optional<Frame> decode_picture(std::span<const std::uint8_t> file, std::string_view name,
                                    const PictureLimits& limits) {
    const picture::Format* format = picture::format_of(file);
    if (format == nullptr) return std::nullopt;
    picture::Stored stored = format->decode({file, name, limits});
    return picture::upright(std::move(stored.frame), stored.orientation);
}

}  // namespace zoetrope
