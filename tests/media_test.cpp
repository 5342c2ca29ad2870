#include "base/error.h"
#include "media/formats.h"
#include "media/png_text.h"
#include "media/writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

template <typename Call>
std::pair<ErrorKind, std::string> error_of(Call call) {
    try {
        call();
    } catch (const Error& error) {
        return {error.kind(), error.what()};
    }
    return {ErrorKind::internal, "nothing was thrown"};
}

// A folder of its own for every test, gone afterwards.
class Media : public testing::Test {
protected:
    Media() {
        const auto* info = testing::UnitTest::GetInstance()->current_test_info();
        folder_ = fs::path(testing::TempDir()) /
                  (std::string("zoetrope-media-") + info->name() + "-" + std::to_string(getpid()));
        fs::create_directories(folder_);
    }
    ~Media() override { fs::remove_all(folder_); }

    std::vector<std::string> files() const {
        std::vector<std::string> names;
        for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
            names.push_back(fs::relative(entry.path(), folder_).string());
        }
        std::sort(names.begin(), names.end());
        return names;
    }

    fs::path folder_;
};

Frame flat(int width, int height, std::array<std::uint8_t, 3> color) {
    Frame frame(width, height);
    for (std::size_t i = 0; i < frame.rgb.size(); ++i) frame.rgb[i] = color[i % 3];
    return frame;
}

// Waves of all colours that move with `time`, smooth as natural pictures mostly are.
Frame waves(int width, int height, int time) {
    Frame frame(width, height);
    std::size_t i = 0;
    for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
            const double u = x / 80.0 + 0.05 * time;
            const double v = y / 60.0;
            for (int c = 0; c < 3; ++c) {
                const double wave = std::sin(6 * u + 1.3 * c) * std::cos(5 * v - c);
                frame.rgb[i++] = static_cast<std::uint8_t>(std::lround(127 + 100 * wave));
            }
        }
    }
    return frame;
}

constexpr int kWidth = 96;
constexpr int kHeight = 64;

std::vector<Frame> wave_video(int count) {
    std::vector<Frame> frames;
    for (int t = 0; t < count; ++t) frames.push_back(waves(kWidth, kHeight, t));
    return frames;
}

std::vector<fs::path> write_video(const fs::path& path, const std::vector<Frame>& frames,
                                  WriteOptions options = {}) {
    VideoWriter writer(path, std::move(options));
    for (const Frame& frame : frames) writer.write(frame);
    return writer.finish();
}

std::vector<std::uint8_t> bytes_of(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

TEST(MediaFormats, EndingDecidesInEitherCase) {
    EXPECT_EQ(video_format_of("a/b.MP4").encoder, "libx264");
    EXPECT_EQ(video_format_of("b.webm").encoder, "libvpx-vp9");
    for (const char* path : {"a.avi", "a", "a.mp4.txt", ".mp4"}) {
        const auto [kind, message] = error_of([&] { video_format_of(path); });
        EXPECT_EQ(kind, ErrorKind::bad_request) << path;
        EXPECT_THAT(message, HasSubstr(".mp4, .webm, .mkv, .mov, .gif, .png"));
    }
}

TEST(MediaFormats, OddSizesAndRatesAreRefusedBeforeTheWork) {
    for (const char* path : {"a.mp4", "a.webm", "a.mkv", "a.mov"}) {
        const auto [kind, message] = error_of([&] { check_video_output(path, 833, 480, 16); });
        EXPECT_EQ(kind, ErrorKind::bad_request);
        EXPECT_THAT(message, HasSubstr("833x480"));
        EXPECT_THAT(message, HasSubstr("even"));
        EXPECT_NO_THROW(check_video_output(path, 832, 480, 16));
    }
    EXPECT_NO_THROW(check_video_output("a.gif", 833, 481, 16));
    for (const double fps : {0.0, -1.0, std::nan(""), 51.0}) {
        EXPECT_EQ(error_of([&] { check_video_output("a.gif", 8, 8, fps); }).first,
                  ErrorKind::bad_request);
    }
}

TEST_F(Media, SameFramesGiveSameBytes) {
    const auto frames = wave_video(12);
    const WriteOptions options{.metadata = {{"comment", "{\"seed\": 1}"}, {"title", "a"}}};
    for (const char* name : {"a.mp4", "a.webm", "a.mkv", "a.mov", "a.gif"}) {
        write_video(folder_ / name, frames, options);
        const auto first = bytes_of(folder_ / name);
        write_video(folder_ / name, frames, options);  // replaces the older file
        EXPECT_EQ(first, bytes_of(folder_ / name)) << name;
        EXPECT_GT(first.size(), 500u);
    }
}

TEST_F(Media, UnfinishedFilesAndTheirFoldersGo) {
    for (const char* name : {"new/deep/a.mp4", "new/a.gif", "new/a.png"}) {
        {
            VideoWriter writer(folder_ / name, {});
            writer.write(waves(kWidth, kHeight, 0));
            writer.write(waves(kWidth, kHeight, 1));
            EXPECT_FALSE(fs::exists(folder_ / name));
            EXPECT_THAT(files(), testing::Contains(HasSubstr(".partial-")));
        }
        EXPECT_THAT(files(), testing::IsEmpty()) << name;
    }
}

TEST_F(Media, AnUnfinishedFileLeavesTheOlderOne) {
    const fs::path path = folder_ / "a.mp4";
    write_video(path, wave_video(2));
    const auto before = bytes_of(path);
    { VideoWriter(path, {}).write(waves(kWidth, kHeight, 5)); }
    EXPECT_EQ(bytes_of(path), before);
    EXPECT_EQ(files(), std::vector<std::string>{"a.mp4"});
}

TEST_F(Media, TwoWritersOfOneTargetDoNotMeet) {
    VideoWriter a(folder_ / "a.mp4", {});
    VideoWriter b(folder_ / "a.mp4", {});
    a.write(waves(kWidth, kHeight, 0));
    b.write(waves(kWidth, kHeight, 0));
    b.write(waves(kWidth, kHeight, 1));
    a.finish();
    const auto first = bytes_of(folder_ / "a.mp4");
    b.finish();
    EXPECT_LT(first.size(), bytes_of(folder_ / "a.mp4").size());
    EXPECT_EQ(files(), std::vector<std::string>{"a.mp4"});
}

TEST_F(Media, FoldersThatTakeNoFileAreKnownAtOnce) {
    std::ofstream(folder_ / "file") << "not a folder";
    for (const fs::path& path :
         {folder_ / "file" / "a.mp4", fs::path("/proc/zoetrope/a.mp4"), fs::path("/proc/a.png")}) {
        const auto [kind, message] = error_of([&] { VideoWriter(path, {}); });
        EXPECT_EQ(kind, ErrorKind::io) << path;
        EXPECT_THAT(message, HasSubstr(path.parent_path().string()));
    }
    fs::create_directory(folder_ / "b.mp4");
    EXPECT_THAT(error_of([&] { VideoWriter(folder_ / "b.mp4", {}); }).second,
                HasSubstr("is a folder"));
}

// A limit on file sizes stands for a full disk: write() fails with EFBIG instead of ENOSPC.
TEST_F(Media, AFullDiskIsAnErrorThatLeavesNothing) {
    const auto frames = wave_video(12);
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
    const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
    rlimit limit = before;
    limit.rlim_cur = 1000;
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    std::vector<std::pair<ErrorKind, std::string>> errors;
    const std::vector<std::string> names{"x/a.mp4", "x/a.webm", "x/a.gif", "x/a.png"};
    for (const std::string& name : names) {
        errors.push_back(error_of([&] { write_video(folder_ / name, frames); }));
    }
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, old_handler);
    for (std::size_t i = 0; i < names.size(); ++i) {
        EXPECT_EQ(errors[i].first, ErrorKind::io) << names[i] << ": " << errors[i].second;
        EXPECT_THAT(errors[i].second, HasSubstr(names[i].substr(0, 3)));
        EXPECT_THAT(errors[i].second, HasSubstr("File too large"));
    }
    EXPECT_THAT(files(), testing::IsEmpty());
}

TEST_F(Media, WrongUseIsRefused) {
    VideoWriter writer(folder_ / "a.mp4", {});
    writer.write(flat(64, 48, {1, 2, 3}));
    EXPECT_THAT(error_of([&] {
                    writer.write(flat(48, 64, {1, 2, 3}));
                }).second,
                HasSubstr("48x64"));
    writer.finish();
    EXPECT_EQ(error_of([&] { writer.write(flat(64, 48, {})); }).first, ErrorKind::internal);
    EXPECT_EQ(error_of([&] { writer.finish(); }).first, ErrorKind::internal);

    VideoWriter odd(folder_ / "b.webm", {});
    EXPECT_THAT(error_of([&] { odd.write(flat(63, 48, {})); }).second, HasSubstr("63x48"));
    EXPECT_THAT(error_of([&] { odd.finish(); }).second, HasSubstr("no frames"));
    EXPECT_EQ(error_of([&] { VideoWriter(folder_ / "c.mp4", {.crf = 52}); }).first,
              ErrorKind::bad_request);
    EXPECT_EQ(error_of([&] { VideoWriter(folder_ / "c.mp4", {.threads = 0}); }).first,
              ErrorKind::bad_request);
    EXPECT_EQ(files(), std::vector<std::string>{"a.mp4"});
}

TEST_F(Media, PngIsOneFileOrANumberedSequence) {
    EXPECT_THAT(write_video(folder_ / "one.png", wave_video(1)),
                testing::ElementsAre(folder_ / "one.png"));
    EXPECT_THAT(write_video(folder_ / "many.png", wave_video(3)),
                testing::ElementsAre(folder_ / "many_00000.png", folder_ / "many_00001.png",
                                     folder_ / "many_00002.png"));
    EXPECT_EQ(files().size(), 4u);
}

TEST(PngText, AddsAndReadsBack) {
    // A header chunk is enough of a PNG file here.
    std::vector<std::uint8_t> png{0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n',
                                  0,    0,   0,   13,  'I',  'H',  'D',  'R'};
    png.resize(33);
    const std::map<std::string, std::string> metadata{{"comment", "{\"prompt\": \"une forêt\"}"},
                                                      {"x", ""}};
    const auto with_text = with_png_text(png, metadata);
    EXPECT_EQ(png_text(with_text), metadata);
    const std::string_view text(reinterpret_cast<const char*>(with_text.data()), with_text.size());
    EXPECT_THAT(text, HasSubstr("iTXtComment"));
    // Every cut of the file is read without harm.
    for (std::size_t size = 0; size < with_text.size(); ++size) {
        EXPECT_LE(png_text(std::span(with_text).first(size)).size(), 2u);
    }
}

}  // namespace
}  // namespace zoetrope
