// PNG by libpng. 16 bits per sample keep their upper byte; grey of 16 bits is refused.
#include "base/error.h"
#include "media/picture_codecs.h"
#include "media/png_chunks.h"

#include <png.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstring>
#include <string>
#include <vector>

namespace zoetrope::picture {
namespace {

constexpr png_uint_32 kMostTexts = 32;  // each may unpack to 8 MB, libpng's own limit

// What libpng works on. Its errors jump back to `jump` and leave their text here.
struct Reader {
    explicit Reader(std::span<const std::uint8_t> file);
    ~Reader() { png_destroy_read_struct(&png, &info, &end); }
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    png_structp png = nullptr;
    png_infop info = nullptr;
    png_infop end = nullptr;  // of the chunks behind the pixels
    std::span<const std::uint8_t> rest;
    std::array<char, 128> message{};
    std::jmp_buf jump;
};

[[noreturn]] void on_error(png_structp png, png_const_charp text) {
    auto& reader = *static_cast<Reader*>(png_get_error_ptr(png));
    std::strncpy(reader.message.data(), text, reader.message.size() - 1);
    std::longjmp(reader.jump, 1);
}

void on_warning(png_structp, png_const_charp) {}

void read_bytes(png_structp png, png_bytep out, std::size_t count) {
    auto& reader = *static_cast<Reader*>(png_get_io_ptr(png));
    if (count > reader.rest.size()) png_error(png, "the file is truncated");
    std::copy_n(reader.rest.begin(), count, out);
    reader.rest = reader.rest.subspan(count);
}

// The file up to a chunk that is longer than what is left of it: libpng would take the memory that
// it asks for before it reads. Pixels come piece by piece, as many as there are.
std::span<const std::uint8_t> whole_chunks(std::span<const std::uint8_t> file) {
    std::size_t position = kPngSignatureBytes;
    while (const auto chunk = png_chunk_at(file, position)) {
        if (!chunk->whole) return chunk->type == "IDAT" ? file : file.first(position);
        position = chunk->end;
    }
    return file;
}

Reader::Reader(std::span<const std::uint8_t> file) : rest(whole_chunks(file)) {
    png = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
    if (png != nullptr) {
        info = png_create_info_struct(png);
        end = png_create_info_struct(png);
    }
}

// These three hold nothing that a jump out of libpng would have to destroy. Each says whether it
// came to its end.

bool read_header(Reader& reader) {
    if (setjmp(reader.jump) != 0) return false;
    png_set_read_fn(reader.png, &reader, read_bytes);
    png_set_user_limits(reader.png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // check_size() decides
    png_set_chunk_cache_max(reader.png, kMostTexts);
    png_read_info(reader.png, reader.info);
    return true;
}

// rows: of RGB, or of a byte per pixel where the picture has a palette.
bool read_pixels(Reader& reader, png_bytepp rows) {
    if (setjmp(reader.jump) != 0) return false;
    const int color = png_get_color_type(reader.png, reader.info);
    png_set_strip_16(reader.png);
    png_set_strip_alpha(reader.png);
    if (color == PNG_COLOR_TYPE_PALETTE) {
        png_set_packing(reader.png);
    } else if ((color & PNG_COLOR_MASK_COLOR) == 0) {
        png_set_expand_gray_1_2_4_to_8(reader.png);
        png_set_gray_to_rgb(reader.png);
    }
    png_set_interlace_handling(reader.png);
    png_read_update_info(reader.png, reader.info);
    png_read_image(reader.png, rows);
    return true;
}

bool read_end(Reader& reader) {
    if (setjmp(reader.jump) != 0) return false;
    png_read_end(reader.png, reader.end);
    return true;
}

void apply_palette(const Reader& reader, const std::vector<std::uint8_t>& indices, Frame& frame) {
    png_colorp colors = nullptr;
    int count = 0;
    png_get_PLTE(reader.png, reader.info, &colors, &count);
    std::uint8_t* out = frame.rgb.data();
    for (const std::uint8_t index : indices) {
        const png_color color = index < count ? colors[index] : png_color{};
        out = std::copy_n(std::array{color.red, color.green, color.blue}.begin(), 3, out);
    }
}

// EXIF as older programs store it: a text of a line, a name, a length and hexadecimal digits.
std::vector<std::uint8_t> from_hex(std::string_view text) {
    for (int line = 0; line < 3; ++line) {
        const std::size_t end = text.find('\n');
        if (end == text.npos) return {};
        text.remove_prefix(end + 1);
    }
    std::vector<std::uint8_t> bytes;
    int high = -1;
    for (const char c : text) {
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0) continue;
        if (high >= 0) bytes.push_back(static_cast<std::uint8_t>(high << 4 | digit));
        high = high < 0 ? digit : -1;
    }
    return bytes;
}

int orientation_in(const Reader& reader) {
    std::vector<std::uint8_t> exif, raw_profile;
    std::string xmp;
    for (const png_infop info : {reader.info, reader.end}) {
        png_uint_32 bytes = 0;
        png_bytep data = nullptr;
        if (png_get_eXIf_1(reader.png, info, &bytes, &data) != 0) exif.assign(data, data + bytes);
        png_textp texts = nullptr;
        const int count = png_get_text(reader.png, info, &texts, nullptr);
        for (int i = 0; i < count; ++i) {
            const std::string_view key = texts[i].key;
            const std::size_t length = std::max(texts[i].text_length, texts[i].itxt_length);
            const std::string_view text(texts[i].text, texts[i].text != nullptr ? length : 0);
            if (key == "Raw profile type exif") raw_profile = from_hex(text);
            if (key == "XML:com.adobe.xmp") xmp = text;
        }
    }
    return orientation_of(exif.empty() ? raw_profile : exif, xmp);
}

}  // namespace

Stored decode_png(const File& file) {
    Reader reader(file.bytes);
    ZT_CHECK(reader.info != nullptr && reader.end != nullptr, out_of_memory,
             "no memory to read the PNG '{}'", file.name);
    const auto check = [&](bool done) {
        ZT_CHECK(done, io, "the PNG '{}' is broken: {}", file.name, reader.message.data());
    };
    check(read_header(reader));
    const png_uint_32 width = png_get_image_width(reader.png, reader.info);
    const png_uint_32 height = png_get_image_height(reader.png, reader.info);
    check_size(file, width, height);
    const int color = png_get_color_type(reader.png, reader.info);
    ZT_CHECK(color != PNG_COLOR_TYPE_GRAY || png_get_bit_depth(reader.png, reader.info) < 16,
             unsupported, "the PNG '{}' is grey with 16 bits: convert it to 8 bits", file.name);

    Stored stored{.frame = Frame(static_cast<int>(width), static_cast<int>(height))};
    const bool has_palette = color == PNG_COLOR_TYPE_PALETTE;
    std::vector<std::uint8_t> indices(has_palette ? std::size_t{width} * height : 0);
    std::uint8_t* pixels = has_palette ? indices.data() : stored.frame.rgb.data();
    std::vector<png_bytep> rows(height);
    for (png_uint_32 y = 0; y < height; ++y) {
        rows[y] = pixels + std::size_t{y} * width * (has_palette ? 1 : 3);
    }
    check(read_pixels(reader, rows.data()));
    if (has_palette) apply_palette(reader, indices, stored.frame);
    read_end(reader);  // the picture is whole, whatever comes behind it
    stored.orientation = orientation_in(reader);
    return stored;
}

}  // namespace zoetrope::picture
