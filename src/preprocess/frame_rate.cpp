#include "preprocess/frame_rate.h"

#include "base/error.h"

#include <cmath>

namespace zoetrope::preprocess {
namespace {

constexpr double kSlack = 1e-6;     // frames
constexpr double kRounding = 1e-3;  // seconds, of times in files (Matroska)

}  // namespace

FrameSampler::FrameSampler(Source source, double source_fps, double fps)
    : source_(std::move(source)), fps_(fps) {
    ZT_CHECK(fps >= 0 && std::isfinite(fps), bad_request,
             "--fps is {}: accepted are 0 (the clip's own) and more", fps);
    const double any = fps > 0 ? fps : 1;
    frame_seconds_ = 1 / (source_fps > 0 ? source_fps : any);
}

bool FrameSampler::read_one() {
    if (ended_) return false;
    auto frame = source_();
    if (!frame) {
        ended_ = true;
        return false;
    }
    near_.push_back(std::move(*frame));
    return true;
}

// Of two that are as near, the one with the even number, as NumPy rounds.
std::size_t FrameSampler::nearest(double seconds) const {
    if (near_.size() == 1) return 0;
    const double before = seconds - near_[0].seconds;
    const double behind = near_[1].seconds - seconds;
    if (std::abs(before - behind) <= kSlack * frame_seconds_) return first_index_ % 2 == 0 ? 0 : 1;
    return behind < before ? 1 : 0;
}

std::optional<Frame> FrameSampler::next() {
    if (fps_ == 0) {
        auto frame = source_();
        if (!frame) return std::nullopt;
        return std::move(frame->frame);
    }
    const double now = static_cast<double>(next_) / fps_;
    // Until the end of this output frame is known to lie within the source.
    const auto reaches = [&] {
        return !near_.empty() && near_.back().seconds >= now &&
               (near_.back().seconds + frame_seconds_ + kRounding) * fps_ >=
                   static_cast<double>(next_ + 1);
    };
    while (true) {
        while (near_.size() > 1 && near_[1].seconds <= now) {
            near_.pop_front();
            ++first_index_;
        }
        if (reaches() || !read_one()) break;
    }
    if (near_.empty()) return std::nullopt;
    const bool lasts = (near_.back().seconds + frame_seconds_ + kRounding) * fps_ >=
                       static_cast<double>(next_ + 1);
    if (ended_ && next_ > 0 && !lasts) return std::nullopt;
    ++next_;
    return near_[nearest(now)].frame;
}

}  // namespace zoetrope::preprocess
