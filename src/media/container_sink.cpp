// Frames into a container through libavcodec and libavformat.
#include "base/error.h"
#include "base/partial_file.h"
#include "media/ffmpeg.h"
#include "media/frame_sink.h"
#include "media/palette.h"
#include "media/yuv.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <utility>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

using ffmpeg::check;
using ffmpeg::LogCapture;

struct FreeOutput {
    void operator()(AVFormatContext* output) const {
        if (output->pb != nullptr) avio_closep(&output->pb);
        avformat_free_context(output);
    }
};
using OutputContext = std::unique_ptr<AVFormatContext, FreeOutput>;

class Options {
public:
    ~Options() { av_dict_free(&dictionary_); }
    Options() = default;
    Options(const Options&) = delete;
    Options& operator=(const Options&) = delete;
    void set(const char* key, const std::string& value) {
        check(av_dict_set(&dictionary_, key, value.c_str(), 0), ErrorKind::out_of_memory, key);
    }
    AVDictionary** get() { return &dictionary_; }

private:
    AVDictionary* dictionary_ = nullptr;
};

// The keys that MP4 and QuickTime have atoms of their own for; others need the "mdta" table, which
// fewer players read.
bool is_standard_mp4_key(const std::string& key) {
    constexpr std::array kKeys{"title", "artist",    "album",       "comment",
                               "genre", "copyright", "description", "synopsis"};
    return std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end();
}

// FFmpeg's GIF muxer writes no comment: the extension (GIF89a specification, section 24) goes in
// front of the trailer, the last byte of the file.
void append_gif_comment(const fs::path& path, const std::string& comment) {
    constexpr char kTrailer = 0x3B;
    constexpr std::size_t kBlock = 255;
    std::string extension = "\x21\xFE";
    for (std::size_t at = 0; at < comment.size(); at += kBlock) {
        const std::string block = comment.substr(at, kBlock);
        extension += static_cast<char>(block.size());
        extension += block;
    }
    extension += '\0';
    extension += kTrailer;
    std::FILE* file = std::fopen(path.c_str(), "r+be");
    const bool opened = file != nullptr;
    const bool written =
        opened && std::fseek(file, -1, SEEK_END) == 0 && std::fgetc(file) == kTrailer &&
        std::fseek(file, -1, SEEK_END) == 0 &&
        std::fwrite(extension.data(), 1, extension.size(), file) == extension.size();
    const int reason = errno;
    const bool closed = opened && std::fclose(file) == 0;
    ZT_CHECK(written && closed, io, "cannot write the comment of a GIF: {}",
             std::strerror(written ? errno : reason));
}

class ContainerSink : public FrameSink {
public:
    ContainerSink(const fs::path& path, const VideoFormat& format, const WriteOptions& options);
    ~ContainerSink() override;
    void write(const Frame& frame) override;
    std::vector<fs::path> finish() override;

private:
    void open(int width, int height);
    void configure(int width, int height);
    void fill(const Frame& frame);
    void send(const AVFrame* picture);
    std::string doing() const { return "cannot write '" + file_.target().string() + "'"; }

    const VideoFormat& format_;
    WriteOptions options_;
    const AVCodec* codec_;
    ParentFolders folders_;  // outlives the file in it
    PartialFile file_;
    OutputContext output_;  // closed before the file is removed
    bool trailer_due_ = false;
    ffmpeg::CodecContext encoder_;
    ffmpeg::PictureHandle picture_;
    ffmpeg::PacketHandle packet_;
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
      folders_(path),
      file_(path) {}

ContainerSink::~ContainerSink() {
    // FFmpeg's GIF muxer frees the packet that it holds back nowhere else.
    const LogCapture log;
    if (trailer_due_ && format_.muxer == "gif") av_write_trailer(output_.get());
}

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
    if ((output_->oformat->flags & AVFMT_GLOBALHEADER) != 0) {
        encoder_->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    }
    encoder_->pix_fmt = AV_PIX_FMT_PAL8;
    if (codec_->id == AV_CODEC_ID_GIF) return;
    encoder_->pix_fmt = AV_PIX_FMT_YUV420P;
    encoder_->color_range = AVCOL_RANGE_MPEG;
    encoder_->colorspace = AVCOL_SPC_BT709;
    encoder_->color_primaries = AVCOL_PRI_BT709;
    encoder_->color_trc = AVCOL_TRC_BT709;
    encoder_->chroma_sample_location = AVCHROMA_LOC_LEFT;
}

void ContainerSink::open(int width, int height) {
    const std::string url = "file:" + file_.path().string();
    AVFormatContext* output = nullptr;
    check(avformat_alloc_output_context2(&output, nullptr, std::string(format_.muxer).c_str(),
                                         url.c_str()),
          ErrorKind::unsupported, doing());
    output_.reset(output);
    output_->flags |= AVFMT_FLAG_BITEXACT;  // no version, no date
    configure(width, height);

    Options codec_options;
    const int crf = options_.crf >= 0 ? options_.crf : format_.default_crf;
    if (crf >= 0) codec_options.set("crf", std::to_string(crf));
    if (codec_->id == AV_CODEC_ID_H264) {
        codec_options.set("preset", "medium");
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
          doing() + fmt::format(" with {} at {}x{}", format_.encoder, width, height));

    AVStream* stream = avformat_new_stream(output_.get(), nullptr);
    ZT_CHECK(stream != nullptr, out_of_memory, "FFmpeg could not allocate its buffers");
    check(avcodec_parameters_from_context(stream->codecpar, encoder_.get()),
          ErrorKind::out_of_memory, doing());
    stream->time_base = encoder_->time_base;
    stream->avg_frame_rate = encoder_->framerate;
    stream->sample_aspect_ratio = encoder_->sample_aspect_ratio;

    Options muxer_options;
    std::string flags = "+faststart";  // the index in front: players start while they load
    for (const auto& [key, text] : options_.metadata) {
        check(av_dict_set(&output_->metadata, key.c_str(), text.c_str(), 0),
              ErrorKind::out_of_memory, doing());
        if (!is_standard_mp4_key(key)) flags = "+faststart+use_metadata_tags";
    }
    if (format_.muxer == "mp4" || format_.muxer == "mov") muxer_options.set("movflags", flags);
    if (format_.muxer == "gif") {
        // Else the last frame would be shown as long as the one before, rounding and all.
        muxer_options.set("final_delay", std::to_string(std::lround(100 / options_.fps)));
    }
    check(avio_open2(&output_->pb, url.c_str(), AVIO_FLAG_WRITE, nullptr, nullptr), ErrorKind::io,
          doing());
    check(avformat_write_header(output_.get(), muxer_options.get()), ErrorKind::io, doing());

    trailer_due_ = true;

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
    check(av_frame_get_buffer(picture_.get(), 0), ErrorKind::out_of_memory, doing());
}

// Converts a frame into picture_.
void ContainerSink::fill(const Frame& frame) {
    check(av_frame_make_writable(picture_.get()), ErrorKind::out_of_memory, doing());
    if (encoder_->pix_fmt == AV_PIX_FMT_YUV420P) {
        rgb_to_yuv420(frame, {.y = picture_->data[0],
                              .cb = picture_->data[1],
                              .cr = picture_->data[2],
                              .y_stride = picture_->linesize[0],
                              .cb_stride = picture_->linesize[1],
                              .cr_stride = picture_->linesize[2]});
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
    check(avcodec_send_frame(encoder_.get(), picture), ErrorKind::io, doing());
    AVStream* stream = output_->streams[0];
    while (true) {
        const int result = avcodec_receive_packet(encoder_.get(), packet_.get());
        if (result == AVERROR(EAGAIN) || result == AVERROR_EOF) return;
        check(result, ErrorKind::io, doing());
        packet_->duration = 1;  // frame
        packet_->stream_index = stream->index;
        av_packet_rescale_ts(packet_.get(), encoder_->time_base, stream->time_base);
        check(av_interleaved_write_frame(output_.get(), packet_.get()), ErrorKind::io, doing());
    }
}

void ContainerSink::write(const Frame& frame) {
    const LogCapture log;
    if (!output_) open(frame.width, frame.height);
    fill(frame);
    ++picture_->pts;
    send(picture_.get());
}

std::vector<fs::path> ContainerSink::finish() {
    const LogCapture log;
    send(nullptr);
    trailer_due_ = false;
    check(av_write_trailer(output_.get()), ErrorKind::io, doing());
    check(avio_closep(&output_->pb), ErrorKind::io, doing());
    if (const auto comment = options_.metadata.find("comment");
        codec_->id == AV_CODEC_ID_GIF && comment != options_.metadata.end()) {
        append_gif_comment(file_.path(), comment->second);
    }
    file_.publish();
    sync_folder_of(file_.target());
    return {file_.target()};
}

}  // namespace

std::unique_ptr<FrameSink> make_container_sink(const fs::path& path, const VideoFormat& format,
                                               const WriteOptions& options) {
    return std::make_unique<ContainerSink>(path, format, options);
}

}  // namespace zoetrope
