#include "media/fragments.h"

#include "base/error.h"
#include "media/container_file.h"
#include "media/formats.h"
#include "media/reader.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

using ffmpeg::check;

// Whether the frames of such a file can be encoded piece by piece.
bool joins_encoded(const VideoFormat& format) {
    return !format.muxer.empty() && format.muxer != "gif";
}

// A fragment's encoded pictures, one by one, in the order of decoding.
class PacketReader {
public:
    explicit PacketReader(const fs::path& file) : file_(file), packet_(ffmpeg::new_packet()) {
        ZT_CHECK(fs::is_regular_file(file), io, "the finished part '{}' is not there",
                 file.string());
        ffmpeg::Options options;
        options.set("ignore_editlist", "1");  // times are counted anew
        AVFormatContext* context = nullptr;
        check(avformat_open_input(&context, ("file:" + file.string()).c_str(), nullptr,
                                  options.get()),
              ErrorKind::io, doing());
        input_.reset(context);
        ZT_CHECK(input_->nb_streams == 1, io, "{}: it has {} streams, and one is wanted", doing(),
                 input_->nb_streams);
    }

    const AVCodecParameters& parameters() const { return *input_->streams[0]->codecpar; }

    // The next packet, good until the next call; null at the end.
    AVPacket* next() {
        av_packet_unref(packet_.get());
        const int result = av_read_frame(input_.get(), packet_.get());
        if (result == AVERROR_EOF) return nullptr;
        check(result, ErrorKind::io, doing());
        return packet_.get();
    }

    std::string doing() const { return "cannot read the finished part '" + file_.string() + "'"; }

private:
    fs::path file_;
    ffmpeg::InputContext input_;
    ffmpeg::PacketHandle packet_;
};

// Which frame of its fragment each packet is: containers round times, but keep their order.
std::vector<int> frames_of_packets(const Fragment& fragment) {
    PacketReader reader(fragment.file);
    std::vector<std::int64_t> times;
    while (const AVPacket* packet = reader.next()) {
        ZT_CHECK(packet->pts != AV_NOPTS_VALUE && (packet->flags & AV_PKT_FLAG_CORRUPT) == 0, io,
                 "{}: it is damaged at frame {}", reader.doing(), times.size());
        ZT_CHECK(!times.empty() || (packet->flags & AV_PKT_FLAG_KEY) != 0, io,
                 "{}: it does not begin with a key frame", reader.doing());
        times.push_back(packet->pts);
    }
    ZT_CHECK(static_cast<int>(times.size()) == fragment.frames, io,
             "{}: it has {} frames, and {} were written", reader.doing(), times.size(),
             fragment.frames);
    std::vector<int> order(times.size()), frames(times.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int a, int b) {
        return times[static_cast<std::size_t>(a)] < times[static_cast<std::size_t>(b)];
    });
    for (std::size_t i = 0; i < order.size(); ++i)
        frames[static_cast<std::size_t>(order[i])] = static_cast<int>(i);
    return frames;
}

// Whether pictures of one can be decoded with the parameters of the other.
bool alike(const AVCodecParameters& a, const AVCodecParameters& b) {
    return a.codec_id == b.codec_id && a.width == b.width && a.height == b.height &&
           a.extradata_size == b.extradata_size &&
           (a.extradata_size == 0 ||
            std::memcmp(a.extradata, b.extradata, static_cast<std::size_t>(a.extradata_size)) == 0);
}

// What the encoder of the fragments said, as far as their containers kept it.
ffmpeg::ParametersHandle parameters_of_whole(const AVCodecParameters& fragment) {
    ffmpeg::ParametersHandle whole = ffmpeg::new_parameters();
    check(avcodec_parameters_copy(whole.get(), &fragment), ErrorKind::out_of_memory, "FFmpeg");
#if LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(60, 31, 102)  // FFmpeg 6.1
    av_packet_side_data_free(&whole->coded_side_data, &whole->nb_coded_side_data);
#endif
    whole->codec_tag = 0;  // the container's own
    whole->bit_rate = 0;   // of one fragment alone
    whole->format = AV_PIX_FMT_YUV420P;
    whole->sample_aspect_ratio = {1, 1};
    whole->color_range = AVCOL_RANGE_MPEG;
    whole->color_space = AVCOL_SPC_BT709;
    whole->color_primaries = AVCOL_PRI_BT709;
    whole->color_trc = AVCOL_TRC_BT709;
    whole->chroma_location = AVCHROMA_LOC_LEFT;
    return whole;
}

std::vector<fs::path> join_encoded(const fs::path& target, std::span<const Fragment> fragments,
                                   const WriteOptions& options) {
    const ffmpeg::LogCapture log;
    std::vector<std::vector<int>> frames;
    int delay = 0;  // frames that are decoded before one that is shown earlier
    for (const Fragment& fragment : fragments) {
        frames.push_back(frames_of_packets(fragment));
        for (std::size_t i = 0; i < frames.back().size(); ++i)
            delay = std::max(delay, static_cast<int>(i) - frames.back()[i]);
    }
    ffmpeg::ContainerFile whole(target, video_format_of(target), options);
    ffmpeg::ParametersHandle first;
    int begin = 0;  // frame of the whole that the fragment begins with
    for (std::size_t index = 0; index < fragments.size(); ++index) {
        PacketReader reader(fragments[index].file);
        if (!first) {
            first = ffmpeg::new_parameters();
            check(avcodec_parameters_copy(first.get(), &reader.parameters()),
                  ErrorKind::out_of_memory, reader.doing());
            whole.begin(*parameters_of_whole(*first), ffmpeg::frame_rate(options.fps));
        }
        ZT_CHECK(alike(*first, reader.parameters()), io,
                 "{}: it does not go with '{}'; they are of different runs", reader.doing(),
                 fragments[0].file.string());
        for (std::size_t i = 0; i < frames[index].size(); ++i) {
            AVPacket* packet = reader.next();
            ZT_CHECK(packet != nullptr, io, "{}: it ends early", reader.doing());
            packet->pts = begin + frames[index][i];
            packet->dts = begin + static_cast<int>(i) - delay;
            packet->pos = -1;
            av_packet_free_side_data(packet);
            whole.write(*packet);
        }
        begin += fragments[index].frames;
    }
    return {whole.finish()};
}

std::vector<fs::path> join_decoded(const fs::path& target, std::span<const Fragment> fragments,
                                   const WriteOptions& options) {
    VideoWriter writer(target, options);
    for (const Fragment& fragment : fragments) {
        VideoReader reader(fragment.file);
        int frames = 0;
        for (; auto next = reader.read(); ++frames) writer.write(next->frame);
        ZT_CHECK(reader.damage().empty() && frames == fragment.frames, io,
                 "cannot read the finished part '{}': it has {} frames, and {} were written",
                 fragment.file.string(), frames, fragment.frames);
    }
    return writer.finish();
}

}  // namespace

fs::path fragment_file(const fs::path& folder, const fs::path& target, int index) {
    const VideoFormat& format = video_format_of(target);
    return folder / fmt::format("segment-{:04}{}", index,
                                joins_encoded(format) ? format.ending : lossless_format().ending);
}

VideoWriter fragment_writer(const fs::path& file, const fs::path& target,
                            const WriteOptions& options) {
    WriteOptions own = options;
    own.metadata.clear();
    own.audio.clear();
    own.lossless = !joins_encoded(video_format_of(target));
    if (own.lossless) own.crf = -1;
    return VideoWriter(file, own);
}

std::vector<fs::path> join_fragments(const fs::path& target, std::span<const Fragment> fragments,
                                     const WriteOptions& options) {
    ZT_CHECK(!fragments.empty(), bad_request, "cannot write '{}': there are no frames",
             target.string());
    return joins_encoded(video_format_of(target)) ? join_encoded(target, fragments, options)
                                                  : join_decoded(target, fragments, options);
}

}  // namespace zoetrope
