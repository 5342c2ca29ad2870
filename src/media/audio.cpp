#include "media/audio.h"

#include "base/log.h"
#include "media/input_bytes.h"

extern "C" {
#include <libavutil/audio_fifo.h>
#include <libavutil/channel_layout.h>
#include <libswresample/swresample.h>
}

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>

namespace zoetrope::ffmpeg {

namespace fs = std::filesystem;

class AudioTrack::Work {
public:
    virtual ~Work() = default;
    // Writes what begins before `seconds`; last: and ends there.
    virtual void write(double seconds, bool last) = 0;
};

namespace {

struct FreeFifo {
    void operator()(AVAudioFifo* fifo) const { av_audio_fifo_free(fifo); }
};
using Resampler = std::unique_ptr<SwrContext, FreeByAddress<swr_free>>;
using Fifo = std::unique_ptr<AVAudioFifo, FreeFifo>;

// What a container's players understand, and what others are encoded as.
struct ContainerSound {
    std::string_view muxer;
    std::array<AVCodecID, 9> copied;
    const char* encoder;
    AVSampleFormat format;  // that the encoder takes
    std::int64_t bit_rate;  // of two channels
    bool early;  // whether it holds packets before time 0, which a decoder needs to begin with
};

constexpr std::array kContainers{
    ContainerSound{
        "mp4",
        {AV_CODEC_ID_AAC, AV_CODEC_ID_MP3, AV_CODEC_ID_AC3, AV_CODEC_ID_EAC3, AV_CODEC_ID_OPUS},
        "aac",
        AV_SAMPLE_FMT_FLTP,
        160'000,
        true},
    ContainerSound{"mov",
                   {AV_CODEC_ID_AAC, AV_CODEC_ID_MP3, AV_CODEC_ID_AC3, AV_CODEC_ID_ALAC},
                   "aac",
                   AV_SAMPLE_FMT_FLTP,
                   160'000,
                   true},
    ContainerSound{
        "matroska",
        {AV_CODEC_ID_AAC, AV_CODEC_ID_MP3, AV_CODEC_ID_AC3, AV_CODEC_ID_EAC3, AV_CODEC_ID_OPUS,
         AV_CODEC_ID_VORBIS, AV_CODEC_ID_FLAC, AV_CODEC_ID_DTS, AV_CODEC_ID_ALAC},
        "aac",
        AV_SAMPLE_FMT_FLTP,
        160'000,
        false},
    ContainerSound{"webm",
                   {AV_CODEC_ID_OPUS, AV_CODEC_ID_VORBIS},
                   "libopus",
                   AV_SAMPLE_FMT_FLT,
                   128'000,
                   false},
};

const ContainerSound* container_of(const AVFormatContext& output) {
    const auto found = std::find_if(
        kContainers.begin(), kContainers.end(),
        [&](const ContainerSound& container) { return container.muxer == output.oformat->name; });
    return found == kContainers.end() ? nullptr : &*found;
}

std::string doing(const fs::path& path) { return "the sound of '" + path.string() + "'"; }

// The audio packets of a file in their order, with times that begin with its pictures.
class PacketSource {
public:
    explicit PacketSource(const fs::path& path) : path_(path), bytes_(path) {
        input_ = open_input(bytes_, "it cannot be read");
        const int audio = av_find_best_stream(input_.get(), AVMEDIA_TYPE_AUDIO, -1, -1, nullptr, 0);
        if (audio < 0) return;
        stream_ = input_->streams[audio];
        for (unsigned i = 0; i < input_->nb_streams; ++i) {
            if (static_cast<int>(i) != audio) input_->streams[i]->discard = AVDISCARD_ALL;
        }
        const int video = av_find_best_stream(input_.get(), AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0);
        if (video < 0 || input_->streams[video]->start_time == AV_NOPTS_VALUE) return;
        start_ = av_rescale_q(input_->streams[video]->start_time, input_->streams[video]->time_base,
                              stream_->time_base);
    }

    const AVStream* stream() const { return stream_; }
    double seconds_of(std::int64_t time) const {
        return static_cast<double>(time) * av_q2d(stream_->time_base);
    }

    // The next packet, until the next call; null at the end or at a break.
    AVPacket* next() {
        while (true) {
            av_packet_unref(packet_.get());
            const int result = av_read_frame(input_.get(), packet_.get());
            if (result == AVERROR(EAGAIN)) continue;
            if (result < 0) {
                if (result != AVERROR_EOF)
                    log::warning("{} breaks off: {}", doing(path_), describe(result));
                return nullptr;
            }
            if (packet_->stream_index != stream_->index) continue;
            if (packet_->pts == AV_NOPTS_VALUE) packet_->pts = packet_->dts;
            if (packet_->pts == AV_NOPTS_VALUE) packet_->pts = behind_last_ + start_;
            packet_->pts -= start_;
            packet_->dts = packet_->pts;
            behind_last_ = packet_->pts + packet_->duration;
            return packet_.get();
        }
    }

private:
    fs::path path_;
    InputBytes bytes_;
    InputContext input_;
    AVStream* stream_ = nullptr;
    std::int64_t start_ = 0;  // of the pictures
    std::int64_t behind_last_ = 0;
    PacketHandle packet_ = new_packet();
};

AVStream* add_stream(AVFormatContext& output) {
    AVStream* stream = avformat_new_stream(&output, nullptr);
    ZT_CHECK(stream != nullptr, out_of_memory, "FFmpeg could not allocate its buffers");
    return stream;
}

void write_packet(AVFormatContext& output, AVPacket& packet) {
    check(av_interleaved_write_frame(&output, &packet), ErrorKind::io,
          "the sound cannot be written");
}

// The packets as they are.
class Copied : public AudioTrack::Work {
public:
    Copied(std::unique_ptr<PacketSource> source, AVFormatContext& output, bool early)
        : source_(std::move(source)), output_(output), early_(early), to_(add_stream(output)) {
        const AVStream* from = source_->stream();
        check(avcodec_parameters_copy(to_->codecpar, from->codecpar), ErrorKind::out_of_memory,
              "the sound cannot be copied");
        to_->codecpar->codec_tag = 0;  // that of the other container
        to_->time_base = from->time_base;
        waiting_ = source_->next();
    }

    void write(double seconds, bool last) override {
        const AVRational from = source_->stream()->time_base;
        while (waiting_ != nullptr && source_->seconds_of(waiting_->pts) < seconds) {
            // The packet before the first that is heard lets the decoder begin well.
            const std::int64_t before = early_ ? 2 * waiting_->duration : 1;
            if (waiting_->pts + before > 0) {
                const double length = seconds - source_->seconds_of(waiting_->pts);
                if (last && source_->seconds_of(waiting_->duration) > length) {
                    waiting_->duration =
                        std::max<std::int64_t>(1, std::llround(length / av_q2d(from)));
                }
                waiting_->stream_index = to_->index;
                waiting_->pos = -1;
                av_packet_rescale_ts(waiting_, from, to_->time_base);
                write_packet(output_, *waiting_);
            }
            waiting_ = source_->next();
        }
    }

private:
    std::unique_ptr<PacketSource> source_;
    AVFormatContext& output_;
    bool early_;
    AVStream* to_;
    AVPacket* waiting_ = nullptr;  // the next one; none at the end
};

// Decoded, resampled and encoded.
class Encoded : public AudioTrack::Work {
public:
    Encoded(std::unique_ptr<PacketSource> source, AVFormatContext& output,
            const ContainerSound& container)
        : source_(std::move(source)), output_(output), early_(container.early) {
        open_decoder();
        open_encoder(container);
        to_ = add_stream(output);
        check(avcodec_parameters_from_context(to_->codecpar, encoder_.get()),
              ErrorKind::out_of_memory, "the sound cannot be encoded");
        to_->time_base = encoder_->time_base;
    }

    void write(double seconds, bool last) override {
        const auto end = static_cast<std::int64_t>(std::llround(seconds * encoder_->sample_rate));
        while (!ended_ && written_ + waiting() < end) decode();
        const int frame = encoder_->frame_size > 0 ? encoder_->frame_size : 1024;
        while (waiting() >= frame && written_ + frame <= end) encode(frame);
        if (!last || flushed_) return;
        encode(static_cast<int>(std::min<std::int64_t>(waiting(), end - written_)));
        send(nullptr);
        flushed_ = true;
    }

private:
    void open_decoder() {
        const AVCodecParameters& parameters = *source_->stream()->codecpar;
        const AVCodec* codec = avcodec_find_decoder(parameters.codec_id);
        ZT_CHECK(codec != nullptr, unsupported, "this FFmpeg has no decoder for {}",
                 avcodec_get_name(parameters.codec_id));
        decoder_ = made(CodecContext(avcodec_alloc_context3(codec)));
        check(avcodec_parameters_to_context(decoder_.get(), &parameters), ErrorKind::out_of_memory,
              "the sound cannot be decoded");
        decoder_->pkt_timebase = source_->stream()->time_base;
        decoder_->thread_count = 1;
        check(avcodec_open2(decoder_.get(), codec, nullptr), ErrorKind::unsupported,
              "the sound cannot be decoded");
        if (decoder_->ch_layout.order == AV_CHANNEL_ORDER_UNSPEC)
            av_channel_layout_default(&decoder_->ch_layout, decoder_->ch_layout.nb_channels);
    }

    void open_encoder(const ContainerSound& container) {
        constexpr int kCommonRate = 48'000;  // Hz; Opus has no other
        const AVCodec* codec = avcodec_find_encoder_by_name(container.encoder);
        ZT_CHECK(codec != nullptr, unsupported, "this FFmpeg has no {} encoder", container.encoder);
        encoder_ = made(CodecContext(avcodec_alloc_context3(codec)));
        const int rate = decoder_->sample_rate;
        const bool kept = codec->id == AV_CODEC_ID_AAC && (rate == 32'000 || rate == 44'100);
        const int channels = std::min(std::max(decoder_->ch_layout.nb_channels, 1), 2);
        encoder_->sample_rate = kept ? rate : kCommonRate;
        encoder_->sample_fmt = container.format;
        av_channel_layout_default(&encoder_->ch_layout, channels);
        encoder_->bit_rate = container.bit_rate * channels / 2;
        encoder_->time_base = {1, encoder_->sample_rate};
        encoder_->thread_count = 1;
        encoder_->flags |= AV_CODEC_FLAG_BITEXACT;
        if ((output_.oformat->flags & AVFMT_GLOBALHEADER) != 0)
            encoder_->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
        check(avcodec_open2(encoder_.get(), codec, nullptr), ErrorKind::unsupported,
              "the sound cannot be encoded");
        SwrContext* resampler = nullptr;
        check(swr_alloc_set_opts2(&resampler, &encoder_->ch_layout, encoder_->sample_fmt,
                                  encoder_->sample_rate, &decoder_->ch_layout, decoder_->sample_fmt,
                                  rate, 0, nullptr),
              ErrorKind::unsupported, "the sound cannot be resampled");
        resampler_.reset(resampler);
        check(swr_init(resampler), ErrorKind::unsupported, "the sound cannot be resampled");
        samples_ = made(Fifo(av_audio_fifo_alloc(encoder_->sample_fmt, channels, 1)));
    }

    std::int64_t waiting() const { return av_audio_fifo_size(samples_.get()); }

    // The next decoded frame, or the end, goes through the resampler into samples_.
    void decode() {
        const int result = avcodec_receive_frame(decoder_.get(), frame_.get());
        if (result == AVERROR(EAGAIN)) {
            const AVPacket* packet = source_->next();
            avcodec_send_packet(decoder_.get(), packet);  // what is broken in it stays silent
            return;
        }
        ended_ = result == AVERROR_EOF;
        if (result < 0) {
            if (ended_) resample(nullptr, 0);
            return;
        }
        place(*frame_);
        resample(const_cast<const std::uint8_t**>(frame_->extended_data), frame_->nb_samples);
    }

    // What begins before the pictures is dropped; silence fills what is missing before a frame.
    void place(const AVFrame& frame) {
        if (frame.best_effort_timestamp == AV_NOPTS_VALUE) return;
        constexpr double kGap = 0.1;  // seconds: smaller ones are rounding
        const double begins = source_->seconds_of(frame.best_effort_timestamp);
        const double rate = decoder_->sample_rate;
        const bool first = std::exchange(first_, false);
        if (first && begins < 0) {
            dropped_ = std::llround(-begins * encoder_->sample_rate);
            placed_ = std::llround(begins * rate);
        }
        const double missing = begins - static_cast<double>(placed_) / rate;
        if (missing > (first ? 0 : kGap)) {
            const auto silent = static_cast<int>(std::llround(missing * rate));
            check(swr_inject_silence(resampler_.get(), silent), ErrorKind::out_of_memory,
                  "the sound cannot be resampled");
            placed_ += silent;
        }
        placed_ += frame.nb_samples;
    }

    void resample(const std::uint8_t** data, int count) {
        const int room = swr_get_out_samples(resampler_.get(), count);
        PictureHandle out = new_samples(std::max(room, 1));
        const int made_samples =
            check(swr_convert(resampler_.get(), out->extended_data, room, data, count),
                  ErrorKind::io, "the sound cannot be resampled");
        check(av_audio_fifo_write(samples_.get(), reinterpret_cast<void**>(out->extended_data),
                                  made_samples),
              ErrorKind::out_of_memory, "the sound cannot be resampled");
        const auto drop = std::min<std::int64_t>(dropped_, waiting());
        av_audio_fifo_drain(samples_.get(), static_cast<int>(drop));
        dropped_ -= drop;
    }

    PictureHandle new_samples(int count) const {
        PictureHandle samples = new_picture();
        samples->nb_samples = count;
        samples->format = encoder_->sample_fmt;
        samples->sample_rate = encoder_->sample_rate;
        check(av_channel_layout_copy(&samples->ch_layout, &encoder_->ch_layout),
              ErrorKind::out_of_memory, "the sound cannot be encoded");
        check(av_frame_get_buffer(samples.get(), 0), ErrorKind::out_of_memory,
              "the sound cannot be encoded");
        return samples;
    }

    void encode(int count) {
        if (count <= 0) return;
        const PictureHandle samples = new_samples(count);
        check(av_audio_fifo_read(samples_.get(), reinterpret_cast<void**>(samples->extended_data),
                                 count),
              ErrorKind::io, "the sound cannot be encoded");
        samples->pts = written_;
        written_ += count;
        send(samples.get());
    }

    void send(const AVFrame* samples) {
        check(avcodec_send_frame(encoder_.get(), samples), ErrorKind::io,
              "the sound cannot be encoded");
        while (true) {
            const int result = avcodec_receive_packet(encoder_.get(), packet_.get());
            if (result == AVERROR(EAGAIN) || result == AVERROR_EOF) return;
            check(result, ErrorKind::io, "the sound cannot be encoded");
            if (!early_ && packet_->pts < 0 && encoder_->codec_id == AV_CODEC_ID_AAC) continue;
            packet_->stream_index = to_->index;
            av_packet_rescale_ts(packet_.get(), encoder_->time_base, to_->time_base);
            write_packet(output_, *packet_);
        }
    }

    std::unique_ptr<PacketSource> source_;
    AVFormatContext& output_;
    bool early_;
    AVStream* to_ = nullptr;
    CodecContext decoder_, encoder_;
    Resampler resampler_;
    Fifo samples_;  // resampled, not yet encoded
    PictureHandle frame_ = new_picture();
    PacketHandle packet_ = new_packet();
    bool first_ = true;         // no frame was decoded yet
    std::int64_t placed_ = 0;   // where the next sample of the source belongs
    std::int64_t dropped_ = 0;  // resampled samples still to be dropped
    std::int64_t written_ = 0;  // samples that were encoded
    bool ended_ = false;
    bool flushed_ = false;
};

std::unique_ptr<AudioTrack::Work> make_work(const fs::path& path, AVFormatContext& output) {
    const ContainerSound* container = container_of(output);
    if (container == nullptr || fs::is_directory(path)) return nullptr;
    auto source = std::make_unique<PacketSource>(path);
    if (source->stream() == nullptr) return nullptr;
    const AVCodecParameters& codec = *source->stream()->codecpar;
    const auto& copied = container->copied;
    if (codec.codec_id != AV_CODEC_ID_NONE &&
        std::find(copied.begin(), copied.end(), codec.codec_id) != copied.end()) {
        return std::make_unique<Copied>(std::move(source), output, container->early);
    }
    return std::make_unique<Encoded>(std::move(source), output, *container);
}

}  // namespace

AudioTrack::AudioTrack(const fs::path& source, AVFormatContext& output) {
    const LogCapture capture;
    try {
        work_ = make_work(source, output);
    } catch (const Error& error) {
        log::warning("{} is left out: {}", doing(source), error.what());
    }
}

AudioTrack::~AudioTrack() = default;

void AudioTrack::write_until(double seconds) {
    const LogCapture capture;
    if (work_) work_->write(seconds, false);
}

void AudioTrack::finish(double seconds) {
    const LogCapture capture;
    if (work_) work_->write(seconds, true);
}

}  // namespace zoetrope::ffmpeg
