// Frames into a container through libavcodec and libavformat.
#include "base/error.h"
#include "media/container_file.h"
#include "media/echo.h"
#include "media/frame_sink.h"
#include "media/palette.h"
#include "media/yuv.h"

#include <array>
#include <cstring>
#include <optional>
#include <utility>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

using ffmpeg::check;
using ffmpeg::LogCapture;

class ContainerSink : public FrameSink {
public:
    ContainerSink(const fs::path& path, const VideoFormat& format, const WriteOptions& options);
    void write(const Frame& frame) override;
    std::vector<fs::path> finish() override;

private:
    void open(int width, int height);
    void configure(int width, int height);
    void fill(const Frame& frame);
    void send(const AVFrame* picture);

    const VideoFormat& format_;
    WriteOptions options_;
    const AVCodec* codec_;
    ffmpeg::ContainerFile file_;
    ffmpeg::CodecContext encoder_;
    ffmpeg::PictureHandle picture_;
    ffmpeg::PacketHandle packet_;
    std::optional<ffmpeg::EchoDecoder> echo_;
    PaletteQuantizer quantizer_;  // GIF
};

const AVCodec* find_encoder(const fs::path& path, const VideoFormat& format) {
    const AVCodec* codec = avcodec_find_encoder_by_name(std::string(format.encoder).c_str());
    ZT_CHECK(codec != nullptr, unsupported,
             "cannot write '{}': this FFmpeg has no {} encoder; choose another ending of {}",
             path.string(), format.encoder, video_endings());
    return codec;
}

ContainerSink::ContainerSink(const fs::path& path, const VideoFormat& format,
                             const WriteOptions& options)
    : format_(format),
      options_(options),
      codec_(find_encoder(path, format)),
      file_(path, format_, options_) {}

// The encoder's settings.
void ContainerSink::configure(int width, int height) {
    const AVRational rate = ffmpeg::frame_rate(options_.fps);
    encoder_ = ffmpeg::made(ffmpeg::CodecContext(avcodec_alloc_context3(codec_)));
    encoder_->width = width;
    encoder_->height = height;
    encoder_->time_base = av_inv_q(rate);
    encoder_->framerate = rate;
    encoder_->sample_aspect_ratio = {1, 1};
    encoder_->thread_count = options_.threads;
    encoder_->flags |= AV_CODEC_FLAG_BITEXACT;  // no version, no date
    if (file_.wants_global_header()) encoder_->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    encoder_->pix_fmt = AV_PIX_FMT_PAL8;
    if (codec_->id == AV_CODEC_ID_GIF) return;
    encoder_->pix_fmt = AV_PIX_FMT_BGR0;
    if (codec_->id == AV_CODEC_ID_FFV1) return;
    encoder_->pix_fmt = AV_PIX_FMT_YUV420P;
    encoder_->color_range = AVCOL_RANGE_MPEG;
    encoder_->colorspace = AVCOL_SPC_BT709;
    encoder_->color_primaries = AVCOL_PRI_BT709;
    encoder_->color_trc = AVCOL_TRC_BT709;
    encoder_->chroma_sample_location = AVCHROMA_LOC_LEFT;
}

void ContainerSink::open(int width, int height) {
    configure(width, height);

    ffmpeg::Options codec_options;
    const int crf = options_.crf >= 0 ? options_.crf : format_.default_crf;
    if (crf >= 0) codec_options.set("crf", std::to_string(crf));
    if (codec_->id == AV_CODEC_ID_H264) {
        codec_options.set("preset", options_.quick ? "veryfast" : "medium");
        // With macroblock-tree rate control x264 gave other bytes for the same frames in one or two
        // runs of a hundred; without it in none of 450.
        codec_options.set("x264-params", "mbtree=0");
    }
    if (codec_->id == AV_CODEC_ID_VP9) {
        encoder_->bit_rate = 0;  // quality alone decides
        codec_options.set("deadline", "good");
        codec_options.set("cpu-used", "3");
        codec_options.set("row-mt", "1");
    }
    check(avcodec_open2(encoder_.get(), codec_, codec_options.get()), ErrorKind::unsupported,
          file_.doing() + fmt::format(" with {} at {}x{}", format_.encoder, width, height));

    const ffmpeg::ParametersHandle parameters = ffmpeg::new_parameters();
    check(avcodec_parameters_from_context(parameters.get(), encoder_.get()),
          ErrorKind::out_of_memory, file_.doing());
    file_.begin(*parameters, encoder_->framerate);
    if (options_.echo) echo_.emplace(*encoder_, options_.echo);

    packet_ = ffmpeg::new_packet();
    picture_ = ffmpeg::new_picture();
    picture_->width = width;
    picture_->height = height;
    picture_->format = encoder_->pix_fmt;
    picture_->color_range = encoder_->color_range;
    picture_->colorspace = encoder_->colorspace;
    picture_->color_primaries = encoder_->color_primaries;
    picture_->color_trc = encoder_->color_trc;
    picture_->chroma_location = encoder_->chroma_sample_location;
    picture_->sample_aspect_ratio = encoder_->sample_aspect_ratio;
    picture_->pts = -1;
    check(av_frame_get_buffer(picture_.get(), 0), ErrorKind::out_of_memory, file_.doing());
}

// Pixels of four bytes: blue, green, red and nothing. stride: bytes of a row
void rgb_to_bgr0(const Frame& frame, std::uint8_t* out, std::ptrdiff_t stride) {
    const std::uint8_t* in = frame.rgb.data();
    for (int y = 0; y < frame.height; ++y) {
        std::uint8_t* row = out + y * stride;
        for (int x = 0; x < frame.width; ++x, in += 3, row += 4) {
            row[0] = in[2];
            row[1] = in[1];
            row[2] = in[0];
            row[3] = 0;
        }
    }
}

// Converts a frame into picture_.
void ContainerSink::fill(const Frame& frame) {
    check(av_frame_make_writable(picture_.get()), ErrorKind::out_of_memory, file_.doing());
    if (encoder_->pix_fmt == AV_PIX_FMT_YUV420P) {
        rgb_to_yuv420(frame, {.y = picture_->data[0],
                              .cb = picture_->data[1],
                              .cr = picture_->data[2],
                              .y_stride = picture_->linesize[0],
                              .cb_stride = picture_->linesize[1],
                              .cr_stride = picture_->linesize[2]});
        return;
    }
    if (encoder_->pix_fmt == AV_PIX_FMT_BGR0) {
        rgb_to_bgr0(frame, picture_->data[0], picture_->linesize[0]);
        return;
    }
    quantizer_.quantize(frame, picture_->data[0], picture_->linesize[0]);
    std::array<std::uint32_t, 256> palette{};  // 0xAARRGGBB; the last entry is transparent
    constexpr std::uint32_t kOpaque = 0xFF000000;
    for (std::size_t i = 0; i < quantizer_.palette().size(); ++i) {
        const auto& color = quantizer_.palette()[i];
        palette[i] = kOpaque | static_cast<std::uint32_t>(color[0]) << 16 |
                     static_cast<std::uint32_t>(color[1]) << 8 | color[2];
    }
    std::memcpy(picture_->data[1], palette.data(), sizeof(palette));
}

// Encodes a picture, or what is still inside the encoder where it is null.
void ContainerSink::send(const AVFrame* picture) {
    check(avcodec_send_frame(encoder_.get(), picture), ErrorKind::io, file_.doing());
    while (true) {
        const int result = avcodec_receive_packet(encoder_.get(), packet_.get());
        if (result == AVERROR(EAGAIN) || result == AVERROR_EOF) return;
        check(result, ErrorKind::io, file_.doing());
        if (echo_) echo_->push(packet_.get());
        file_.write(*packet_);
    }
}

void ContainerSink::write(const Frame& frame) {
    const LogCapture log;
    if (!encoder_) open(frame.width, frame.height);
    fill(frame);
    ++picture_->pts;
    send(picture_.get());
}

std::vector<fs::path> ContainerSink::finish() {
    const LogCapture log;
    send(nullptr);
    if (echo_) echo_->push(nullptr);
    return {file_.finish()};
}

}  // namespace

std::unique_ptr<FrameSink> make_container_sink(const fs::path& path, const VideoFormat& format,
                                               const WriteOptions& options) {
    return std::make_unique<ContainerSink>(path, format, options);
}

}  // namespace zoetrope
