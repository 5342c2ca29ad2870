// Frames into PNG files: one frame is one file, several are a numbered sequence.
#include "base/error.h"
#include "base/log.h"
#include "base/partial_file.h"
#include "media/ffmpeg.h"
#include "media/frame_sink.h"
#include "media/png_text.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <span>
#include <utility>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

using ffmpeg::check;

// "out.png", 7 -> "out_00007.png"
fs::path numbered(const fs::path& path, std::size_t number) {
    fs::path name = path.parent_path() / path.stem();
    name += fmt::format("_{:05}{}", number, path.extension().string());
    return name;
}

void write_bytes(const PartialFile& file, std::span<const std::uint8_t> bytes) {
    std::FILE* stream = std::fopen(file.path().c_str(), "wbe");
    const bool written =
        stream != nullptr && std::fwrite(bytes.data(), 1, bytes.size(), stream) == bytes.size();
    const int reason = errno;
    const bool closed = stream != nullptr && std::fclose(stream) == 0;
    ZT_CHECK(written && closed, io, "cannot write '{}': {}", file.target().string(),
             std::strerror(written ? errno : reason));
}

class PngSink : public FrameSink {
public:
    PngSink(const fs::path& path, const WriteOptions& options)
        : path_(path), metadata_(options.metadata), folders_(path) {
        files_.push_back(std::make_unique<PartialFile>(path));
    }

    void write(const Frame& frame) override {
        const ffmpeg::LogCapture log;
        // The first file is there since the constructor; which name it gets, finish() knows.
        if (frames_ > 0) {
            files_.push_back(std::make_unique<PartialFile>(numbered(path_, frames_)));
        }
        write_bytes(*files_.back(), with_png_text(encode(frame), metadata_));
        ++frames_;
    }

    std::vector<fs::path> finish() override {
        if (files_.size() > 1) files_.front()->rename_target(numbered(path_, 0));
        std::vector<fs::path> written;
        for (const auto& file : files_) {
            file->publish();
            written.push_back(file->target());
        }
        sync_folder_of(path_);
        if (files_.size() > 1 && fs::exists(numbered(path_, files_.size()))) {
            log::warning("'{}' is left from an older, longer sequence of pictures",
                         numbered(path_, files_.size()).string());
        }
        return written;
    }

private:
    std::span<const std::uint8_t> encode(const Frame& frame);

    fs::path path_;
    std::map<std::string, std::string> metadata_;
    ParentFolders folders_;  // outlives the files in it
    std::vector<std::unique_ptr<PartialFile>> files_;
    std::size_t frames_ = 0;
    ffmpeg::CodecContext encoder_;
    ffmpeg::PictureHandle picture_;
    ffmpeg::PacketHandle packet_;
};

// The bytes of a PNG file; valid until the next call.
std::span<const std::uint8_t> PngSink::encode(const Frame& frame) {
    const std::string doing = "cannot write '" + path_.string() + "'";
    if (!encoder_) {
        const AVCodec* codec = avcodec_find_encoder(AV_CODEC_ID_PNG);
        ZT_CHECK(codec != nullptr, unsupported, "{}: this FFmpeg has no PNG encoder", doing);
        encoder_ = ffmpeg::made(ffmpeg::CodecContext(avcodec_alloc_context3(codec)));
        encoder_->width = frame.width;
        encoder_->height = frame.height;
        encoder_->pix_fmt = AV_PIX_FMT_RGB24;
        encoder_->time_base = {1, 1};
        encoder_->thread_count = 1;
        encoder_->flags |= AV_CODEC_FLAG_BITEXACT;
        check(avcodec_open2(encoder_.get(), codec, nullptr), ErrorKind::unsupported, doing);
        packet_ = ffmpeg::new_packet();
        picture_ = ffmpeg::new_picture();
        picture_->width = frame.width;
        picture_->height = frame.height;
        picture_->format = encoder_->pix_fmt;
        check(av_frame_get_buffer(picture_.get(), 0), ErrorKind::out_of_memory, doing);
    }
    check(av_frame_make_writable(picture_.get()), ErrorKind::out_of_memory, doing);
    const std::size_t row = static_cast<std::size_t>(frame.width) * 3;
    for (int y = 0; y < frame.height; ++y) {
        std::memcpy(picture_->data[0] + static_cast<std::ptrdiff_t>(y) * picture_->linesize[0],
                    frame.rgb.data() + static_cast<std::size_t>(y) * row, row);
    }
    picture_->pts = static_cast<std::int64_t>(frames_);
    check(avcodec_send_frame(encoder_.get(), picture_.get()), ErrorKind::io, doing);
    av_packet_unref(packet_.get());
    check(avcodec_receive_packet(encoder_.get(), packet_.get()), ErrorKind::io, doing);
    return {packet_->data, static_cast<std::size_t>(packet_->size)};
}

}  // namespace

std::unique_ptr<FrameSink> make_png_sink(const fs::path& path, const WriteOptions& options) {
    return std::make_unique<PngSink>(path, options);
}

}  // namespace zoetrope
