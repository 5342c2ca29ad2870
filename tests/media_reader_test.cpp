#include "media/reader.h"

#include "media/formats.h"
#include "media/png_text.h"
#include "media/writer.h"
#include "media_common.h"

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/pixdesc.h>
}

#include <cstring>
#include <memory>
#include <optional>

namespace zoetrope {
namespace {

using namespace media_test;
using testing::HasSubstr;

struct Clip {
    MediaInfo info;
    std::vector<Frame> frames;
    std::vector<double> seconds;
    std::string damage;
};

Clip read_all(const fs::path& path, const ReadOptions& options = {}) {
    VideoReader reader(path, options);
    Clip clip{.info = reader.info()};
    while (std::optional<TimedFrame> next = reader.read()) {
        clip.frames.push_back(std::move(next->frame));
        clip.seconds.push_back(next->seconds);
    }
    clip.damage = reader.damage();
    return clip;
}

std::span<const std::uint8_t> first_part(const std::vector<std::uint8_t>& bytes, double part) {
    return std::span(bytes).first(static_cast<std::size_t>(part * double(bytes.size())));
}

// A video of one colour per frame by libav alone, in any format of pixels and colour.
struct Source {
    const char* muxer = "matroska";
    const char* codec = "ffv1";
    AVPixelFormat format = AV_PIX_FMT_YUV420P;
    AVColorSpace matrix = AVCOL_SPC_UNSPECIFIED;  // as the file says
    AVColorRange range = AVCOL_RANGE_UNSPECIFIED;
    double red = 0.2126;  // the luma weights that the samples are made with
    double blue = 0.0722;
    bool full_range = false;
    int width = 64;
    int height = 48;
    std::vector<std::int64_t> times{0, 1, 2};  // in 1/25 s
};

constexpr std::array<std::array<std::uint8_t, 3>, 4> kColors{
    {{200, 40, 90}, {10, 220, 60}, {30, 60, 240}, {128, 128, 128}}};

// Sets all of a plane to a value between 0 and 1 of the codes of `bits`.
void fill_plane(AVFrame& picture, int plane, int width, int height, double code, int bits) {
    for (int y = 0; y < height; ++y) {
        std::uint8_t* row = picture.data[plane] + std::ptrdiff_t(y) * picture.linesize[plane];
        for (int x = 0; x < width; ++x) {
            const auto value = static_cast<std::uint16_t>(std::lround(code));
            if (bits > 8) {
                std::memcpy(row + 2 * x, &value, 2);
            } else {
                row[x] = static_cast<std::uint8_t>(value);
            }
        }
    }
}

void fill(AVFrame& picture, const Source& source, std::array<std::uint8_t, 3> color) {
    const AVPixFmtDescriptor* format = av_pix_fmt_desc_get(source.format);
    const int bits = format->comp[0].depth;
    const double r = color[0] / 255.0;
    const double g = color[1] / 255.0;
    const double b = color[2] / 255.0;
    const double y = source.red * r + (1 - source.red - source.blue) * g + source.blue * b;
    const double cb = (b - y) / (2 * (1 - source.blue));
    const double cr = (r - y) / (2 * (1 - source.red));
    const double step = 1 << (bits - 8);
    const double white = (1 << bits) - 1;
    const double middle = 128 * step;
    const bool full = source.full_range;
    fill_plane(picture, 0, source.width, source.height, full ? y * white : (16 + 219 * y) * step,
               bits);
    const int chroma_width = source.width >> format->log2_chroma_w;
    const int chroma_height = source.height >> format->log2_chroma_h;
    const double scale = full ? white : 224 * step;
    fill_plane(picture, 1, chroma_width, chroma_height, middle + cb * scale, bits);
    fill_plane(picture, 2, chroma_width, chroma_height, middle + cr * scale, bits);
}

void write_by_libav(const fs::path& path, const Source& source) {
    const AVRational time_base{1, 25};
    AVFormatContext* output = nullptr;
    ASSERT_GE(avformat_alloc_output_context2(&output, nullptr, source.muxer, path.c_str()), 0);
    const AVCodec* codec = avcodec_find_encoder_by_name(source.codec);
    ASSERT_NE(codec, nullptr);
    AVCodecContext* encoder = avcodec_alloc_context3(codec);
    encoder->width = source.width;
    encoder->height = source.height;
    encoder->pix_fmt = source.format;
    encoder->time_base = time_base;
    encoder->colorspace = source.matrix;
    encoder->color_range = source.range;
    encoder->strict_std_compliance = FF_COMPLIANCE_UNOFFICIAL;
    encoder->flags |= AV_CODEC_FLAG_QSCALE | AV_CODEC_FLAG_GLOBAL_HEADER;
    encoder->global_quality = FF_QP2LAMBDA;
    encoder->gop_size = 1;
    ASSERT_GE(avcodec_open2(encoder, codec, nullptr), 0);
    AVStream* stream = avformat_new_stream(output, nullptr);
    avcodec_parameters_from_context(stream->codecpar, encoder);
    stream->time_base = time_base;
    ASSERT_GE(avio_open(&output->pb, path.c_str(), AVIO_FLAG_WRITE), 0);
    ASSERT_GE(avformat_write_header(output, nullptr), 0);
    AVPacket* packet = av_packet_alloc();
    for (std::size_t i = 0; i <= source.times.size(); ++i) {
        AVFrame* picture = nullptr;
        if (i < source.times.size()) {
            picture = av_frame_alloc();
            picture->width = source.width;
            picture->height = source.height;
            picture->format = source.format;
            picture->quality = encoder->global_quality;
            picture->colorspace = source.matrix;
            picture->color_range = source.range;
            picture->pts = source.times[i];
            ASSERT_GE(av_frame_get_buffer(picture, 0), 0);
            fill(*picture, source, kColors[i % kColors.size()]);
        }
        ASSERT_GE(avcodec_send_frame(encoder, picture), 0);  // none: the end
        av_frame_free(&picture);
        while (avcodec_receive_packet(encoder, packet) >= 0) {
            av_packet_rescale_ts(packet, time_base, stream->time_base);
            ASSERT_GE(av_interleaved_write_frame(output, packet), 0);
        }
    }
    ASSERT_GE(av_write_trailer(output), 0);
    av_packet_free(&packet);
    avcodec_free_context(&encoder);
    avio_closep(&output->pb);
    avformat_free_context(output);
}

TEST_F(Media, WhatIsWrittenComesBack) {
    struct Expected {
        const char* name;
        double mean_error;  // of waves(), measured and a fifth on top
        int flat_error;     // of one colour
        const char* matrix;
    };
    const WriteOptions options{
        .fps = 24,
        .metadata = {{"comment", "{\"prompt\": \"une \\\"forêt\\\" 森\", \"seed\": 7}"}}};
    const auto frames = wave_video(10);
    for (const Expected& expected : {Expected{"a.mp4", 1.9, 1, "bt709"},
                                     {"a.webm", 1.9, 1, "bt709"},
                                     {"a.mkv", 1.9, 1, "bt709"},
                                     {"a.mov", 1.9, 1, "bt709"},
                                     {"a.gif", kGifError, 0, "rgb"}}) {
        SCOPED_TRACE(expected.name);
        write_video(folder_ / expected.name, frames, options);
        const Clip clip = read_all(folder_ / expected.name);
        EXPECT_EQ(clip.info.width, kWidth);
        EXPECT_EQ(clip.info.height, kHeight);
        EXPECT_NEAR(clip.info.fps, 24, 1e-9);
        EXPECT_EQ(clip.info.frames, 10);
        EXPECT_EQ(clip.info.matrix, expected.matrix);
        EXPECT_EQ(clip.info.metadata.at("comment"), options.metadata.at("comment"));
        EXPECT_EQ(clip.damage, "");
        ASSERT_EQ(clip.frames.size(), frames.size());
        for (std::size_t i = 0; i < frames.size(); ++i) {
            EXPECT_LT(mean_error(clip.frames[i], frames[i]), expected.mean_error) << i;
            EXPECT_NEAR(clip.seconds[i], double(i) / 24, 0.0051) << i;  // GIF: 1/100 s
        }
        std::vector<Frame> flats;
        for (const auto& color : kColors) flats.push_back(flat(kWidth, kHeight, color));
        write_video(folder_ / expected.name, flats);
        const Clip flat_clip = read_all(folder_ / expected.name);
        ASSERT_EQ(flat_clip.frames.size(), flats.size());
        for (std::size_t i = 0; i < flats.size(); ++i) {
            EXPECT_LE(max_error(flat_clip.frames[i], flats[i]), expected.flat_error) << i;
        }
    }
}

TEST_F(Media, PngComesBackExactly) {
    const auto frames = wave_video(3);
    const WriteOptions options{.metadata = {{"comment", "a\nb"}, {"title", "ü"}}};
    write_video(folder_ / "one.png", {frames[0]}, options);
    EXPECT_EQ(max_error(read_picture(folder_ / "one.png"), frames[0]), 0);
    const MediaInfo info = probe_media(folder_ / "one.png");
    EXPECT_EQ(info.frames, 1);
    EXPECT_EQ(info.fps, 0);
    EXPECT_EQ(info.metadata.at("comment"), "a\nb");
    EXPECT_EQ(info.metadata.at("title"), "ü");

    write_video(folder_ / "video" / "many.png", frames, options);
    const Clip clip = read_all(folder_ / "video", {.pictures_fps = 12.5});
    ASSERT_EQ(clip.frames.size(), 3u);
    EXPECT_EQ(clip.info.frames, 3);
    EXPECT_EQ(clip.seconds[2], 2 / 12.5);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(max_error(clip.frames[i], frames[i]), 0);
}

TEST_F(Media, RatesAndLengths) {
    for (const double fps : {29.97, 23.976, 59.94, 16.0, 12.5, 25.0}) {
        const double nominal = std::round(fps);
        const bool ntsc = fps != nominal && fps != 12.5;
        const double exact = ntsc ? nominal * 1000 / 1001 : fps;
        for (const char* name : {"a.mp4", "a.webm"}) {
            write_video(folder_ / name, wave_video(4), {.fps = fps});
            const Clip clip = read_all(folder_ / name);
            EXPECT_NEAR(clip.info.fps, exact, 1e-9) << name;
            EXPECT_NEAR(clip.seconds[3], 3 / exact, 6e-4) << name;  // WebM: milliseconds
        }
    }
    for (const char* name : {"a.mp4", "a.webm", "a.gif", "a.mkv"}) {
        write_video(folder_ / name, wave_video(1));
        const Clip clip = read_all(folder_ / name);
        EXPECT_EQ(clip.frames.size(), 1u) << name;
        EXPECT_EQ(clip.damage, "") << name;
    }
    EXPECT_NEAR(probe_media(folder_ / "a.mp4").seconds, 1.0 / 16, 1e-9);
}

TEST_F(Media, ForeignMetadataKeysSurviveInMp4) {
    const std::map<std::string, std::string> metadata{{"prompt", "p"}, {"title", "t"}};
    write_video(folder_ / "a.mp4", wave_video(1), {.metadata = metadata});
    const auto found = probe_media(folder_ / "a.mp4").metadata;
    EXPECT_EQ(found.at("prompt"), "p");
    EXPECT_EQ(found.at("title"), "t");
}

TEST_F(Media, ColourFollowsTheTagsElseTheSize) {
    const double red601 = 0.299;
    const double blue601 = 0.114;
    struct Case {
        Source source;
        const char* matrix;
        int error;
    };
    const std::vector<Case> cases{
        // Tagged.
        {{.matrix = AVCOL_SPC_BT709, .range = AVCOL_RANGE_MPEG}, "bt709", 1},
        {{.format = AV_PIX_FMT_YUV444P,
          .matrix = AVCOL_SPC_BT709,
          .range = AVCOL_RANGE_JPEG,
          .full_range = true},
         "bt709",
         1},
        {{.format = AV_PIX_FMT_YUV420P10, .matrix = AVCOL_SPC_BT709}, "bt709", 0},
        {{.format = AV_PIX_FMT_YUV422P10,
          .matrix = AVCOL_SPC_BT2020_NCL,
          .red = 0.2627,
          .blue = 0.0593},
         "bt2020",
         0},
        {{.matrix = AVCOL_SPC_SMPTE170M,
          .red = red601,
          .blue = blue601,
          .width = 1280,
          .height = 720},
         "bt601",
         1},
        // Untagged: SD, HD.
        {{.red = red601, .blue = blue601}, "bt601", 1},
        {{.width = 1280, .height = 720}, "bt709", 1},
        // Motion JPEG in AVI: full range, BT.601 at any size.
        {{.muxer = "avi",
          .codec = "mjpeg",
          .format = AV_PIX_FMT_YUVJ420P,
          .red = red601,
          .blue = blue601,
          .full_range = true,
          .width = 1280,
          .height = 720},
         "bt601",
         2},
    };
    for (const Case& c : cases) {
        const fs::path path = folder_ / (std::string("a.") + c.source.muxer);
        write_by_libav(path, c.source);
        if (HasFatalFailure()) return;
        const Clip clip = read_all(path);
        SCOPED_TRACE(clip.info.pixel_format + " " + c.matrix);
        EXPECT_EQ(clip.info.matrix, c.matrix);
        EXPECT_EQ(clip.info.full_range, c.source.full_range);
        EXPECT_EQ(clip.info.bits, av_pix_fmt_desc_get(c.source.format)->comp[0].depth);
        ASSERT_EQ(clip.frames.size(), 3u);
        for (std::size_t i = 0; i < 3; ++i) {
            const Frame expected = flat(c.source.width, c.source.height, kColors[i]);
            EXPECT_LE(max_error(clip.frames[i], expected), c.error) << i;
        }
    }
}

TEST_F(Media, VariableRateKeepsItsTimes) {
    write_by_libav(folder_ / "a.mkv", {.times = {5, 6, 10, 30}});
    const Clip clip = read_all(folder_ / "a.mkv");
    ASSERT_EQ(clip.seconds.size(), 4u);
    EXPECT_NEAR(clip.seconds[0], 0, 1e-9);
    EXPECT_NEAR(clip.seconds[1], 0.04, 1e-9);
    EXPECT_NEAR(clip.seconds[2], 0.2, 1e-9);
    EXPECT_NEAR(clip.seconds[3], 1, 1e-9);
}

// Chroma that lay half a pixel off would shift a coloured ramp by half its slope.
TEST_F(Media, ChromaIsNotShifted) {
    Frame ramp(128, 64);
    for (std::size_t i = 0; i < 128 * 64; ++i) {
        ramp.rgb[3 * i] = static_cast<std::uint8_t>(i % 128 * 2);
        ramp.rgb[3 * i + 1] = 60;
        ramp.rgb[3 * i + 2] = static_cast<std::uint8_t>(i / 128 * 3);
    }
    for (const char* name : {"a.mp4", "a.webm"}) {
        write_video(folder_ / name, {ramp}, {.crf = 4});
        const Frame back = read_picture(folder_ / name);
        std::array<double, 3> shift{};
        for (int y = 4; y < 60; ++y) {
            for (int x = 4; x < 124; ++x) {
                for (int c = 0; c < 3; ++c) {
                    const std::size_t i = static_cast<std::size_t>((y * 128 + x) * 3 + c);
                    shift[static_cast<std::size_t>(c)] += back.rgb[i] - ramp.rgb[i];
                }
            }
        }
        for (const double sum : shift) EXPECT_NEAR(sum / (56 * 120), 0, 0.25) << name;
    }
}

TEST_F(Media, AFileThatBreaksOffGivesItsFramesAndSaysSo) {
    const auto frames = wave_video(24);
    for (const char* name : {"a.mp4", "a.webm", "a.mkv", "a.gif"}) {
        SCOPED_TRACE(name);
        write_video(folder_ / name, frames);
        const auto bytes = bytes_of(folder_ / name);
        const Clip whole = read_all(folder_ / name);
        write_bytes(folder_ / "cut", first_part(bytes, 0.7));
        const Clip cut = read_all(folder_ / "cut");
        EXPECT_GE(cut.frames.size(), 1u);
        EXPECT_LT(cut.frames.size(), frames.size());
        EXPECT_THAT(cut.damage,
                    HasSubstr("ends early, after " + std::to_string(cut.frames.size()) + " frame"));
        EXPECT_EQ(max_error(cut.frames[0], whole.frames[0]), 0);
        // No cut may do worse than an error.
        for (int i = 0; i < 40; ++i) {
            write_bytes(folder_ / "cut", first_part(bytes, i / 40.0));
            try {
                EXPECT_NE(read_all(folder_ / "cut").damage, "") << i;
            } catch (const Error& error) {
                EXPECT_NE(error.kind(), ErrorKind::internal) << i << error.what();
            }
        }
    }
}

TEST_F(Media, FlippedBytesDoNotCrash) {
    write_video(folder_ / "a.mp4", wave_video(4));
    write_video(folder_ / "b.gif", wave_video(4));
    write_video(folder_ / "c.png", wave_video(1));
    std::uint32_t random = 1;
    for (const char* name : {"a.mp4", "b.gif", "c.png"}) {
        const auto bytes = bytes_of(folder_ / name);
        for (int round = 0; round < 60; ++round) {
            auto broken = bytes;
            for (int i = 0; i < 8; ++i) {
                random = random * 1664525 + 1013904223;  // Numerical Recipes
                broken[(random >> 4) % broken.size()] ^= static_cast<std::uint8_t>(random >> 24);
            }
            write_bytes(folder_ / "broken", broken);
            try {
                read_all(folder_ / "broken");
            } catch (const Error&) {
                continue;  // any error of ours is an answer
            }
        }
    }
}

// The display matrix stands in the track header: nine big-endian numbers behind 40 bytes (version
// 0, ISO/IEC 14496-12, 8.3.2).
void set_display_matrix(const fs::path& path, std::array<int, 4> turn) {
    auto bytes = bytes_of(path);
    constexpr std::array<std::uint8_t, 4> kType{'t', 'k', 'h', 'd'};
    const auto header = std::search(bytes.begin(), bytes.end(), kType.begin(), kType.end());
    ASSERT_NE(header, bytes.end());
    constexpr std::array<int, 4> kPlaces{0, 1, 3, 4};
    for (std::size_t i = 0; i < 4; ++i) {
        const auto value = static_cast<std::uint32_t>(turn[i] * 65536);
        for (int byte = 0; byte < 4; ++byte) {
            *(header + 4 + 40 + 4 * kPlaces[i] + byte) =
                static_cast<std::uint8_t>(value >> (24 - 8 * byte));
        }
    }
    write_bytes(path, bytes);
}

// frame seen through x' = a x + c y, y' = b x + d y.
Frame turned(const Frame& frame, std::array<int, 4> turn) {
    const auto [a, b, c, d] = turn;
    Frame result = a == 0 ? Frame(frame.height, frame.width) : Frame(frame.width, frame.height);
    for (int y = 0; y < frame.height; ++y) {
        for (int x = 0; x < frame.width; ++x) {
            const int to_x = a * x + c * y + (a + c < 0 ? result.width - 1 : 0);
            const int to_y = b * x + d * y + (b + d < 0 ? result.height - 1 : 0);
            for (int channel = 0; channel < 3; ++channel) {
                result.rgb[static_cast<std::size_t>((to_y * result.width + to_x) * 3 + channel)] =
                    frame.rgb[static_cast<std::size_t>((y * frame.width + x) * 3 + channel)];
            }
        }
    }
    return result;
}

// EXIF orientations 1 to 8.
constexpr std::array<std::array<int, 4>, 8> kTurns{{{1, 0, 0, 1},
                                                    {-1, 0, 0, 1},
                                                    {-1, 0, 0, -1},
                                                    {1, 0, 0, -1},
                                                    {0, 1, 1, 0},
                                                    {0, 1, -1, 0},
                                                    {0, -1, -1, 0},
                                                    {0, -1, 1, 0}}};

TEST_F(Media, VideosStandUpright) {
    write_video(folder_ / "a.mp4", wave_video(2));
    const Frame plain = read_all(folder_ / "a.mp4").frames.at(1);
    constexpr std::array<int, 8> kRotations{0, 0, 180, 180, 270, 90, 90, 270};
    for (std::size_t i = 0; i < kTurns.size(); ++i) {
        set_display_matrix(folder_ / "a.mp4", kTurns[i]);
        if (HasFatalFailure()) return;
        const Clip clip = read_all(folder_ / "a.mp4");
        ASSERT_EQ(clip.info.width, i < 4 ? kWidth : kHeight) << i;
        EXPECT_EQ(max_error(clip.frames.at(1), turned(plain, kTurns[i])), 0) << i;
        EXPECT_EQ(clip.info.rotation, kRotations[i]) << i;
        EXPECT_EQ(clip.info.mirrored, i == 1 || i == 3 || i == 4 || i == 6) << i;
    }
}

// A JPEG file; orientation 0: without EXIF.
std::vector<std::uint8_t> jpeg(const fs::path& scratch, int orientation) {
    write_by_libav(scratch, {.muxer = "image2",
                             .codec = "mjpeg",
                             .format = AV_PIX_FMT_YUVJ420P,
                             .full_range = true,
                             .times = {0}});
    auto bytes = bytes_of(scratch);
    if (orientation == 0) return bytes;
    // EXIF: a TIFF header and one directory with one entry, tag 0x112.
    std::vector<std::uint8_t> exif{
        0xFF, 0xE1, 0, 34, 'E', 'x', 'i', 'f', 0, 0,
        'M',  'M',  0, 42, 0,   0,   0,   8,   0, 1,
        1,    0x12, 0, 3,  0,   0,   0,   1,   0, static_cast<std::uint8_t>(orientation),
        0,    0,    0, 0,  0,   0};
    bytes.insert(bytes.begin() + 2, exif.begin(), exif.end());
    return bytes;
}

TEST_F(Media, PicturesStandUpright) {
    write_bytes(folder_ / "plain.jpg", jpeg(folder_ / "x.jpg", 0));
    const Frame plain = read_picture(folder_ / "plain.jpg");
    for (int orientation = 1; orientation <= 8; ++orientation) {
        write_bytes(folder_ / "a.jpg", jpeg(folder_ / "x.jpg", orientation));
        const MediaInfo info = probe_media(folder_ / "a.jpg");
        const auto turn = kTurns[static_cast<std::size_t>(orientation) - 1];
        EXPECT_EQ(info.width, orientation < 5 ? 64 : 48);
        EXPECT_EQ(info.mirrored, turn[0] * turn[3] - turn[1] * turn[2] < 0);
        EXPECT_EQ(max_error(read_picture(folder_ / "a.jpg"), turned(plain, turn)), 0);
    }
}

TEST_F(Media, CutPicturesAreRefused) {
    const auto bytes = jpeg(folder_ / "x.jpg", 0);
    write_bytes(folder_ / "a.jpg", std::span(bytes).first(bytes.size() - 3));
    const auto [kind, message] = error_of([&] { read_picture(folder_ / "a.jpg"); });
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_THAT(message, HasSubstr("cut off"));
    write_video(folder_ / "a.png", wave_video(1));
    write_bytes(folder_ / "b.png", first_part(bytes_of(folder_ / "a.png"), 0.8));
    EXPECT_EQ(error_of([&] { read_picture(folder_ / "b.png"); }).first, ErrorKind::io);
}

TEST_F(Media, FoldersAreReadInTheOrderOfTheirNumbers) {
    const auto frames = wave_video(4);
    const fs::path folder = folder_ / "pictures";
    write_video(folder / "f10.png", {frames[2]});
    write_video(folder / "f2.png", {frames[1]});
    write_video(folder / "f001.png", {frames[0]});
    write_video(folder / "f11.png", {flat(32, 32, {1, 2, 3})});
    std::ofstream(folder / "notes.txt") << "not a picture";
    const Clip clip = read_all(folder);
    ASSERT_EQ(clip.frames.size(), 3u);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(max_error(clip.frames[i], frames[i]), 0) << i;
    EXPECT_THAT(clip.damage, HasSubstr("f11.png' is 32x32"));

    fs::create_directory(folder_ / "empty");
    EXPECT_THAT(error_of([&] { VideoReader(folder_ / "empty"); }).second,
                HasSubstr("has no pictures"));
}

TEST_F(Media, WhatIsNoVideoIsRefused) {
    const auto kind_of = [&](const char* name) {
        const auto [kind, message] = error_of([&] { VideoReader reader(folder_ / name); });
        EXPECT_THAT(message, HasSubstr(name));
        return kind;
    };
    EXPECT_EQ(kind_of("missing.mp4"), ErrorKind::not_found);
    std::ofstream(folder_ / "empty.mp4").close();
    EXPECT_EQ(kind_of("empty.mp4"), ErrorKind::io);
    std::ofstream(folder_ / "text.mp4") << "This is not a video, whatever its name says.\n";
    EXPECT_EQ(kind_of("text.mp4"), ErrorKind::io);
    // One second of silence: WAV, 8 kHz, 8 bit.
    std::string wav(
        "RIFF\x64\x1F\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1F\0\0\x40\x1F\0\0\1\0\x08\0data"
        "\x40\x1F\0\0",
        44);
    wav.append(8000, '\x80');
    std::ofstream(folder_ / "sound.wav", std::ios::binary) << wav;
    EXPECT_EQ(kind_of("sound.wav"), ErrorKind::bad_request);
}

// A file from a stranger must not make the reader open others.
TEST_F(Media, PlaylistsReachNoOtherFile) {
    write_video(folder_ / "secret.mp4", wave_video(2));
    const std::string secret = (folder_ / "secret.mp4").string();
    std::ofstream(folder_ / "a.ffconcat") << "ffconcat version 1.0\nfile secret.mp4\n";
    std::ofstream(folder_ / "b.ffconcat") << "ffconcat version 1.0\nfile '" << secret << "'\n";
    std::ofstream(folder_ / "a.m3u8")
        << "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:" << secret << "\n#EXT-X-ENDLIST\n";
    const fs::path before = fs::current_path();
    fs::current_path(folder_);
    for (const char* name : {"a.ffconcat", "b.ffconcat", "a.m3u8"}) {
        EXPECT_EQ(error_of([&] { VideoReader reader(name); }).first, ErrorKind::io) << name;
    }
    fs::current_path(before);
}

TEST_F(Media, ComplaintsOfFfmpegAreNotPrinted) {
    write_video(folder_ / "a.webm", wave_video(24));
    write_bytes(folder_ / "cut.webm", first_part(bytes_of(folder_ / "a.webm"), 0.8));
    testing::internal::CaptureStderr();
    testing::internal::CaptureStdout();
    std::string damage;
    const std::string error =
        error_of([&] { damage = read_all(folder_ / "cut.webm").damage; }).second;
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
    EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
    EXPECT_THAT(damage, HasSubstr("File ended prematurely")) << error;
}

// What Pillow wrote: three frames of one colour, 40, 41 and 250 ms long, of which the second is a
// patch on the first.
TEST_F(Media, AnimatedWebpGivesItsFramesOnTheCanvas) {
    const fs::path path = fs::path(ZT_SOURCE_DIR) / "tests/golden/media/moving.webp";
    const Clip clip = read_all(path);
    EXPECT_EQ(clip.info.container, "webp");
    EXPECT_EQ(clip.info.matrix, "rgb");
    EXPECT_EQ(clip.info.frames, 3);
    EXPECT_NEAR(clip.info.seconds, 0.331, 1e-9);
    EXPECT_NEAR(clip.info.fps, 9, 0.07);  // 3 frames in 0.331 s are 9.06
    ASSERT_EQ(clip.frames.size(), 3u);
    EXPECT_EQ(clip.seconds, (std::vector<double>{0, 0.040, 0.081}));
    EXPECT_EQ(clip.damage, "");
    const auto pixel = [&](std::size_t frame, int x, int y) {
        const auto at = static_cast<std::size_t>(y * 20 + x) * 3;
        const auto& rgb = clip.frames[frame].rgb;
        return std::array<std::uint8_t, 3>{rgb[at], rgb[at + 1], rgb[at + 2]};
    };
    using Color = std::array<std::uint8_t, 3>;
    EXPECT_EQ(pixel(0, 3, 3), (Color{200, 40, 90}));
    EXPECT_EQ(pixel(1, 3, 3), (Color{10, 220, 60}));
    EXPECT_EQ(pixel(1, 19, 11), (Color{200, 40, 90}));
    EXPECT_EQ(pixel(2, 3, 3), (Color{30, 60, 240}));
    // The first frame as a picture, too.
    EXPECT_EQ(read_picture(path).rgb, clip.frames[0].rgb);

    auto bytes = bytes_of(path);
    bytes.resize(bytes.size() - 20);
    write_bytes(folder_ / "cut.webp", bytes);
    const auto [kind, message] = error_of([&] { read_all(folder_ / "cut.webp"); });
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_THAT(message, HasSubstr("broken or truncated"));
}

}  // namespace
}  // namespace zoetrope
