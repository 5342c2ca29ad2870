// Video files, pictures and folders of numbered pictures to frames, one by one.
//
// Any container and codec that FFmpeg reads, and animated WebP, found by content, never by the
// name; playlists that would open other files are refused. Frames come upright (display matrix,
// EXIF orientation) and in 8-bit RGB, by the colour matrix and range that the file says, else
// BT.601 for SD and BT.709 for HD, limited range; alpha is dropped. Memory does not grow with the
// length. A file that breaks off gives its frames up to the break and then says so. One thread per
// object (the decoder has threads of its own). Errors: not_found, io (no media, no frame that can
// be decoded), bad_request (no video in it).
#pragma once

#include "base/frames.h"

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

namespace zoetrope {

struct MediaInfo {
    int width = 0;  // of the frames as they come: upright
    int height = 0;
    double fps = 0;           // average; 0: a picture
    std::int64_t frames = 0;  // as the file's header counts, an estimate; 0: it does not say
    double seconds = 0;       // 0: not known
    double pixel_aspect = 1;  // width of a pixel over its height, as they come
    int rotation = 0;         // degrees clockwise that were applied: 0, 90, 180 or 270
    bool mirrored = false;    // flipped left to right, before the rotation
    int bits = 8;             // per sample, in the file
    std::string container;    // FFmpeg's names
    std::string codec;
    std::string pixel_format;
    std::string matrix;  // "rgb", "bt601", "bt709", "bt2020", "smpte240m", "fcc"
    bool full_range = false;
    std::map<std::string, std::string> metadata;  // keys in lower case; UTF-8
};

struct TimedFrame {
    Frame frame;         // info().width x info().height
    double seconds = 0;  // since the first frame; not evenly spaced where the rate varies
};

struct ReadOptions {
    double pictures_fps = 16;  // the rate that a folder of pictures is taken to have
    int threads = 0;           // of a file's decoder; 0: as many as the machine has
};

class FrameSource;

class VideoReader {
public:
    // Opens and decodes the first frame. A folder is read in the order of the numbers in the names
    // of its pictures (frame2 before frame10); all have the size of the first.
    explicit VideoReader(const std::filesystem::path& path, const ReadOptions& options = {});
    ~VideoReader();
    VideoReader(VideoReader&&) noexcept;
    VideoReader& operator=(VideoReader&&) noexcept;

    const MediaInfo& info() const;

    // The next frame; nothing at the end or at a break.
    std::optional<TimedFrame> read();
    // Decodes the next frame for its time alone, seconds; nothing where read() gives nothing.
    std::optional<double> skip();

    // Once read() gave nothing: why the file ends early; empty where it is whole.
    const std::string& damage() const;

private:
    std::unique_ptr<FrameSource> source_;
};

// What a file is, from its header and first frame.
MediaInfo probe_media(const std::filesystem::path& path);

// A picture, or the first frame of a video, as FFmpeg decodes it; load_picture() of picture.h gives
// Pillow's pixels.
Frame read_picture(const std::filesystem::path& path);

}  // namespace zoetrope
