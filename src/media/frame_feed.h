// Videos on their way from the threads that make them to the one that uses them.
//
// A feed has one or more tracks of equal length, the videos of one clip, each filled in its order.
// Memory is bounded: push() waits while its track lies `ahead` frames before the place where it is
// read, unless the reader waits for a frame of any track (it may need all of one before it begins
// with the next: so nothing can block for ever). Frames more than `back` behind the last one read
// are let go. push() may be called by several threads, for a track by one at a time; at() by one
// thread. Errors: what the filling ended with; cancelled for pushes after stop(); internal for
// frames that were let go.
#pragma once

#include "base/frames.h"

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <vector>

namespace zoetrope {

struct FeedOptions {
    int tracks = 1;
    int size = 0;                  // frames of each track
    int ahead = 153;               // frames
    int back = 16;                 // frames
    std::int64_t frame_bytes = 0;  // the most that a frame takes, for most_bytes()
};

class FrameFeed {
public:
    explicit FrameFeed(const FeedOptions& options);

    // The filling side.
    void push(int track, Frame frame);
    // What is pushed may be used. Before, at() waits until `ahead` frames are there.
    void release();
    void end();  // no more frames
    void fail(std::exception_ptr error);

    // The reading side.
    int size() const { return options_.size; }
    const Frame& at(int track, int i);  // valid until the next call for this track
    // Nothing more is read: pushes go on, and what they bring is dropped.
    void drain();
    // Nothing more is read: pushes throw.
    void stop();

    // As it was made: for another run, which reads no frame before that one.
    void restart(int first = 0);

    bool reader_waits() const;
    std::int64_t most_bytes() const;  // of a track
    double reader_waited() const;     // seconds in at()
    double filler_waited() const;     // seconds in push(), over all threads

private:
    struct Track {
        std::deque<Frame> frames;
        int first = 0;  // number of frames.front()
        int next = 0;   // the frame behind the last one read

        int end() const { return first + static_cast<int>(frames.size()); }
    };
    enum class State { open, draining, stopped };

    bool there(const Track& track, int i) const;
    bool is_full(const Track& track) const;
    bool is_hungry() const { return reader_waits_ && !there(tracks_[wanted_track_], wanted_); }

    FeedOptions options_;
    mutable std::mutex mutex_;  // of everything below
    std::condition_variable changed_;
    std::vector<Track> tracks_;
    State state_ = State::open;
    int dropped_ = 0;  // the first frames of each track, which nobody reads
    bool released_ = false;
    bool ended_ = false;
    bool reader_waits_ = false;  // for frame wanted_ of wanted_track_
    std::size_t wanted_track_ = 0;
    int wanted_ = 0;
    std::exception_ptr error_;
    double reader_waited_ = 0;
    double filler_waited_ = 0;
};

}  // namespace zoetrope
