#include "media/frame_feed.h"

#include "base/error.h"
#include "base/timer.h"

#include <algorithm>
#include <utility>

namespace zoetrope {
FrameFeed::FrameFeed(const FeedOptions& options)
    : options_(options), tracks_(static_cast<std::size_t>(options.tracks)) {}

bool FrameFeed::is_full(const Track& track) const {
    return state_ == State::open && !is_hungry() && track.end() - track.next >= options_.ahead;
}

void FrameFeed::push(int track, Frame frame) {
    std::unique_lock lock(mutex_);
    Track& into = tracks_[static_cast<std::size_t>(track)];
    if (is_full(into)) {
        const Timer timer;
        changed_.wait(lock, [&] { return !is_full(into); });
        filler_waited_ += timer.seconds();
    }
    ZT_CHECK(state_ != State::stopped, cancelled, "nobody takes the frames any more");
    if (state_ == State::draining) return;
    if (into.end() < dropped_) {
        ++into.first;
        return;
    }
    into.frames.push_back(std::move(frame));
    changed_.notify_all();
}

void FrameFeed::release() {
    const std::lock_guard lock(mutex_);
    released_ = true;
    changed_.notify_all();
}

void FrameFeed::end() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
}

void FrameFeed::fail(std::exception_ptr error) {
    const std::lock_guard lock(mutex_);
    error_ = std::move(error);
    changed_.notify_all();
}

bool FrameFeed::there(const Track& track, int i) const {
    if (track.end() <= i) return false;
    return released_ || ended_ || track.end() - track.next >= options_.ahead;
}

const Frame& FrameFeed::at(int track, int i) {
    std::unique_lock lock(mutex_);
    Track& from = tracks_[static_cast<std::size_t>(track)];
    if (!there(from, i) && !ended_ && !error_) {
        const Timer timer;
        reader_waits_ = true;
        wanted_track_ = static_cast<std::size_t>(track);
        wanted_ = i;
        changed_.notify_all();
        changed_.wait(lock, [&] { return there(from, i) || ended_ || error_; });
        reader_waits_ = false;
        reader_waited_ += timer.seconds();
    }
    if (!there(from, i) && error_) std::rethrow_exception(error_);
    ZT_CHECK(there(from, i), io, "the driving clip gave {} frames, {} were counted in it",
             from.end(), options_.size);
    ZT_CHECK(i >= from.first, internal, "frame {} was let go, the first that is kept is {}", i,
             from.first);
    from.next = std::max(from.next, i + 1);
    while (from.first + options_.back < from.next - 1 && from.first < i) {
        from.frames.pop_front();
        ++from.first;
    }
    changed_.notify_all();
    return from.frames[static_cast<std::size_t>(i - from.first)];
}

void FrameFeed::drain() {
    const std::lock_guard lock(mutex_);
    state_ = State::draining;
    for (Track& track : tracks_) {
        track.first = track.end();
        track.frames.clear();
    }
    changed_.notify_all();
}

void FrameFeed::stop() {
    const std::lock_guard lock(mutex_);
    state_ = State::stopped;
    changed_.notify_all();
}

void FrameFeed::restart(int first) {
    const std::lock_guard lock(mutex_);
    tracks_.assign(tracks_.size(), Track{.frames = {}, .first = 0, .next = first});
    dropped_ = std::max(0, first - options_.back);
    state_ = State::open;
    released_ = ended_ = false;
    error_ = nullptr;
    reader_waited_ = filler_waited_ = 0;
}

bool FrameFeed::reader_waits() const {
    const std::lock_guard lock(mutex_);
    return reader_waits_;
}

std::int64_t FrameFeed::most_bytes() const {
    return options_.frame_bytes * std::min(options_.size, options_.ahead + options_.back);
}

double FrameFeed::reader_waited() const {
    const std::lock_guard lock(mutex_);
    return reader_waited_;
}

double FrameFeed::filler_waited() const {
    const std::lock_guard lock(mutex_);
    return filler_waited_;
}

}  // namespace zoetrope
