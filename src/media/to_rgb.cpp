#include "media/to_rgb.h"

extern "C" {
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
}

#include <cmath>
#include <cstdlib>

namespace zoetrope::ffmpeg {
namespace {

bool is_rgb(const AVPixFmtDescriptor& format) {
    return (format.flags & (AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL)) != 0;
}

bool is_jpeg_range(AVPixelFormat format) {
    switch (format) {
        case AV_PIX_FMT_YUVJ411P:
        case AV_PIX_FMT_YUVJ420P:
        case AV_PIX_FMT_YUVJ422P:
        case AV_PIX_FMT_YUVJ440P:
        case AV_PIX_FMT_YUVJ444P: return true;
        default: return false;
    }
}

// The coefficients of swscale for a matrix. Errors: unsupported.
int scaler_matrix(AVColorSpace matrix) {
    switch (matrix) {
        case AVCOL_SPC_BT709: return SWS_CS_ITU709;
        case AVCOL_SPC_RGB:
        case AVCOL_SPC_BT470BG:
        case AVCOL_SPC_SMPTE170M: return SWS_CS_ITU601;
        case AVCOL_SPC_FCC: return SWS_CS_FCC;
        case AVCOL_SPC_SMPTE240M: return SWS_CS_SMPTE240M;
        case AVCOL_SPC_BT2020_NCL:
        case AVCOL_SPC_BT2020_CL: return SWS_CS_BT2020;
        default: {
            const char* name = av_color_space_name(matrix);
            fail(ErrorKind::unsupported,
                 "the colour matrix '{}' cannot be converted to RGB; convert the file to BT.709",
                 name != nullptr ? name : "unknown");
        }
    }
}

}  // namespace

int Orientation::rotation() const {
    // Undo the mirroring (x negated first), then see where "right" points.
    const int right_x = mirrored() ? -a : a;
    const int right_y = mirrored() ? -b : b;
    if (right_x == 1) return 0;
    if (right_y == 1) return 90;
    return right_x == -1 ? 180 : 270;
}

Orientation orientation_of_matrix(const std::int32_t* matrix) {
    const double a = matrix[0];
    const double b = matrix[1];
    const double c = matrix[3];
    const double d = matrix[4];
    const auto sign = [](double value) { return value < 0 ? -1 : 1; };
    if (a * d - b * c == 0) return {};  // no orientation at all: broken
    if (std::abs(a) + std::abs(d) >= std::abs(b) + std::abs(c)) {
        return {.a = sign(a), .b = 0, .c = 0, .d = sign(d)};
    }
    return {.a = 0, .b = sign(b), .c = sign(c), .d = 0};
}

Orientation orientation_of_exif(int value) {
    switch (value) {
        case 2: return {.a = -1, .b = 0, .c = 0, .d = 1};
        case 3: return {.a = -1, .b = 0, .c = 0, .d = -1};
        case 4: return {.a = 1, .b = 0, .c = 0, .d = -1};
        case 5: return {.a = 0, .b = 1, .c = 1, .d = 0};
        case 6: return {.a = 0, .b = 1, .c = -1, .d = 0};
        case 7: return {.a = 0, .b = -1, .c = -1, .d = 0};
        case 8: return {.a = 0, .b = -1, .c = 1, .d = 0};
        default: return {};
    }
}

ColorSpace color_space_of(const AVFrame& picture, bool is_still) {
    const auto pixel_format = static_cast<AVPixelFormat>(picture.format);
    const AVPixFmtDescriptor* format = av_pix_fmt_desc_get(pixel_format);
    ZT_CHECK(format != nullptr, unsupported, "the pixel format {} is not known", picture.format);
    ColorSpace color{
        .matrix = picture.colorspace,
        .full_range = picture.color_range == AVCOL_RANGE_JPEG || is_jpeg_range(pixel_format),
        .chroma = picture.chroma_location};
    if (is_rgb(*format)) return {.matrix = AVCOL_SPC_RGB, .full_range = true};
    if (color.matrix == AVCOL_SPC_UNSPECIFIED || color.matrix == AVCOL_SPC_RESERVED ||
        color.matrix == AVCOL_SPC_RGB) {
        // JPEG (JFIF) is BT.601 at any size. Above PAL's 576 lines a video is HD.
        const bool hd = picture.width >= 1280 || picture.height > 576;
        color.matrix = hd && !color.full_range ? AVCOL_SPC_BT709 : AVCOL_SPC_SMPTE170M;
    }
    if (color.chroma == AVCHROMA_LOC_UNSPECIFIED) {
        color.chroma = is_still ? AVCHROMA_LOC_CENTER : AVCHROMA_LOC_LEFT;
    }
    return color;
}

std::string_view name_of_matrix(AVColorSpace matrix) {
    if (matrix == AVCOL_SPC_RGB) return "rgb";
    switch (scaler_matrix(matrix)) {
        case SWS_CS_ITU709: return "bt709";
        case SWS_CS_FCC: return "fcc";
        case SWS_CS_SMPTE240M: return "smpte240m";
        case SWS_CS_BT2020: return "bt2020";
        default: return "bt601";
    }
}

// A scaler for this kind of picture; width and height are those of the result as stored.
void RgbConverter::prepare(const AVFrame& picture, const ColorSpace& color, int width, int height) {
    const std::array<int, 5> kind{picture.width, picture.height, width, height, picture.format};
    if (scaler_ && kind == made_for_ && color == color_) return;

    scaler_ = made(Scaler(sws_alloc_context()));
    const auto set = [this](const char* name, int value) {
        check(av_opt_set_int(scaler_.get(), name, value, 0), ErrorKind::internal, name);
    };
    set("srcw", picture.width);
    set("srch", picture.height);
    set("src_format", picture.format);
    set("dstw", width);
    set("dsth", height);
    set("dst_format", AV_PIX_FMT_RGB24);
    set("sws_flags", SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_BITEXACT);
    // Where a chroma sample lies within the luma pixels that it covers, in 1/256 of a pixel.
    constexpr int kMiddle = 128;
    const AVPixFmtDescriptor* format =
        av_pix_fmt_desc_get(static_cast<AVPixelFormat>(picture.format));
    const bool left = color.chroma == AVCHROMA_LOC_LEFT || color.chroma == AVCHROMA_LOC_TOPLEFT ||
                      color.chroma == AVCHROMA_LOC_BOTTOMLEFT;
    const bool top = color.chroma == AVCHROMA_LOC_TOPLEFT || color.chroma == AVCHROMA_LOC_TOP;
    if (format->log2_chroma_w == 1) set("src_h_chr_pos", left ? 0 : kMiddle);
    if (format->log2_chroma_h == 1) set("src_v_chr_pos", top ? 0 : kMiddle);
    check(sws_init_context(scaler_.get(), nullptr, nullptr), ErrorKind::unsupported,
          fmt::format("pictures in the pixel format {} cannot be converted to RGB", format->name));
    const int* coefficients = sws_getCoefficients(scaler_matrix(color.matrix));
    constexpr int kNeutral = 1 << 16;  // contrast and saturation
    sws_setColorspaceDetails(scaler_.get(), coefficients, color.full_range, coefficients, 1, 0,
                             kNeutral, kNeutral);

    rgb_ = new_picture();
    rgb_->width = width;
    rgb_->height = height;
    rgb_->format = AV_PIX_FMT_RGB24;
    check(av_frame_get_buffer(rgb_.get(), 0), ErrorKind::out_of_memory, "converting a picture");
    made_for_ = kind;
    color_ = color;
}

Frame RgbConverter::convert(const AVFrame& picture, const ColorSpace& color,
                            const Orientation& orientation, int width, int height) {
    const int stored_width = orientation.swaps_sides() ? height : width;
    const int stored_height = orientation.swaps_sides() ? width : height;
    prepare(picture, color, stored_width, stored_height);
    check(sws_scale(scaler_.get(), picture.data, picture.linesize, 0, picture.height, rgb_->data,
                    rgb_->linesize),
          ErrorKind::internal, "converting a picture to RGB");

    Frame frame(width, height);
    const Orientation& o = orientation;
    // Where the stored picture's first pixel lands, and how far one step right or down moves there.
    const std::ptrdiff_t first_x = o.a + o.c < 0 ? width - 1 : 0;
    const std::ptrdiff_t first_y = o.b + o.d < 0 ? height - 1 : 0;
    const std::ptrdiff_t first = (first_y * width + first_x) * 3;
    const std::ptrdiff_t right = (static_cast<std::ptrdiff_t>(o.b) * width + o.a) * 3;
    const std::ptrdiff_t down = (static_cast<std::ptrdiff_t>(o.d) * width + o.c) * 3;
    for (std::ptrdiff_t y = 0; y < stored_height; ++y) {
        const std::uint8_t* from = rgb_->data[0] + y * rgb_->linesize[0];
        std::uint8_t* to = frame.rgb.data() + first + y * down;
        for (int x = 0; x < stored_width; ++x, from += 3) {
            std::uint8_t* pixel = to + x * right;
            pixel[0] = from[0];
            pixel[1] = from[1];
            pixel[2] = from[2];
        }
    }
    return frame;
}

}  // namespace zoetrope::ffmpeg
