// Windows bitmaps without compression: 1, 4 and 8 bits with a palette, 16, 24 and 32 bits. Field
// names and layout are those of Microsoft's BITMAPFILEHEADER and BITMAPV5HEADER.
#include "base/error.h"
#include "media/picture_codecs.h"

#include <algorithm>
#include <array>
#include <bit>
#include <vector>

namespace zoetrope::picture {
namespace {

using Color = std::array<std::uint8_t, 3>;  // red, green, blue

constexpr std::size_t kFileHeader = 14;
constexpr std::uint32_t kCoreHeader = 12;  // OS/2's, with sizes of 16 bits
constexpr std::uint32_t kPlain = 0, kBitFields = 3;

class Bmp {
public:
    explicit Bmp(const File& file) : file_(file) { read_header(); }

    Stored decode() const {
        Stored stored{.frame = Frame(width_, height_)};
        const std::size_t width = static_cast<std::size_t>(width_);
        const std::size_t row_bytes = (width * bits_ + 31) / 32 * 4;
        std::uint8_t* out = stored.frame.rgb.data();
        for (int y = 0; y < height_; ++y) {
            const auto stored_row = static_cast<std::size_t>(from_top_ ? y : height_ - 1 - y);
            const auto row = part(pixels_ + stored_row * row_bytes, row_bytes);
            for (std::size_t x = 0; x < width; ++x) {
                out = std::copy_n(color_of(row, x).begin(), 3, out);
            }
        }
        return stored;
    }

private:
    std::span<const std::uint8_t> part(std::size_t at, std::size_t size) const {
        ZT_CHECK(at <= file_.bytes.size() && size <= file_.bytes.size() - at, io,
                 "the BMP '{}' is truncated", file_.name);
        return file_.bytes.subspan(at, size);
    }

    std::uint32_t number(std::size_t at, std::size_t size) const {
        std::uint32_t value = 0;
        const auto bytes = part(at, size);
        for (std::size_t i = size; i-- > 0;) value = value << 8 | bytes[i];
        return value;
    }

    void read_header() {
        pixels_ = number(10, 4);
        const std::uint32_t size = number(kFileHeader, 4);
        const bool core = size == kCoreHeader;
        ZT_CHECK(core || (size >= 40 && size <= 124), unsupported,
                 "the BMP '{}' has a header of {} bytes: 12 and 40 to 124 are read", file_.name,
                 size);
        std::int64_t width = number(18, core ? 2 : 4),
                     height = number(core ? 20 : 22, core ? 2 : 4);
        bits_ = number(core ? 24 : 28, 2);
        const std::uint32_t compression = core ? kPlain : number(30, 4);
        if (!core && number(25, 1) == 0xFF) {  // a negative height
            from_top_ = true;
            height = (std::int64_t{1} << 32) - height;
        }
        check_size(file_, width, height);
        width_ = static_cast<int>(width);
        height_ = static_cast<int>(height);
        const std::array kBits{1U, 4U, 8U, 16U, 24U, 32U};
        ZT_CHECK(std::find(kBits.begin(), kBits.end(), bits_) != kBits.end(), unsupported,
                 "the BMP '{}' has {} bits per pixel: 1, 4, 8, 16, 24 and 32 are read", file_.name,
                 bits_);
        ZT_CHECK(compression == kPlain || compression == kBitFields, unsupported,
                 "the BMP '{}' is compressed (method {}): convert it to PNG", file_.name,
                 compression);
        if (bits_ <= 8) read_palette(kFileHeader + size, core ? 3 : 4, core ? 0 : number(46, 4));
        if (compression == kBitFields) {
            // Behind a header of 40 bytes, or its next fields: the same place.
            for (std::size_t i = 0; i < 3; ++i) masks_[i] = number(54 + 4 * i, 4);
            check_masks();
        } else if (bits_ == 16) {
            masks_ = {0x7C00, 0x3E0, 0x1F};
        }
    }

    void check_masks() {
        constexpr std::array<std::uint32_t, 3> kPlain24{0xFF0000, 0xFF00, 0xFF};
        if (bits_ == 32 && masks_ == std::array<std::uint32_t, 3>{}) masks_ = kPlain24;
        const bool bytes = bits_ >= 24 && std::all_of(masks_.begin(), masks_.end(), [](auto mask) {
                               const int shift = mask != 0 ? std::countr_zero(mask) : 1;
                               return shift % 8 == 0 && mask >> shift == 0xFF;
                           });
        const bool known16 = masks_ == std::array<std::uint32_t, 3>{0xF800, 0x7E0, 0x1F} ||
                             masks_ == std::array<std::uint32_t, 3>{0x7C00, 0x3E0, 0x1F};
        ZT_CHECK(bits_ == 16 ? known16 : bytes, unsupported,
                 "the BMP '{}' has the colour masks {:x}, {:x}, {:x} for {} bits, which are not "
                 "read: convert it to PNG",
                 file_.name, masks_[0], masks_[1], masks_[2], bits_);
    }

    void read_palette(std::size_t at, std::size_t entry, std::uint32_t colors) {
        if (colors == 0) colors = 1U << bits_;
        ZT_CHECK(colors <= 65536, io, "the BMP '{}' has a palette of {} colours", file_.name,
                 colors);
        if (pixels_ == at) pixels_ += entry * colors;  // written by programs that forget it
        const auto bytes = part(at, entry * colors);
        for (std::size_t i = 0; i < std::min<std::size_t>(colors, palette_.size()); ++i) {
            palette_[i] = {bytes[i * entry + 2], bytes[i * entry + 1], bytes[i * entry]};
        }
    }

    Color color_of(std::span<const std::uint8_t> row, std::size_t x) const {
        if (bits_ <= 8) {
            const std::size_t bit = x * bits_;
            const unsigned shift = 8 - bits_ - static_cast<unsigned>(bit % 8);
            return palette_[row[bit / 8] >> shift & ((1U << bits_) - 1)];
        }
        const std::size_t bytes = bits_ / 8;
        std::uint32_t pixel = 0;
        for (std::size_t i = bytes; i-- > 0;) pixel = pixel << 8 | row[x * bytes + i];
        Color color;
        for (std::size_t i = 0; i < 3; ++i) {
            const int shift = std::countr_zero(masks_[i]);
            const std::uint32_t most = masks_[i] >> shift;
            color[i] = static_cast<std::uint8_t>((pixel >> shift & most) * 255 / most);
        }
        return color;
    }

    const File& file_;
    std::size_t pixels_ = 0;  // where they begin
    int width_ = 0, height_ = 0;
    std::uint32_t bits_ = 0;
    bool from_top_ = false;
    std::array<std::uint32_t, 3> masks_{0xFF0000, 0xFF00, 0xFF};
    std::array<Color, 256> palette_{};
};

}  // namespace

Stored decode_bmp(const File& file) { return Bmp(file).decode(); }

}  // namespace zoetrope::picture
