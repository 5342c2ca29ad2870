#include "media/container_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace zoetrope::ffmpeg {
namespace {

namespace fs = std::filesystem;

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

}  // namespace

ContainerFile::ContainerFile(const fs::path& target, const VideoFormat& format,
                             const WriteOptions& options)
    : format_(format), options_(options), folders_(target), file_(target) {}

ContainerFile::~ContainerFile() {
    // FFmpeg's GIF muxer frees the packet that it holds back nowhere else.
    const LogCapture log;
    if (trailer_due_ && format_.muxer == "gif") av_write_trailer(output_.get());
}

AVFormatContext& ContainerFile::output() {
    if (!output_) {
        AVFormatContext* context = nullptr;
        check(avformat_alloc_output_context2(&context, nullptr, std::string(format_.muxer).c_str(),
                                             ("file:" + file_.path().string()).c_str()),
              ErrorKind::unsupported, doing());
        output_.reset(context);
        output_->flags |= AVFMT_FLAG_BITEXACT;  // no version, no date
    }
    return *output_;
}

bool ContainerFile::wants_global_header() {
    return (output().oformat->flags & AVFMT_GLOBALHEADER) != 0;
}

void ContainerFile::begin(const AVCodecParameters& parameters, AVRational rate) {
    AVStream* stream = avformat_new_stream(&output(), nullptr);
    ZT_CHECK(stream != nullptr, out_of_memory, "FFmpeg could not allocate its buffers");
    check(avcodec_parameters_copy(stream->codecpar, &parameters), ErrorKind::out_of_memory,
          doing());
    frame_ = av_inv_q(rate);
    stream->time_base = frame_;
    stream->avg_frame_rate = rate;
    stream->sample_aspect_ratio = parameters.sample_aspect_ratio;
    if (!options_.audio.empty()) audio_.emplace(options_.audio, *output_);

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
    check(avio_open2(&output_->pb, output_->url, AVIO_FLAG_WRITE, nullptr, nullptr), ErrorKind::io,
          doing());
    check(avformat_write_header(output_.get(), muxer_options.get()), ErrorKind::io, doing());
    trailer_due_ = true;
}

void ContainerFile::write(AVPacket& packet) {
    AVStream* stream = output_->streams[0];
    // As far as the pictures have come; the muxer puts both in order.
    if (audio_) audio_->write_until(static_cast<double>(frames_) * av_q2d(frame_));
    ++frames_;
    packet.duration = 1;  // frame
    packet.stream_index = stream->index;
    av_packet_rescale_ts(&packet, frame_, stream->time_base);
    check(av_interleaved_write_frame(output_.get(), &packet), ErrorKind::io, doing());
}

fs::path ContainerFile::finish() {
    if (audio_) audio_->finish(static_cast<double>(frames_) * av_q2d(frame_));
    trailer_due_ = false;
    check(av_write_trailer(output_.get()), ErrorKind::io, doing());
    check(avio_closep(&output_->pb), ErrorKind::io, doing());
    if (const auto comment = options_.metadata.find("comment");
        format_.muxer == "gif" && comment != options_.metadata.end()) {
        append_gif_comment(file_.path(), comment->second);
    }
    file_.publish();
    sync_folder_of(file_.target());
    return file_.target();
}

}  // namespace zoetrope::ffmpeg
