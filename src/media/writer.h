// Frames to a video file, one by one: MP4, WebM, Matroska, QuickTime, GIF or PNG by its ending
// (media/formats.h).
//
// Frames are encoded as they come: memory does not grow with the length. The file is complete or
// absent: it grows under a hidden name beside its target and gets its own name in finish(), after
// its bytes are on the disk; missing folders are made, and removed again with an unfinished file.
// The same frames and options give the same bytes. RGB becomes BT.709 limited range, and the file
// says so. PNG: one frame is one file; several become out_00000.png, out_00001.png and so on.
// One thread per object. Errors: bad_request (ending, size, rate, no frames), io, unsupported (an
// FFmpeg without the encoder).
#pragma once

#include "base/frames.h"

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace zoetrope {

struct WriteOptions {
    double fps = 16;        // 23.976 and 29.97 mean 24000/1001 and 30000/1001; PNG has no rate
    int crf = -1;           // constant rate factor, lower is better; -1: the format's default
    bool quick = false;     // H.264 in a fraction of the time, in a larger file of the same quality
    int threads = 1;        // of the encoder; a fixed number, since the bytes may depend on it
    bool lossless = false;  // every pixel as it is, in .mkv: FFV1
    // title, comment, description, ... in UTF-8; GIF keeps the comment only.
    std::map<std::string, std::string> metadata;
    // A file whose sound goes along, from its first picture on and no longer than the frames do;
    // PNG and GIF stay silent. Empty: none.
    std::filesystem::path audio;
    // Takes each frame as a reader of the finished file will see it, in their order, some frames
    // after it was written; the last of them within finish(). Not for PNG and GIF.
    std::function<void(Frame)> echo;
};

class FrameSink;
struct VideoFormat;

class VideoWriter {
public:
    // Creates the hidden file, so that what cannot be written is known at once.
    VideoWriter(const std::filesystem::path& path, WriteOptions options);
    ~VideoWriter();  // removes an unfinished file
    VideoWriter(VideoWriter&&) noexcept;
    VideoWriter& operator=(VideoWriter&&) noexcept;

    // All frames have the size of the first.
    void write(const Frame& frame);

    // Ends the file and gives it its name; returns what was written: one path, or one per PNG. No
    // other call may follow.
    std::vector<std::filesystem::path> finish();

private:
    std::filesystem::path path_;
    WriteOptions options_;
    const VideoFormat* format_;
    std::unique_ptr<FrameSink> sink_;  // empty once finished or failed
    int width_ = 0;
    int height_ = 0;
    std::int64_t frames_ = 0;
};

}  // namespace zoetrope
