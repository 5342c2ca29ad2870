// Videos made of fragments: nothing lost at the joins, times that go through, the same bytes.
#include "media_common.h"

#include "base/partial_file.h"
#include "media/ffmpeg.h"
#include "media/fragments.h"
#include "media/reader.h"

#include <sys/wait.h>

namespace zoetrope {
namespace {

using namespace media_test;
using testing::HasSubstr;

const std::vector<int> kLengths{5, 12, 1, 30};

class Fragments : public Media {
protected:
    // Frames [begin, begin + count) of waves as fragment `index` of `target`.
    Fragment write(const fs::path& target, int index, int begin, int count,
                   const WriteOptions& options = {}) {
        const fs::path file = fragment_file(folder_ / "parts", target, index);
        VideoWriter writer = fragment_writer(file, target, options);
        for (int i = 0; i < count; ++i) writer.write(waves(kWidth, kHeight, begin + i));
        writer.finish();
        return {file, count};
    }

    std::vector<Fragment> write_all(const fs::path& target, const WriteOptions& options = {}) {
        std::vector<Fragment> fragments;
        int begin = 0;
        for (const int length : kLengths) {
            fragments.push_back(
                write(target, static_cast<int>(fragments.size()), begin, length, options));
            begin += length;
        }
        return fragments;
    }
};

std::vector<TimedFrame> frames_of(const fs::path& path) {
    std::vector<TimedFrame> frames;
    VideoReader reader(path);
    while (auto frame = reader.read()) frames.push_back(std::move(*frame));
    EXPECT_EQ(reader.damage(), "");
    return frames;
}

struct Times {
    std::vector<double> shown, decoded;  // in frames
    std::vector<bool> key;
};

Times times_of(const fs::path& path, double fps) {
    AVFormatContext* context = nullptr;
    EXPECT_EQ(avformat_open_input(&context, path.c_str(), nullptr, nullptr), 0);
    const ffmpeg::InputContext input(context);
    EXPECT_GE(avformat_find_stream_info(context, nullptr), 0);
    const double unit = av_q2d(context->streams[0]->time_base) * fps;
    const ffmpeg::PacketHandle packet = ffmpeg::new_packet();
    Times times;
    for (; av_read_frame(context, packet.get()) == 0; av_packet_unref(packet.get())) {
        times.shown.push_back(static_cast<double>(packet->pts) * unit);
        times.decoded.push_back(packet->dts == AV_NOPTS_VALUE
                                    ? std::nan("")  // Matroska stores none
                                    : static_cast<double>(packet->dts) * unit);
        times.key.push_back((packet->flags & AV_PKT_FLAG_KEY) != 0);
    }
    return times;
}

TEST_F(Fragments, JoinedVideoHasEveryFrameOfItsPartsAtItsTime) {
    const WriteOptions options{.fps = 12.5, .metadata = {{"comment", "{\"seed\": 7}"}}};
    for (const char* name : {"a.mp4", "a.mov", "a.mkv", "a.webm"}) {
        SCOPED_TRACE(name);
        const fs::path target = folder_ / name;
        const auto fragments = write_all(target, options);
        EXPECT_THAT(join_fragments(target, fragments, options), testing::ElementsAre(target));
        EXPECT_EQ(probe_media(target).metadata.at("comment"), "{\"seed\": 7}");
        EXPECT_NEAR(probe_media(target).fps, 12.5, 0.01);

        std::vector<TimedFrame> parts;
        for (const Fragment& fragment : fragments) {
            for (auto& frame : frames_of(fragment.file)) parts.push_back(std::move(frame));
        }
        const auto whole = frames_of(target);
        ASSERT_EQ(whole.size(), 48u);
        ASSERT_EQ(parts.size(), 48u);
        for (std::size_t i = 0; i < whole.size(); ++i) {
            EXPECT_EQ(whole[i].frame.rgb, parts[i].frame.rgb) << i;
            EXPECT_NEAR(whole[i].seconds, static_cast<double>(i) / 12.5, 0.0011) << i;
        }

        const Times times = times_of(target, 12.5);
        ASSERT_EQ(times.shown.size(), 48u);
        std::vector<double> sorted = times.shown;
        std::sort(sorted.begin(), sorted.end());
        for (std::size_t i = 0; i < sorted.size(); ++i) {
            EXPECT_NEAR(sorted[i], static_cast<double>(i), 0.02) << i;
            if (std::isnan(times.decoded[i])) continue;
            EXPECT_LE(times.decoded[i], times.shown[i] + 0.02) << i;
            if (i > 0 && !std::isnan(times.decoded[i - 1])) {
                EXPECT_GT(times.decoded[i], times.decoded[i - 1]) << i;
            }
        }
        for (const std::size_t border : {0u, 5u, 17u, 18u}) EXPECT_TRUE(times.key[border]);
    }
}

TEST_F(Fragments, SameFramesGiveSameBytes) {
    const WriteOptions options{.metadata = {{"title", "a"}}};
    for (const char* name : {"a.mp4", "a.webm", "a.mkv", "a.gif"}) {
        SCOPED_TRACE(name);
        join_fragments(folder_ / name, write_all(folder_ / name, options), options);
        const auto first = bytes_of(folder_ / name);
        const auto fragments = write_all(folder_ / name, options);
        join_fragments(folder_ / name, fragments, options);
        EXPECT_EQ(bytes_of(folder_ / name), first);
        // One part made anew, as after a process that was killed while it wrote it.
        write(folder_ / name, 1, 5, 12, options);
        join_fragments(folder_ / name, fragments, options);
        EXPECT_EQ(bytes_of(folder_ / name), first);
    }
}

// As B-frames of moving pictures are: the delay of decoding is that of the plain writer.
TEST_F(Fragments, OneFragmentIsThePlainVideo) {
    for (const char* name : {"a.mp4", "a.webm", "a.mkv", "a.mov"}) {
        SCOPED_TRACE(name);
        const auto frames = wave_video(30);
        write_video(folder_ / "plain" / name, frames);
        const fs::path target = folder_ / name;
        const Fragment fragment = write(target, 0, 0, 30);
        join_fragments(target, std::span(&fragment, 1), {});
        const auto plain = frames_of(folder_ / "plain" / name), joined = frames_of(target);
        ASSERT_EQ(plain.size(), joined.size());
        for (std::size_t i = 0; i < plain.size(); ++i) {
            EXPECT_EQ(plain[i].frame.rgb, joined[i].frame.rgb);
            EXPECT_EQ(plain[i].seconds, joined[i].seconds);
        }
    }
}

TEST_F(Fragments, PicturesAreThoseOfThePlainWriter) {
    const WriteOptions options{.metadata = {{"comment", "c"}}};
    const fs::path gif = folder_ / "a.gif", png = folder_ / "a.png";
    write_video(folder_ / "plain.gif", wave_video(48), options);
    join_fragments(gif, write_all(gif, options), options);
    EXPECT_EQ(bytes_of(gif), bytes_of(folder_ / "plain.gif"));

    const auto plain = write_video(folder_ / "plain.png", wave_video(48), options);
    const auto joined = join_fragments(png, write_all(png, options), options);
    ASSERT_EQ(joined.size(), 48u);
    for (std::size_t i = 0; i < joined.size(); ++i)
        EXPECT_EQ(bytes_of(joined[i]), bytes_of(plain[i])) << i;
}

// Every colour comes back, in odd sizes too.
TEST_F(Fragments, LosslessIsLossless) {
    Frame frame(77, 51);
    for (std::size_t i = 0; i < frame.rgb.size(); ++i)
        frame.rgb[i] = static_cast<std::uint8_t>(i * 2654435761U >> 13);
    write_video(folder_ / "a.mkv", {frame, flat(77, 51, {1, 254, 3})}, {.lossless = true});
    const auto back = frames_of(folder_ / "a.mkv");
    ASSERT_EQ(back.size(), 2u);
    EXPECT_EQ(back[0].frame.rgb, frame.rgb);
    EXPECT_EQ(back[1].frame.rgb, flat(77, 51, {1, 254, 3}).rgb);
    EXPECT_THAT(error_of([&] { VideoWriter(folder_ / "a.mp4", {.lossless = true}); }).second,
                HasSubstr(".mkv"));
}

TEST_F(Fragments, WhatIsMissingOrWrongIsNamed) {
    for (const char* name : {"a.mp4", "a.webm", "a.gif"}) {
        SCOPED_TRACE(name);
        const fs::path target = folder_ / name;
        auto fragments = write_all(target);
        const auto refused = [&](const char* what) {
            const auto [kind, message] = error_of([&] { join_fragments(target, fragments, {}); });
            EXPECT_NE(kind, ErrorKind::internal) << what;
            EXPECT_THAT(message, HasSubstr("segment-0002")) << what;
            EXPECT_FALSE(fs::exists(target));
        };
        fragments[2].frames = 2;
        refused("count");
        fragments[2].frames = 1;
        auto bytes = bytes_of(fragments[2].file);
        bytes.resize(bytes.size() / 2);
        write_bytes(fragments[2].file, bytes);
        refused("cut");
        fs::remove(fragments[2].file);
        refused("gone");
        if (std::string(name) != "a.gif") {
            write_video(fragments[2].file, {flat(64, 64, {1, 2, 3})});
            refused("another size");
        }
        EXPECT_THAT(error_of([&] { join_fragments(target, {}, {}); }).second,
                    HasSubstr("no frames"));
    }
}

TEST_F(Fragments, WhatAKilledProcessLeftIsRemovedWhenTheFileIsWrittenAgain) {
    const fs::path target = folder_ / "a.mp4";
    const auto killed = [](const auto& work) {
        const pid_t child = ::fork();
        if (child == 0) {
            work();
            ::_exit(0);
        }
        int status = 0;
        ::waitpid(child, &status, 0);
    };
    // Leaked as if the process had been killed: no destructor runs.
    killed([&] { new PartialFile(target); });
    killed([&] { new PartialFile(folder_ / "a_00012.mp4"); });
    killed([&] { new PartialFolder(target); });
    EXPECT_EQ(files().size(), 3u);
    const PartialFile alive(target);
    const PartialFile other(folder_ / "b.mp4");
    const std::string foreign = ".a.mp4.partial-00000000-2147483646-0";
    std::ofstream(folder_ / foreign) << "of another machine";
    killed([&] { new PartialFile(folder_ / "b.mp4"); });
    write_video(target, wave_video(2));
    const auto left = files();
    EXPECT_EQ(left.size(), 5u);  // a.mp4, the two that are alive, b's of the dead one, the foreign
    EXPECT_THAT(left, testing::Contains("a.mp4"));
    EXPECT_THAT(left, testing::Contains(foreign));
    EXPECT_THAT(left, testing::Contains(alive.path().filename().string()));
    remove_stale(folder_ / "b.mp4");
    EXPECT_EQ(files().size(), 4u);
}

}  // namespace
}  // namespace zoetrope
