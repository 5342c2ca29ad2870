// Sound that goes along with the frames, and frames that come back while they are written.
#include "media/reader.h"
#include "media_common.h"

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
}

#include <numbers>

namespace zoetrope::media_test {
namespace {

constexpr double kAmplitude = 0.5;

// A sine as a WAV file of 16 bits.
fs::path write_wav(const fs::path& path, double seconds, int rate, double hertz, int channels = 1) {
    const auto count = static_cast<std::uint32_t>(seconds * rate);
    const auto size = count * 2 * static_cast<std::uint32_t>(channels);
    std::ofstream file(path, std::ios::binary);
    const auto number = [&](std::uint32_t value, int bytes) {
        for (int i = 0; i < bytes; ++i) file.put(static_cast<char>(value >> (8 * i)));
    };
    file << "RIFF";
    number(36 + size, 4);
    file << "WAVEfmt ";
    number(16, 4);
    number(1, 2);
    number(static_cast<std::uint32_t>(channels), 2);
    number(static_cast<std::uint32_t>(rate), 4);
    number(static_cast<std::uint32_t>(rate * 2 * channels), 4);
    number(static_cast<std::uint32_t>(2 * channels), 2);
    number(16, 2);
    file << "data";
    number(size, 4);
    for (std::uint32_t i = 0; i < count; ++i) {
        const double wave = std::sin(2 * std::numbers::pi * hertz * i / rate);
        for (int c = 0; c < channels; ++c)
            number(static_cast<std::uint32_t>(std::lround(32767 * kAmplitude * wave)), 2);
    }
    return path;
}

struct Sound {
    std::string codec;  // empty: no sound
    int rate = 0;
    double start = 0;            // of the first sample, seconds
    std::vector<float> samples;  // of the first channel

    double seconds() const { return static_cast<double>(samples.size()) / rate; }
    // Over the middle half, where no encoder fades.
    double loudness() const {
        double sum = 0;
        for (std::size_t i = samples.size() / 4; i < samples.size() * 3 / 4; ++i)
            sum += samples[i] * samples[i];
        return std::sqrt(2 * sum / (static_cast<double>(samples.size()) / 2));
    }
    double hertz() const {
        int rises = 0;
        const std::size_t from = samples.size() / 4, to = samples.size() * 3 / 4;
        for (std::size_t i = from; i < to; ++i) rises += samples[i - 1] < 0 && samples[i] >= 0;
        return rises * static_cast<double>(rate) / static_cast<double>(to - from);
    }
};

Sound sound_of(const fs::path& path) {
    Sound sound;
    AVFormatContext* input = nullptr;
    EXPECT_GE(avformat_open_input(&input, path.c_str(), nullptr, nullptr), 0);
    EXPECT_GE(avformat_find_stream_info(input, nullptr), 0);
    const AVCodec* codec = nullptr;
    const int index = av_find_best_stream(input, AVMEDIA_TYPE_AUDIO, -1, -1, &codec, 0);
    if (index >= 0) {
        sound.codec = avcodec_get_name(codec->id);
        AVCodecContext* decoder = avcodec_alloc_context3(codec);
        avcodec_parameters_to_context(decoder, input->streams[index]->codecpar);
        decoder->pkt_timebase = input->streams[index]->time_base;
        EXPECT_GE(avcodec_open2(decoder, codec, nullptr), 0);
        sound.rate = decoder->sample_rate;
        AVPacket* packet = av_packet_alloc();
        AVFrame* frame = av_frame_alloc();
        bool more = true;
        while (more) {
            more = av_read_frame(input, packet) >= 0;
            if (more && packet->stream_index != index) {
                av_packet_unref(packet);
                continue;
            }
            avcodec_send_packet(decoder, more ? packet : nullptr);
            av_packet_unref(packet);
            while (avcodec_receive_frame(decoder, frame) >= 0) {
                EXPECT_EQ(frame->format, AV_SAMPLE_FMT_FLTP);
                if (sound.samples.empty())
                    sound.start =
                        static_cast<double>(frame->pts) * av_q2d(input->streams[index]->time_base);
                const auto* data = reinterpret_cast<const float*>(frame->extended_data[0]);
                sound.samples.insert(sound.samples.end(), data, data + frame->nb_samples);
            }
        }
        av_frame_free(&frame);
        av_packet_free(&packet);
        avcodec_free_context(&decoder);
    }
    avformat_close_input(&input);
    return sound;
}

constexpr int kFrames = 32;  // two seconds at 16 frames a second

TEST_F(Media, SoundIsEncodedForEachContainer) {
    const fs::path wav = write_wav(folder_ / "tone.wav", 5, 44100, 440);
    for (const auto& [name, codec, rate] : {std::tuple{"a.mp4", "aac", 44100},
                                            {"a.mov", "aac", 44100},
                                            {"a.mkv", "aac", 44100},
                                            {"a.webm", "opus", 48000}}) {
        SCOPED_TRACE(name);
        write_video(folder_ / name, wave_video(kFrames), {.audio = wav});
        const Sound sound = sound_of(folder_ / name);
        EXPECT_EQ(sound.codec, codec);
        EXPECT_EQ(sound.rate, rate);
        EXPECT_NEAR(sound.start, 0, 0.03);
        EXPECT_NEAR(sound.seconds(), 2, 0.03);
        EXPECT_NEAR(sound.hertz(), 440, 2);
        EXPECT_NEAR(sound.loudness(), kAmplitude, 0.05);
        // The pictures are those of a silent file, and begin at its beginning.
        const fs::path silent = folder_ / (std::string("silent-") + name);
        write_video(silent, wave_video(kFrames));
        VideoReader with(folder_ / name), without(silent);
        EXPECT_NEAR(with.info().fps, 16, 1e-6);
        while (auto frame = without.read()) {
            const auto same = with.read();
            ASSERT_TRUE(same);
            EXPECT_EQ(same->frame.rgb, frame->frame.rgb);
            EXPECT_NEAR(same->seconds, frame->seconds, 1e-6);
        }
        EXPECT_FALSE(with.read());
        EXPECT_EQ(with.damage(), "");
    }
}

TEST_F(Media, SoundIsCopiedWhereTheContainerTakesIt) {
    const fs::path wav = write_wav(folder_ / "tone.wav", 2, 48000, 1000, 2);
    const fs::path source = folder_ / "source.mp4";
    write_video(source, wave_video(kFrames), {.audio = wav});
    const Sound original = sound_of(source);
    for (const char* name : {"copy.mp4", "copy.mkv", "copy.mov"}) {
        SCOPED_TRACE(name);
        write_video(folder_ / name, wave_video(24), {.audio = source});
        const Sound copy = sound_of(folder_ / name);
        EXPECT_EQ(copy.codec, "aac");
        EXPECT_NEAR(copy.seconds(), 1.5, 0.05);
        // The same samples, from the first one or the first packet on; but for noise that the
        // decoder draws.
        const std::size_t shift = copy.start > 0.01 ? 1024 : 0;
        ASSERT_GT(copy.samples.size(), 48000U);
        for (std::size_t i = 4096; i < 48000; ++i)
            ASSERT_NEAR(copy.samples[i], original.samples[i + shift], 1e-4) << i;
    }
    write_video(folder_ / "new.webm", wave_video(24), {.audio = source});
    EXPECT_EQ(sound_of(folder_ / "new.webm").codec, "opus");
    EXPECT_NEAR(sound_of(folder_ / "new.webm").hertz(), 1000, 4);
}

TEST_F(Media, SoundEndsWithItsSource) {
    const fs::path wav = write_wav(folder_ / "tone.wav", 0.5, 22050, 440);
    write_video(folder_ / "a.mp4", wave_video(kFrames), {.audio = wav});
    const Sound sound = sound_of(folder_ / "a.mp4");
    EXPECT_EQ(sound.rate, 48000);
    EXPECT_NEAR(sound.seconds(), 0.5, 0.03);
    EXPECT_EQ(probe_media(folder_ / "a.mp4").frames, kFrames);
}

TEST_F(Media, SourcesWithoutSoundGiveSilentFiles) {
    write_video(folder_ / "silent.mp4", wave_video(4));
    std::ofstream(folder_ / "text.mp4") << "no sound at all";
    write_wav(folder_ / "tone.wav", 1, 48000, 440);
    for (const char* source : {"silent.mp4", "text.mp4", "none.mp4", "."}) {
        write_video(folder_ / "out.mp4", wave_video(4), {.audio = folder_ / source});
        EXPECT_EQ(sound_of(folder_ / "out.mp4").codec, "") << source;
    }
    for (const char* name : {"out.gif", "out.png"}) {
        write_video(folder_ / name, wave_video(2), {.audio = folder_ / "tone.wav"});
    }
    EXPECT_EQ(sound_of(folder_ / "out.gif").codec, "");
}

TEST_F(Media, SoundGivesTheSameBytesAgain) {
    const fs::path wav = write_wav(folder_ / "tone.wav", 3, 44100, 300, 2);
    for (const char* ending : {".mp4", ".webm"}) {
        write_video(folder_ / (std::string("a") + ending), wave_video(12), {.audio = wav});
        write_video(folder_ / (std::string("b") + ending), wave_video(12), {.audio = wav});
        EXPECT_EQ(bytes_of(folder_ / (std::string("a") + ending)),
                  bytes_of(folder_ / (std::string("b") + ending)));
    }
}

TEST_F(Media, FramesComeBackAsAReaderWillSeeThem) {
    for (const char* name : {"a.mp4", "a.mkv", "a.webm"}) {
        std::vector<Frame> echoed;
        write_video(folder_ / name, wave_video(50),
                    {.echo = [&](Frame frame) { echoed.push_back(std::move(frame)); }});
        ASSERT_EQ(echoed.size(), 50U) << name;
        VideoReader reader(folder_ / name);
        for (const Frame& frame : echoed) {
            const auto read = reader.read();
            ASSERT_TRUE(read);
            ASSERT_EQ(frame.rgb, read->frame.rgb) << name;
        }
    }
}

}  // namespace
}  // namespace zoetrope::media_test
