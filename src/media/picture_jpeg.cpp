// JPEG by libjpeg-turbo, with its defaults (accurate integer transform, smooth chroma), which are
// Pillow's.
#include "base/error.h"
#include "media/picture_codecs.h"

#include <cstdio>  // jpeglib.h wants it in front

#include <jerror.h>
#include <jpeglib.h>

#include <array>
#include <csetjmp>
#include <string>
#include <vector>

namespace zoetrope::picture {
namespace {

// More than any encoder makes; each goes over the whole picture, however short it is.
constexpr int kMostScans = 500;

// What libjpeg works on. Its errors jump back to `jump` and leave their text here.
struct Reader {
    Reader();
    ~Reader() { jpeg_destroy_decompress(&jpeg); }
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    jpeg_decompress_struct jpeg{};
    jpeg_error_mgr errors{};
    jpeg_progress_mgr progress{};
    std::array<char, JMSG_LENGTH_MAX> message{};
    bool truncated = false;
    std::jmp_buf jump;
};

Reader& reader_of(j_common_ptr jpeg) { return *static_cast<Reader*>(jpeg->client_data); }

[[noreturn]] void on_error(j_common_ptr jpeg) {
    Reader& reader = reader_of(jpeg);
    jpeg->err->format_message(jpeg, reader.message.data());
    std::longjmp(reader.jump, 1);
}

// Damage is shown as grey or shifted blocks, as Pillow shows it, but for an end that is missing.
void on_message(j_common_ptr jpeg, int level) {
    if (level < 0 && jpeg->err->msg_code == JWRN_JPEG_EOF) reader_of(jpeg).truncated = true;
}

void on_progress(j_common_ptr jpeg) {
    const auto* decompress = reinterpret_cast<j_decompress_ptr>(jpeg);
    if (decompress->input_scan_number <= kMostScans) return;
    Reader& reader = reader_of(jpeg);
    std::snprintf(reader.message.data(), reader.message.size(), "it has more than %d scans",
                  kMostScans);
    std::longjmp(reader.jump, 1);
}

Reader::Reader() {
    jpeg.err = jpeg_std_error(&errors);
    errors.error_exit = on_error;
    errors.emit_message = on_message;
    progress.progress_monitor = on_progress;
    jpeg.client_data = this;
}

// These two hold nothing that a jump out of libjpeg would have to destroy. Each says whether it
// came to its end.

bool read_header(Reader& reader, std::span<const std::uint8_t> file) {
    if (setjmp(reader.jump) != 0) return false;
    constexpr unsigned kWholeMarker = 0xFFFF;
    jpeg_create_decompress(&reader.jpeg);
    reader.jpeg.progress = &reader.progress;
    jpeg_mem_src(&reader.jpeg, file.data(), file.size());
    jpeg_save_markers(&reader.jpeg, JPEG_APP0 + 1, kWholeMarker);
    jpeg_read_header(&reader.jpeg, TRUE);
    return true;
}

// rows: of as many bytes per pixel as the picture has components.
bool read_pixels(Reader& reader, JSAMPARRAY rows) {
    if (setjmp(reader.jump) != 0) return false;
    jpeg_decompress_struct& jpeg = reader.jpeg;
    jpeg.out_color_space = jpeg.num_components == 1   ? JCS_GRAYSCALE
                           : jpeg.num_components == 3 ? JCS_RGB
                                                      : JCS_CMYK;
    jpeg_start_decompress(&jpeg);
    while (jpeg.output_scanline < jpeg.output_height) {
        jpeg_read_scanlines(&jpeg, rows + jpeg.output_scanline,
                            jpeg.output_height - jpeg.output_scanline);
    }
    jpeg_finish_decompress(&jpeg);
    return true;
}

int orientation_in(const Reader& reader) {
    constexpr std::string_view kExif("Exif\0\0", 6);
    constexpr std::string_view kXmp("http://ns.adobe.com/xap/1.0/\0", 29);
    std::vector<std::uint8_t> exif;
    std::string_view xmp;
    for (const jpeg_marker_struct* marker = reader.jpeg.marker_list; marker != nullptr;
         marker = marker->next) {
        const std::string_view text(reinterpret_cast<const char*>(marker->data),
                                    marker->data_length);
        if (text.starts_with(kExif)) {  // one after the other, where there are several
            exif.insert(exif.end(), marker->data + kExif.size(),
                        marker->data + marker->data_length);
        } else if (text.starts_with(kXmp)) {
            xmp = text.substr(kXmp.size());
        }
    }
    return orientation_of(exif, xmp);
}

// white - ink white / 255, rounded as Pillow does.
std::uint8_t without_ink(int ink, int white) {
    const int product = ink * white + 128;
    return static_cast<std::uint8_t>(white - (((product >> 8) + product) >> 8));
}

void spread_grey(std::span<const std::uint8_t> grey, Frame& frame) {
    std::uint8_t* out = frame.rgb.data();
    for (const std::uint8_t value : grey) out = std::fill_n(out, 3, value);
}

// cmyk: inverted, as Adobe's programs write it and Pillow takes all of it to be.
void mix_inks(std::span<const std::uint8_t> cmyk, Frame& frame) {
    std::uint8_t* out = frame.rgb.data();
    for (std::size_t i = 0; i < cmyk.size(); i += 4) {
        for (std::size_t ink = 0; ink < 3; ++ink) {
            *out++ = without_ink(255 - cmyk[i + ink], cmyk[i + 3]);
        }
    }
}

}  // namespace

Stored decode_jpeg(const File& file) {
    Reader reader;
    const auto check = [&](bool done) {
        ZT_CHECK(done, io, "the JPEG '{}' is broken: {}", file.name, reader.message.data());
        ZT_CHECK(!reader.truncated, io, "the JPEG '{}' is truncated", file.name);
    };
    check(read_header(reader, file.bytes));
    const std::size_t width = reader.jpeg.image_width, height = reader.jpeg.image_height;
    const auto components = static_cast<std::size_t>(reader.jpeg.num_components);
    check_size(file, reader.jpeg.image_width, reader.jpeg.image_height);
    ZT_CHECK(components == 1 || components == 3 || components == 4, unsupported,
             "the JPEG '{}' has {} components: 1, 3 and 4 are read", file.name, components);

    Stored stored{.frame = Frame(static_cast<int>(width), static_cast<int>(height)),
                  .orientation = orientation_in(reader)};
    std::vector<std::uint8_t> other(components != 3 ? width * height * components : 0);
    std::uint8_t* pixels = components != 3 ? other.data() : stored.frame.rgb.data();
    std::vector<JSAMPROW> rows(height);
    for (std::size_t y = 0; y < height; ++y) rows[y] = pixels + y * width * components;
    check(read_pixels(reader, rows.data()));
    if (components == 1) spread_grey(other, stored.frame);
    if (components == 4) mix_inks(other, stored.frame);
    return stored;
}

}  // namespace zoetrope::picture
