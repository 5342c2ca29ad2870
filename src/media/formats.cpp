#include "media/formats.h"

#include "base/error.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>

namespace zoetrope {
namespace {

// GIF counts delays in 1/100 s, and browsers play delays below 2/100 s at 10 frames per second.
constexpr double kGifMaxFps = 50;
constexpr double kMaxFps = 1000;

// The default rate factors are visually lossless: mean error about one grey level in natural
// pictures (tests/media_test.cpp holds them to it).
constexpr std::array kFormats{
    VideoFormat{".mp4", "mp4", "libx264", true, kMaxFps, 17, 51, "H.264 in MP4"},
    VideoFormat{".webm", "webm", "libvpx-vp9", true, kMaxFps, 20, 63, "VP9 in WebM"},
    VideoFormat{".mkv", "matroska", "libx264", true, kMaxFps, 17, 51, "H.264 in Matroska"},
    VideoFormat{".mov", "mov", "libx264", true, kMaxFps, 17, 51, "H.264 in QuickTime"},
    VideoFormat{".gif", "gif", "gif", false, kGifMaxFps, -1, -1, "animated GIF"},
    VideoFormat{".png", "", "png", false, kMaxFps, -1, -1, "PNG, a numbered file per frame"},
};

constexpr VideoFormat kLossless{".mkv",  "matroska", "ffv1", false,
                                kMaxFps, -1,         -1,     "FFV1 in Matroska"};

}  // namespace

std::span<const VideoFormat> video_formats() { return kFormats; }

const VideoFormat& lossless_format() { return kLossless; }

std::string video_endings() {
    std::string list;
    for (const VideoFormat& format : kFormats) {
        if (!list.empty()) list += ", ";
        list += format.ending;
    }
    return list;
}

const VideoFormat& video_format_of(const std::filesystem::path& path) {
    std::string ending = path.extension().string();
    std::transform(ending.begin(), ending.end(), ending.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const auto found = std::find_if(kFormats.begin(), kFormats.end(),
                                    [&](const VideoFormat& f) { return f.ending == ending; });
    ZT_CHECK(found != kFormats.end(), bad_request,
             "cannot write '{}': its ending '{}' is not a known format; accepted are {}",
             path.string(), path.extension().string(), video_endings());
    return *found;
}

void check_video_output(const std::filesystem::path& path, int width, int height, double fps) {
    check_video_output(path, video_format_of(path), width, height, fps);
}

void check_video_output(const std::filesystem::path& path, const VideoFormat& format, int width,
                        int height, double fps) {
    ZT_CHECK(width > 0 && height > 0, bad_request, "cannot write '{}': the size is {}x{}",
             path.string(), width, height);
    ZT_CHECK(!format.even_size || (width % 2 == 0 && height % 2 == 0), bad_request,
             "cannot write '{}': the size is {}x{}, and {} needs an even width and height; choose "
             "an even size, or .gif or .png",
             path.string(), width, height, format.ending);
    ZT_CHECK(std::isfinite(fps) && fps > 0 && fps <= format.max_fps, bad_request,
             "cannot write '{}': the frame rate is {}; {} takes more than 0 and at most {} frames "
             "per second",
             path.string(), fps, format.ending, format.max_fps);
}

}  // namespace zoetrope
