#include "media_common.h"

#include "base/error.h"
#include "media/formats.h"
#include "media/palette.h"
#include "media/png_text.h"
#include "media/writer.h"
#include "media/yuv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <set>

namespace zoetrope {
namespace {

using namespace media_test;
using testing::HasSubstr;

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

// The conversion in double precision, from the recommendation's own numbers.
std::array<double, 3> bt709(double r, double g, double b) {
    const double y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    return {16 + 219 * y / 255, 128 + 224 * (b - y) / 1.8556 / 255,
            128 + 224 * (r - y) / 1.5748 / 255};
}

TEST(Yuv, FlatColoursAreRoundedToTheNearestCode) {
    std::uint8_t y[4];
    std::uint8_t cb = 0;
    std::uint8_t cr = 0;
    const Planes420 planes{
        .y = y, .cb = &cb, .cr = &cr, .y_stride = 2, .cb_stride = 1, .cr_stride = 1};
    for (int r = 0; r < 256; r += 15) {
        for (int g = 0; g < 256; g += 15) {
            for (int b = 0; b < 256; b += 15) {
                rgb_to_yuv420(flat(2, 2,
                                   {static_cast<std::uint8_t>(r), static_cast<std::uint8_t>(g),
                                    static_cast<std::uint8_t>(b)}),
                              planes);
                const auto exact = bt709(r, g, b);
                // Half a code, and what 16 fraction bits leave.
                EXPECT_NEAR(y[3], exact[0], 0.503) << r << " " << g << " " << b;
                EXPECT_NEAR(cb, exact[1], 0.503) << r << " " << g << " " << b;
                EXPECT_NEAR(cr, exact[2], 0.503) << r << " " << g << " " << b;
                const bool is_grey = r == g && g == b;
                EXPECT_TRUE(!is_grey || (cb == 128 && cr == 128)) << r;
            }
        }
    }
}

// Along a ramp the chroma of a pair is that of its left pixel, not of the middle between the two.
TEST(Yuv, ChromaLiesOnTheLeftPixel) {
    constexpr int kSize = 64;
    Frame frame(kSize, 2);
    for (int i = 0; i < kSize * 2; ++i) {
        frame.rgb[static_cast<std::size_t>(i) * 3] = static_cast<std::uint8_t>(i % kSize * 4);
    }
    std::vector<std::uint8_t> y(kSize * 2);
    std::vector<std::uint8_t> cb(kSize / 2);
    std::vector<std::uint8_t> cr(kSize / 2);
    rgb_to_yuv420(frame, {.y = y.data(), .cb = cb.data(), .cr = cr.data(), .y_stride = kSize});
    for (int x = 1; x < kSize / 2; ++x) {
        EXPECT_NEAR(cr[static_cast<std::size_t>(x)], bt709(2.0 * x * 4, 0, 0)[2], 0.503) << x;
    }
}

TEST(Palette, FewColoursAreExactAndManyAreMixed) {
    std::vector<std::uint8_t> indices(kWidth * kHeight);
    PaletteQuantizer quantizer;
    const auto quantized = [&](const Frame& frame) {
        quantizer.quantize(frame, indices.data(), frame.width);
        Frame result(frame.width, frame.height);
        for (std::size_t i = 0; i < indices.size(); ++i) {
            const auto color = quantizer.palette()[indices[i]];
            std::copy(color.begin(), color.end(), result.rgb.begin() + 3 * std::ptrdiff_t(i));
        }
        return result;
    };
    Frame drawing = flat(kWidth, kHeight, {250, 240, 13});
    for (std::size_t i = 0; i < 3000; ++i) drawing.rgb[i * 3] = static_cast<std::uint8_t>(i % 7);
    EXPECT_EQ(max_error(quantized(drawing), drawing), 0);

    const Frame picture = waves(kWidth, kHeight, 0);
    const Frame mixed = quantized(picture);
    EXPECT_LT(mean_error(mixed, picture), kGifError);
    double sum = 0;  // signed: the picture as a whole keeps its colour
    for (std::size_t i = 0; i < mixed.rgb.size(); ++i) sum += mixed.rgb[i] - picture.rgb[i];
    EXPECT_NEAR(sum / static_cast<double>(mixed.rgb.size()), 0, 0.4);
}

TEST(Palette, IsKeptWhileItFits) {
    std::vector<std::uint8_t> indices(kWidth * kHeight);
    PaletteQuantizer quantizer;
    Frame frame = waves(kWidth, kHeight, 0);
    quantizer.quantize(frame, indices.data(), kWidth);
    const std::vector<PaletteQuantizer::Color> first(quantizer.palette().begin(),
                                                     quantizer.palette().end());
    const auto before = indices;
    frame.rgb[0] ^= 1;  // nothing to speak of
    quantizer.quantize(frame, indices.data(), kWidth);
    EXPECT_TRUE(std::equal(first.begin(), first.end(), quantizer.palette().begin()));
    EXPECT_TRUE(std::equal(before.begin() + 1, before.end(), indices.begin() + 1));
    for (std::size_t i = 0; i < frame.rgb.size(); i += 3) frame.rgb[i] /= 3;  // another scene
    quantizer.quantize(frame, indices.data(), kWidth);
    EXPECT_FALSE(std::equal(first.begin(), first.end(), quantizer.palette().begin()));
}

}  // namespace
}  // namespace zoetrope
