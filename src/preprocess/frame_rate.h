// Frames at an even rate from frames with times: each output frame is the one nearest in time.
//
// Holds the few frames around the time at hand. One thread.
#pragma once

#include "media/reader.h"

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>

namespace zoetrope::preprocess {

class FrameSampler {
public:
    using Source = std::function<std::optional<TimedFrame>()>;

    // source_fps: the average rate, how long the last frame lasts. fps: of the output; 0: every
    // frame of the source as it comes.
    FrameSampler(Source source, double source_fps, double fps);

    // The next output frame; as many in all as fit into the source's duration, one at least.
    std::optional<Frame> next();

private:
    bool read_one();
    std::size_t nearest(double seconds) const;

    Source source_;
    double frame_seconds_;
    double fps_;
    std::deque<TimedFrame> near_;   // in the order of their times
    std::int64_t first_index_ = 0;  // of near_.front() in the source
    std::int64_t next_ = 0;
    bool ended_ = false;
};

}  // namespace zoetrope::preprocess
