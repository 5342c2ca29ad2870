// Videos as frames by number: from files, from memory, and from threads that make them.
#include "media/frame_feed.h"
#include "media/frame_sequence.h"
#include "media/reader.h"
#include "media_common.h"

#include <atomic>
#include <random>
#include <thread>

namespace zoetrope::media_test {
namespace {

using testing::HasSubstr;

std::vector<Frame> frames_of(const fs::path& path) {
    std::vector<Frame> frames;
    VideoReader reader(path);
    while (auto next = reader.read()) frames.push_back(std::move(next->frame));
    return frames;
}

TEST_F(Media, SequenceOfAFileGivesTheReadersFramesInAnyOrder) {
    const fs::path path = folder_ / "clip.mp4";
    write_video(path, wave_video(40));
    const std::vector<Frame> frames = frames_of(path);
    const auto video = FrameSequence::open(path, {.window_frames = 8});
    ASSERT_EQ(video.size(), 40);
    EXPECT_EQ(video.width(), kWidth);
    EXPECT_EQ(video.height(), kHeight);
    EXPECT_EQ(video.most_bytes(), 8 * kWidth * kHeight * 3);
    for (int i = 0; i < 40; ++i)
        ASSERT_EQ(video.at(i).rgb, frames[static_cast<std::size_t>(i)].rgb) << i;
    for (int i = 39; i >= 32; --i)
        ASSERT_EQ(video.at(i).rgb, frames[static_cast<std::size_t>(i)].rgb) << i;
    EXPECT_EQ(video.times_reopened(), 0);
    EXPECT_EQ(video.at(31).rgb, frames[31].rgb);  // just outside
    EXPECT_EQ(video.times_reopened(), 1);

    std::mt19937 random(1);  // NOLINT: the same order every time
    for (int step = 0; step < 60; ++step) {
        const auto i = static_cast<int>(random() % 40);
        ASSERT_EQ(video.at(i).rgb, frames[static_cast<std::size_t>(i)].rgb) << i;
    }
    // Copies share the place.
    const FrameSequence copy = video;
    copy.at(0);
    EXPECT_EQ(copy.times_reopened(), video.times_reopened());
}

// As Animate reads: segments that overlap by 9, the last one padded by the frames before its end.
TEST_F(Media, SegmentsAreReadWithoutGoingBack) {
    const fs::path path = folder_ / "clip.mp4";
    write_video(path, wave_video(60));
    const auto video = FrameSequence::open(path, {.window_frames = 16});
    for (int start = 0; start + 24 <= 60; start += 15) {
        for (int i = start; i < start + 24; ++i) video.at(i);
    }
    for (int i = 45; i < 60; ++i) video.at(i);
    for (int i = 58; i > 55; --i) video.at(i);
    EXPECT_EQ(video.times_reopened(), 0);
}

TEST_F(Media, WindowIsBoundByBytesToo) {
    const fs::path path = folder_ / "clip.mp4";
    write_video(path, wave_video(10));
    const std::int64_t frame = kWidth * kHeight * 3;
    EXPECT_EQ(FrameSequence::open(path, {.window_bytes = 4 * frame + 1}).most_bytes(), 4 * frame);
    EXPECT_EQ(FrameSequence::open(path, {.window_bytes = 1}).most_bytes(), frame);
    EXPECT_EQ(FrameSequence::open(path).most_bytes(), 10 * frame);
    EXPECT_EQ(FrameSequence::open(path, {.most_frames = 3}).size(), 3);
}

TEST_F(Media, SequenceOfAFolder) {
    write_video(folder_ / "picture.png", wave_video(5));
    const auto video = FrameSequence::open(folder_);
    ASSERT_EQ(video.size(), 5);
    EXPECT_EQ(video.at(3).rgb, wave_video(5)[3].rgb);
    EXPECT_EQ(video.at(0).rgb, wave_video(5)[0].rgb);
}

TEST_F(Media, DamageIsToldWhenASequenceIsOpened) {
    const fs::path path = folder_ / "clip.mkv";
    write_video(path, wave_video(60));
    const auto bytes = bytes_of(path);
    write_bytes(path, std::span(bytes).first(bytes.size() / 2));
    const auto [kind, message] = error_of([&] { FrameSequence::open(path); });
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_THAT(message, HasSubstr("breaks off after"));
    // Not where the frames that are wanted lie before it.
    EXPECT_EQ(FrameSequence::open(path, {.most_frames = 2}).size(), 2);
    EXPECT_EQ(error_of([&] { FrameSequence::open(folder_ / "none.mp4"); }).first,
              ErrorKind::not_found);
}

TEST_F(Media, AFileThatChangesIsAnError) {
    const fs::path path = folder_ / "clip.mp4";
    write_video(path, wave_video(20));
    const auto video = FrameSequence::open(path);
    write_video(path, wave_video(10));
    const auto [kind, message] = error_of([&] { video.at(15); });
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_THAT(message, HasSubstr("had 20 when it was opened"));
}

TEST(Sequence, OfMemory) {
    EXPECT_TRUE(FrameSequence().empty());
    EXPECT_EQ(FrameSequence().width(), 0);
    EXPECT_EQ(FrameSequence().most_bytes(), 0);
    const FrameSequence video(wave_video(3));
    EXPECT_EQ(video.size(), 3);
    EXPECT_EQ(video.at(2).rgb, wave_video(3)[2].rgb);
    EXPECT_EQ(video.height(), kHeight);
    EXPECT_EQ(error_of([&] { video.at(3); }).first, ErrorKind::internal);
    EXPECT_EQ(error_of([&] { video.at(-1); }).first, ErrorKind::internal);
}

// A feed of small frames whose first byte is their number.
std::shared_ptr<FrameFeed> feed_of(int size, int ahead, int back, int tracks = 1) {
    return std::make_shared<FrameFeed>(FeedOptions{
        .tracks = tracks, .size = size, .ahead = ahead, .back = back, .frame_bytes = 3});
}
Frame numbered(int i) { return flat(1, 1, {static_cast<std::uint8_t>(i), 0, 0}); }

TEST(Feed, IsFilledNoFurtherThanItsBound) {
    const auto feed = feed_of(100, 10, 2);
    feed->release();
    std::atomic<int> pushed = 0;
    std::jthread filler([&] {
        for (int i = 0; i < 100; ++i) {
            feed->push(0, numbered(i));
            ++pushed;
        }
        feed->end();
    });
    const FrameSequence video(feed, 0);
    EXPECT_EQ(video.size(), 100);
    EXPECT_EQ(video.most_bytes(), 3 * 12);
    for (int i = 0; i < 100; ++i) {
        ASSERT_EQ(video.at(i).rgb[0], i);
        ASSERT_LE(pushed, i + 1 + 10 + 1);  // one more in push() itself
    }
    EXPECT_EQ(video.at(97).rgb[0], 97);
    EXPECT_EQ(error_of([&] { video.at(96); }).first, ErrorKind::internal);
}

// The reader wants all of one track before it begins with the other, which is bound tighter than
// that.
TEST(Feed, ABoundNeverBlocksForEver) {
    const auto feed = feed_of(50, 4, 2, 2);
    feed->release();
    std::jthread filler([&] {
        for (int i = 0; i < 50; ++i) {
            feed->push(0, numbered(i));
            feed->push(1, numbered(i + 100));
        }
        feed->end();
    });
    for (int i = 0; i < 50; ++i) ASSERT_EQ(FrameSequence(feed, 0).at(i).rgb[0], i);
    for (int i = 0; i < 50; ++i) ASSERT_EQ(FrameSequence(feed, 1).at(i).rgb[0], i + 100);
    EXPECT_GT(feed->reader_waited() + feed->filler_waited(), 0);
}

TEST(Feed, AFailureReachesTheReaderBehindTheFramesThatAreThere) {
    const auto feed = feed_of(9, 4, 2);
    feed->release();
    feed->push(0, numbered(5));
    feed->fail(std::make_exception_ptr(Error(ErrorKind::io, "the disk is on fire")));
    const FrameSequence video(feed, 0);
    EXPECT_EQ(video.at(0).rgb[0], 5);
    const auto [kind, message] = error_of([&] { video.at(1); });
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_EQ(message, "the disk is on fire");
    // For another run it is as new.
    feed->restart();
    feed->push(0, numbered(7));
    feed->end();
    EXPECT_EQ(video.at(0).rgb[0], 7);
    EXPECT_THAT(error_of([&] { video.at(1); }).second, HasSubstr("gave 1 frames, 9 were counted"));
}

// A run that goes on with a later segment.
TEST(Feed, FramesBeforeTheFirstThatIsReadAreNotKept) {
    const auto feed = feed_of(60, 5, 3);
    feed->restart(40);
    feed->release();
    for (int i = 0; i < 45; ++i) feed->push(0, numbered(i));  // would block, were they kept
    EXPECT_EQ(feed->at(0, 40).rgb[0], 40);
    EXPECT_EQ(feed->at(0, 37).rgb[0], 37);
    EXPECT_EQ(error_of([&] { feed->at(0, 36); }).first, ErrorKind::internal);
}

TEST(Feed, NothingIsGivenBeforeItIsReleased) {
    const auto feed = feed_of(20, 6, 2);
    const FrameSequence video(feed, 0);
    std::jthread filler([&] {
        for (int i = 0; i < 3; ++i) feed->push(0, numbered(i));
        feed->fail(std::make_exception_ptr(Error(ErrorKind::bad_request, "nobody")));
    });
    EXPECT_EQ(error_of([&] { video.at(0); }).second, "nobody");
    filler.join();
    feed->restart();
    for (int i = 0; i < 6; ++i) feed->push(0, numbered(i));  // a bound of waiting for it
    EXPECT_EQ(video.at(0).rgb[0], 0);
}

TEST(Feed, StopsAndDrains) {
    const auto feed = feed_of(20, 2, 2);
    feed->release();
    ErrorKind ended = ErrorKind::internal;
    {
        std::jthread filler([&] {
            ended = error_of([&] {
                        for (int i = 0; i < 20; ++i) feed->push(0, numbered(i));
                    }).first;
        });
        feed->at(0, 0);
        feed->stop();
    }
    EXPECT_EQ(ended, ErrorKind::cancelled);
    feed->restart();
    {
        std::jthread filler([&] {
            for (int i = 0; i < 20; ++i) feed->push(0, numbered(i));
        });
        feed->drain();
    }
}

}  // namespace
}  // namespace zoetrope::media_test
