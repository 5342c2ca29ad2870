// The first frame of a GIF (CompuServe's specification, version 89a). A transparent pixel keeps its
// colour of the palette.
#include "base/error.h"
#include "media/picture_codecs.h"

#include <algorithm>
#include <array>
#include <vector>

namespace zoetrope::picture {
namespace {

using Color = std::array<std::uint8_t, 3>;

constexpr int kMostCodeBits = 12;
constexpr std::uint8_t kHasPalette = 0x80, kInterlaced = 0x40, kPaletteBits = 7;
constexpr std::uint8_t kExtension = 0x21, kImage = 0x2C, kGraphicControl = 0xF9;

class Gif {
public:
    explicit Gif(const File& file) : file_(file) {}

    Stored decode() {
        skip(6);  // "GIF89a"
        const int screen_width = word(), screen_height = word();
        const std::uint8_t flags = byte();
        skip(2);  // background, aspect
        read_palette(flags);
        find_image();
        const int left = word(), top = word(), width = word(), height = word();
        const std::uint8_t image_flags = byte();
        const int canvas_width = std::max(screen_width, left + width);
        const int canvas_height = std::max(screen_height, top + height);
        check_size(file_, canvas_width, canvas_height);
        check_size(file_, width, height);
        read_palette(image_flags);

        indices_.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(height),
                        outside_);
        read_indices();
        Stored stored{.frame = Frame(canvas_width, canvas_height)};
        paint_outside(stored.frame);
        const std::vector<int> rows = row_order(height, (image_flags & kInterlaced) != 0);
        for (int y = 0; y < height; ++y) {
            const std::size_t start = static_cast<std::size_t>(y) * static_cast<std::size_t>(width);
            std::uint8_t* out = pixel(stored.frame, left, top + rows[static_cast<std::size_t>(y)]);
            for (int x = 0; x < width; ++x) {
                out = std::copy_n(palette_[indices_[start + static_cast<std::size_t>(x)]].begin(),
                                  3, out);
            }
        }
        return stored;
    }

private:
    [[noreturn]] void fail_truncated() const {
        fail(ErrorKind::io, "the GIF '{}' is truncated", file_.name);
    }

    std::uint8_t byte() {
        if (at_ >= file_.bytes.size()) fail_truncated();
        return file_.bytes[at_++];
    }
    int word() {
        const int low = byte();
        return low | byte() << 8;
    }
    void skip(std::size_t count) {
        if (count > file_.bytes.size() - at_) fail_truncated();
        at_ += count;
    }

    // Without a palette the indices are grey values.
    void read_palette(std::uint8_t flags) {
        if ((flags & kHasPalette) == 0) return;
        const std::size_t colors = std::size_t{2} << (flags & kPaletteBits);
        palette_ = {};
        for (std::size_t i = 0; i < colors; ++i) palette_[i] = {byte(), byte(), byte()};
    }

    // Goes over the extensions in front of the first picture.
    void find_image() {
        for (std::uint8_t kind = byte(); kind != kImage; kind = byte()) {
            if (kind != kExtension) {
                ZT_CHECK(kind == 0, io, "the GIF '{}' has no picture", file_.name);
                continue;
            }
            const bool control = byte() == kGraphicControl;
            for (std::uint8_t size = byte(); size != 0; size = byte()) {
                const std::size_t block = at_;
                skip(size);
                if (control && size >= 4 && (file_.bytes[block] & 1) != 0) {
                    outside_ = file_.bytes[block + 3];
                }
            }
        }
    }

    // The next code of the picture's blocks; -1 at their end.
    int next_code(int bits) {
        while (bit_count_ < bits) {
            if (block_left_ == 0) {
                block_left_ = byte();
                if (block_left_ == 0) return -1;
            }
            buffer_ |= static_cast<std::uint32_t>(byte()) << bit_count_;
            bit_count_ += 8;
            --block_left_;
        }
        const auto code = static_cast<int>(buffer_ & ((1U << bits) - 1));
        buffer_ >>= bits;
        bit_count_ -= bits;
        return code;
    }

    // Lempel-Ziv-Welch: a code is a byte behind the string of an earlier code.
    void read_indices() {
        struct Entry {
            std::uint16_t before = 0;
            std::uint8_t last = 0, first = 0;
        };
        const int data_bits = byte();
        ZT_CHECK(data_bits >= 1 && data_bits <= 8, io, "the GIF '{}' is broken: codes of {} bits",
                 file_.name, data_bits);
        const int clear = 1 << data_bits, end = clear + 1;
        std::array<Entry, 1 << kMostCodeBits> entries{};
        for (int i = 0; i < clear; ++i) {
            const auto value = static_cast<std::uint8_t>(i);
            entries[static_cast<std::size_t>(i)] = {0, value, value};
        }
        std::array<std::uint8_t, 1 << kMostCodeBits> string{};
        int bits = data_bits + 1, next = end + 1, previous = -1;
        std::size_t done = 0;
        while (done < indices_.size()) {
            const int code = next_code(bits);
            if (code == end || code < 0) return;  // what is missing stays as it was
            if (code == clear) {
                bits = data_bits + 1;
                next = end + 1;
                previous = -1;
                continue;
            }
            ZT_CHECK(code < next || (code == next && previous >= 0), io,
                     "the GIF '{}' is broken: a code that does not exist yet", file_.name);
            if (previous >= 0 && next < 1 << kMostCodeBits) {
                const Entry& before = entries[static_cast<std::size_t>(previous)];
                const std::uint8_t last =
                    code == next ? before.first : entries[static_cast<std::size_t>(code)].first;
                entries[static_cast<std::size_t>(next)] = {static_cast<std::uint16_t>(previous),
                                                           last, before.first};
                ++next;
                if (next == 1 << bits && bits < kMostCodeBits) ++bits;
            }
            std::size_t length = 0;
            int part = code;
            for (; part > end; part = entries[static_cast<std::size_t>(part)].before) {
                string[length++] = entries[static_cast<std::size_t>(part)].last;
            }
            string[length++] = static_cast<std::uint8_t>(part);
            const std::size_t fits = std::min(length, indices_.size() - done);
            std::reverse_copy(string.begin() + static_cast<std::ptrdiff_t>(length - fits),
                              string.begin() + static_cast<std::ptrdiff_t>(length),
                              indices_.begin() + static_cast<std::ptrdiff_t>(done));
            done += fits;
            previous = code;
        }
    }

    void paint_outside(Frame& frame) const {
        std::uint8_t* out = frame.rgb.data();
        for (std::size_t i = 0; i < frame.rgb.size() / 3; ++i) {
            out = std::copy_n(palette_[outside_].begin(), 3, out);
        }
    }

    static std::uint8_t* pixel(Frame& frame, int x, int y) {
        return frame.rgb.data() +
               3 * (static_cast<std::size_t>(y) * static_cast<std::size_t>(frame.width) +
                    static_cast<std::size_t>(x));
    }

    static std::vector<int> row_order(int height, bool interlaced) {
        struct Pass {
            int first, step;
        };
        constexpr std::array kPasses{Pass{0, 8}, Pass{4, 8}, Pass{2, 4}, Pass{1, 2}};
        std::vector<int> rows;
        for (const Pass& pass : kPasses) {
            const int step = interlaced ? pass.step : 1;
            for (int y = pass.first; y < height; y += step) rows.push_back(y);
            if (!interlaced) break;
        }
        return rows;
    }

    static std::array<Color, 256> grey_palette() {
        std::array<Color, 256> palette;
        for (std::size_t i = 0; i < palette.size(); ++i) {
            palette[i].fill(static_cast<std::uint8_t>(i));
        }
        return palette;
    }

    const File& file_;
    std::size_t at_ = 0;
    std::array<Color, 256> palette_ = grey_palette();
    std::uint8_t outside_ = 0;  // index of what no pixel is stored for
    std::vector<std::uint8_t> indices_;
    std::uint32_t buffer_ = 0;
    int bit_count_ = 0, block_left_ = 0;
};

}  // namespace

Stored decode_gif(const File& file) { return Gif(file).decode(); }

}  // namespace zoetrope::picture
