// Videos as frames by number, in memory that does not grow with their length.
//
// A FrameSequence is a handle; its copies share one video and the place in it. Behind it stand
// - a file or a folder of pictures. Opening decodes it once from end to end: the number of frames
// is
//   then known, and damage is told before any work. Frames are decoded again as they are asked for,
//   and the last of them stay in a window. Going back further decodes from the beginning again:
//   right, but slow, and counted;
// - frames in memory;
// - a track of a FrameFeed (media/frame_feed.h), which another thread fills: at() then waits.
// One thread per video. Errors: VideoReader's; io for a file that breaks off, or that changes while
// it is read; internal for a number out of range.
#pragma once

#include "base/frames.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

namespace zoetrope {

class FrameFeed;

struct SequenceOptions {
    int most_frames = 0;  // the first ones, and no look at the rest; 0: all
    // What stays decoded: two of Wan-Animate's longest segments, or as many frames as these bytes
    // hold, at least one.
    int window_frames = 2 * 153;
    std::int64_t window_bytes = std::int64_t{768} << 20;
};

class FrameSequence {
public:
    FrameSequence() = default;  // no frames
    explicit FrameSequence(std::vector<Frame> frames);
    // The frames that a feed's track will have.
    FrameSequence(std::shared_ptr<FrameFeed> feed, int track);
    static FrameSequence open(const std::filesystem::path& path,
                              const SequenceOptions& options = {});

    int size() const;
    bool empty() const { return size() == 0; }
    int width() const;  // of the first frame, pixels; 0 where there is none
    int height() const;

    // Valid until the next call for this video.
    const Frame& at(int i) const;

    // The most bytes of frames that are held at once.
    std::int64_t most_bytes() const;
    // How often a file was read from the beginning again because of a step back.
    int times_reopened() const;

    class Source;

private:
    explicit FrameSequence(std::shared_ptr<Source> source);

    std::shared_ptr<Source> source_;
};

}  // namespace zoetrope
