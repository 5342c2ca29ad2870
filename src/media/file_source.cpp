// Frames out of one file through libavformat and libavcodec.
#include "base/error.h"
#include "media/ffmpeg.h"
#include "media/frame_source.h"
#include "media/input_bytes.h"
#include "media/png_text.h"
#include "media/to_rgb.h"

extern "C" {
#include <libavutil/pixdesc.h>
}

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string_view>
#include <utility>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

using ffmpeg::check;
using ffmpeg::LogCapture;

// 8K twice over; beyond it a file is more likely a trap than a picture.
constexpr std::int64_t kMaxPixels = std::int64_t{1} << 28;

constexpr const char* kCut = "the file is cut off";

// The display matrix of a stream; null where it has none.
const std::int32_t* display_matrix(const AVStream& stream) {
#if LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(60, 31, 102)  // FFmpeg 6.1
    const AVCodecParameters& parameters = *stream.codecpar;
    const AVPacketSideData* data = av_packet_side_data_get(
        parameters.coded_side_data, parameters.nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX);
    const std::uint8_t* bytes = data == nullptr ? nullptr : data->data;
#else
    const std::uint8_t* bytes =
        av_stream_get_side_data(&stream, AV_PKT_DATA_DISPLAYMATRIX, nullptr);
#endif
    return reinterpret_cast<const std::int32_t*>(bytes);
}

// Whether the end mark is there, which the decoder does not miss (GIF89a specification, section
// 27).
bool has_gif_end(const ffmpeg::InputBytes& bytes) {
    constexpr int kGifTrailer = 0x3B;
    return bytes.last_byte() == kGifTrailer;
}

// Whether a JPEG picture has the end mark behind its last scan (ITU-T T.81, annex B); FFmpeg fills
// what is missing with grey and says nothing.
bool has_jpeg_end(const AVPacket& packet) {
    constexpr std::string_view kScan = "\xFF\xDA";
    constexpr std::string_view kEnd = "\xFF\xD9";
    const std::string_view bytes(reinterpret_cast<const char*>(packet.data),
                                 static_cast<std::size_t>(packet.size));
    const std::size_t scan = bytes.rfind(kScan);
    return scan != std::string_view::npos && bytes.find(kEnd, scan) != std::string_view::npos;
}

std::string lower_case(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text;
}

void add_metadata(const AVDictionary* from, std::map<std::string, std::string>& to) {
    const AVDictionaryEntry* entry = nullptr;
    while ((entry = av_dict_get(from, "", entry, AV_DICT_IGNORE_SUFFIX)) != nullptr) {
        to.emplace(lower_case(entry->key), entry->value);
    }
}

class FileSource : public FrameSource {
public:
    FileSource(const fs::path& path, int threads);
    std::optional<TimedFrame> read() override;
    std::optional<double> skip() override;

private:
    bool next_picture();
    void open();
    void describe();
    bool decode();
    void feed();
    void stop(std::string why);
    void check_end();
    double fps() const;
    double seconds_of(const AVFrame& picture) const;
    // FFmpeg's readers of single pictures have such names.
    bool is_picture() const { return std::string_view(input_->iformat->name).ends_with("_pipe"); }
    std::string doing() const { return "cannot read '" + path_.string() + "'"; }

    fs::path path_;
    ffmpeg::InputBytes bytes_;
    int threads_;
    ffmpeg::InputContext input_;
    AVStream* stream_ = nullptr;
    ffmpeg::CodecContext decoder_;
    ffmpeg::PacketHandle packet_ = ffmpeg::new_packet();
    ffmpeg::PictureHandle picture_ = ffmpeg::new_picture();
    ffmpeg::RgbConverter converter_;
    ffmpeg::Orientation orientation_;
    bool picture_waits_ = false;  // picture_ is decoded and not yet given
    bool draining_ = false;       // the decoder was told that no more packets come
    double first_seconds_ = 0;
    double last_seconds_ = 0;
    std::int64_t given_ = 0;
    bool begun_ = false;  // a whole key frame went into the decoder
    std::string break_;   // why the file ends early
};

FileSource::FileSource(const fs::path& path, int threads)
    : path_(path), bytes_(path), threads_(threads) {
    const LogCapture log;
    open();
    picture_waits_ = decode();
    if (!picture_waits_) {
        const std::string why = break_.empty() ? LogCapture::text() : break_;
        fail(ErrorKind::io, "{}: no frame in it can be decoded{}{}", doing(),
             why.empty() ? "" : ": ", why);
    }
    describe();
}

void FileSource::open() {
    input_ = ffmpeg::open_input(bytes_, doing());

    const AVCodec* codec = nullptr;
    const int index = av_find_best_stream(input_.get(), AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
    ZT_CHECK(index != AVERROR_STREAM_NOT_FOUND, bad_request, "{}: there is no video in it",
             doing());
    check(index, ErrorKind::unsupported, doing() + ": this FFmpeg has no decoder for it");
    stream_ = input_->streams[index];
    for (unsigned i = 0; i < input_->nb_streams; ++i) {
        if (static_cast<int>(i) != index) input_->streams[i]->discard = AVDISCARD_ALL;
    }
    decoder_ = ffmpeg::made(ffmpeg::CodecContext(avcodec_alloc_context3(codec)));
    check(avcodec_parameters_to_context(decoder_.get(), stream_->codecpar),
          ErrorKind::out_of_memory, doing());
    decoder_->pkt_timebase = stream_->time_base;
    decoder_->thread_count = threads_;  // the frames do not depend on it
    decoder_->max_pixels = kMaxPixels;
    check(avcodec_open2(decoder_.get(), codec, nullptr), ErrorKind::unsupported, doing());
}

// Fills info_ from the headers and the first picture.
void FileSource::describe() {
    if (const std::int32_t* matrix = display_matrix(*stream_)) {
        orientation_ = ffmpeg::orientation_of_matrix(matrix);
    } else if (const AVFrameSideData* data =
                   av_frame_get_side_data(picture_.get(), AV_FRAME_DATA_DISPLAYMATRIX)) {
        orientation_ =
            ffmpeg::orientation_of_matrix(reinterpret_cast<const std::int32_t*>(data->data));
    } else if (const AVDictionaryEntry* exif =
                   av_dict_get(picture_->metadata, "Orientation", nullptr, 0)) {
        orientation_ = ffmpeg::orientation_of_exif(std::atoi(exif->value));
    }
    info_.rotation = orientation_.rotation();
    info_.mirrored = orientation_.mirrored();
    info_.width = orientation_.swaps_sides() ? picture_->height : picture_->width;
    info_.height = orientation_.swaps_sides() ? picture_->width : picture_->height;
    const AVRational aspect = av_guess_sample_aspect_ratio(input_.get(), stream_, picture_.get());
    if (aspect.num > 0 && aspect.den > 0) {
        info_.pixel_aspect = orientation_.swaps_sides() ? av_q2d(av_inv_q(aspect)) : av_q2d(aspect);
    }

    info_.container = input_->iformat->name;
    info_.codec = avcodec_get_name(stream_->codecpar->codec_id);
    const AVPixFmtDescriptor* format =
        av_pix_fmt_desc_get(static_cast<AVPixelFormat>(picture_->format));
    info_.pixel_format = format->name;
    info_.bits = format->comp[0].depth;
    const ffmpeg::ColorSpace color = ffmpeg::color_space_of(*picture_, is_picture());
    info_.matrix = ffmpeg::name_of_matrix(color.matrix);
    info_.full_range = color.full_range;
    add_metadata(input_->metadata, info_.metadata);
    add_metadata(stream_->metadata, info_.metadata);
    if (stream_->codecpar->codec_id == AV_CODEC_ID_PNG) {
        std::ifstream file(path_, std::ios::binary);
        const std::vector<std::uint8_t> content{std::istreambuf_iterator<char>(file), {}};
        info_.metadata.merge(png_text(content));
    }

    first_seconds_ = seconds_of(*picture_);
    if (is_picture()) {
        info_.frames = 1;
        return;
    }
    if (stream_->duration > 0) {
        info_.seconds = static_cast<double>(stream_->duration) * av_q2d(stream_->time_base);
    } else if (input_->duration > 0) {
        info_.seconds = static_cast<double>(input_->duration) / AV_TIME_BASE;
    }
    info_.fps = fps();
    info_.frames =
        stream_->nb_frames > 0 ? stream_->nb_frames : std::llround(info_.seconds * info_.fps);
}

// The average rate; 0 where nothing is known.
double FileSource::fps() const {
    const auto value = [](AVRational rate) {
        return rate.num > 0 && rate.den > 0 ? av_q2d(rate) : 0;
    };
    const double guess = value(stream_->r_frame_rate);
    double rate = value(stream_->avg_frame_rate);
    // Where times are rounded to milliseconds (Matroska), FFmpeg's guess of what was rounded is
    // better than the average, unless it is of another size (the rate varies). A GIF, with
    // hundredths, is taken to have a whole rate if it can be one.
    constexpr double kMilliseconds = 1e-3;
    constexpr double kHundredths = 1e-2;
    const double tick = av_q2d(stream_->time_base);
    if (tick >= kHundredths && stream_->nb_frames > 0 && info_.seconds > 0) {
        rate = static_cast<double>(stream_->nb_frames) / info_.seconds;
        const double rounding = 2 * tick / info_.seconds * rate;
        if (std::abs(std::round(rate) - rate) <= rounding) rate = std::round(rate);
    } else if (tick >= kMilliseconds && std::abs(guess - rate) < 0.01 * rate) {
        rate = guess;
    }
    if (rate <= 0) rate = guess;
    return rate > 0 ? value(ffmpeg::frame_rate(rate)) : 0;
}

double FileSource::seconds_of(const AVFrame& picture) const {
    if (picture.best_effort_timestamp != AV_NOPTS_VALUE) {
        return static_cast<double>(picture.best_effort_timestamp) * av_q2d(stream_->time_base) -
               first_seconds_;
    }
    return info_.fps > 0 ? static_cast<double>(given_) / info_.fps : 0;
}

// Remembers the first break; what the decoder still holds comes out after it.
void FileSource::stop(std::string why) {
    if (break_.empty()) break_ = std::move(why);
    if (!draining_) avcodec_send_packet(decoder_.get(), nullptr);
    draining_ = true;
}

// Gives the decoder the next packet of the video, or the end.
void FileSource::feed() {
    const LogCapture log;
    av_packet_unref(packet_.get());
    const int result = av_read_frame(input_.get(), packet_.get());
    if (result == AVERROR_EOF) {
        // Some demuxers only complain where others return an error.
        const std::string complaint = LogCapture::text();
        if (!complaint.empty()) return stop(complaint);
        if (stream_->codecpar->codec_id == AV_CODEC_ID_GIF && !has_gif_end(bytes_))
            return stop(kCut);
        avcodec_send_packet(decoder_.get(), nullptr);
        draining_ = true;
        return;
    }
    if (result == AVERROR(EAGAIN)) return;
    if (result < 0) return stop(ffmpeg::describe(result));
    if (packet_->stream_index != stream_->index) return;
    // A recording may begin in the middle of a picture: before the first whole one nothing is a
    // break.
    if ((packet_->flags & AV_PKT_FLAG_CORRUPT) != 0) {
        if (begun_) stop(kCut);
        return;
    }
    const int sent = avcodec_send_packet(decoder_.get(), packet_.get());
    if (sent < 0 && begun_) return stop(ffmpeg::describe(sent));
    begun_ = begun_ || (sent >= 0 && (packet_->flags & AV_PKT_FLAG_KEY) != 0);
    if (stream_->codecpar->codec_id == AV_CODEC_ID_MJPEG && is_picture() &&
        !has_jpeg_end(*packet_)) {
        stop(kCut);
    }
}

// Decodes the next picture into picture_; false at the end.
bool FileSource::decode() {
    while (true) {
        const int result = avcodec_receive_frame(decoder_.get(), picture_.get());
        if (result == AVERROR_EOF) return false;
        if (result == AVERROR(EAGAIN)) {
            feed();
            continue;
        }
        const bool begun = given_ > 0;
        if (result < 0) {
            const bool was_draining = draining_;
            if (begun) stop(ffmpeg::describe(result));
            if (was_draining) return false;
            continue;
        }
        const bool concealed =
            (picture_->flags & AV_FRAME_FLAG_CORRUPT) != 0 || picture_->decode_error_flags != 0;
        if (!concealed) return true;
        if (begun) {
            stop("a frame cannot be decoded");
            return false;
        }
    }
}

// Fills damage_ at the end. A file that was cut between two frames is only known by the length that
// its header gives.
void FileSource::check_end() {
    if (break_.empty() && info_.seconds > 0 && info_.fps > 0) {
        const bool own_duration = stream_->duration > 0 || input_->nb_streams == 1;
        const bool from_header = input_->duration_estimation_method != AVFMT_DURATION_FROM_BITRATE;
        constexpr double kSlackFrames = 4;  // headers round, and count the delay of B-frames
        const double missing = (info_.seconds - last_seconds_) * info_.fps - 1;
        if (own_duration && from_header && missing > kSlackFrames) {
            break_ = fmt::format("about {} frames are missing", std::llround(missing));
        }
    }
    if (!break_.empty()) {
        damage_ = fmt::format("'{}' ends early, after {} {}: {}", path_.string(), given_,
                              given_ == 1 ? "frame" : "frames", break_);
    }
}

// Moves on to the next picture; false at the end.
bool FileSource::next_picture() {
    if (!picture_waits_ && !decode()) {
        check_end();
        return false;
    }
    picture_waits_ = false;
    last_seconds_ = seconds_of(*picture_);
    ++given_;
    return true;
}

std::optional<TimedFrame> FileSource::read() {
    const LogCapture log;
    if (!next_picture()) return std::nullopt;
    return TimedFrame{converter_.convert(*picture_, ffmpeg::color_space_of(*picture_, is_picture()),
                                         orientation_, info_.width, info_.height),
                      last_seconds_};
}

std::optional<double> FileSource::skip() {
    if (given_ == 0) return FrameSource::skip();  // whether it can be converted is told at once
    const LogCapture log;
    return next_picture() ? std::optional(last_seconds_) : std::nullopt;
}

}  // namespace

std::unique_ptr<FrameSource> open_media_file(const fs::path& path, int threads) {
    if (is_webp_animation(path)) return open_webp_animation(path);
    return std::make_unique<FileSource>(path, threads);
}

}  // namespace zoetrope
