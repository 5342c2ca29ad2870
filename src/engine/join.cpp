#include "engine/join.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

namespace zoetrope {
namespace {

// A channel of less contrast keeps it: the ratio of two small deviations is mostly noise, and grows
// from join to join (a red of 4 levels had twice its contrast after 24).
constexpr double kFlat = 8.0 / 255;

// One number per channel: [3, 1, 1, 1] fp32.
at::Tensor per_channel(const std::array<float, 3>& values) {
    return at::tensor(at::ArrayRef<float>(values), at::kFloat).view({3, 1, 1, 1});
}

at::Tensor fused(const at::Tensor& earlier, const at::Tensor& later, OverlapFusion fusion) {
    const int n = static_cast<int>(earlier.size(1));
    const std::vector<float> each = fusion_weights(fusion, n);
    const at::Tensor weights = at::tensor(at::ArrayRef<float>(each), at::kFloat).view({1, n, 1, 1});
    return earlier + (later - earlier) * weights;
}

// The last n frames of [3, m, H, W].
at::Tensor last_frames(const at::Tensor& frames, std::int64_t n) {
    const std::int64_t kept = std::min(n, frames.size(1));
    return frames.narrow(1, frames.size(1) - kept, kept);
}

}  // namespace

void ColorSums::add(const at::Tensor& frames) {
    for (std::int64_t i = 0; i < frames.size(1); ++i) {  // one by one: they are widened
        const at::Tensor flat = frames.select(1, i).reshape({3, -1}).to(at::kDouble);
        const at::Tensor sums = at::sum(flat, {1});
        const at::Tensor squares = at::sum(flat * flat, {1});
        for (std::size_t c = 0; c < 3; ++c) {
            sum_[c] += sums.const_data_ptr<double>()[c];
            squares_[c] += squares.const_data_ptr<double>()[c];
        }
        count_ += flat.size(1);
    }
}

ColorStatistics ColorSums::statistics() const {
    ColorStatistics statistics;
    if (count_ == 0) return statistics;
    const auto count = static_cast<double>(count_);
    for (std::size_t c = 0; c < 3; ++c) {
        const double mean = sum_[c] / count;
        statistics.mean[c] = mean;
        statistics.deviation[c] = std::sqrt(std::max(0.0, squares_[c] / count - mean * mean));
    }
    return statistics;
}

ColorTransfer::ColorTransfer(const ColorStatistics& from, const ColorStatistics& to) {
    for (std::size_t c = 0; c < 3; ++c) {
        const bool flat = from.deviation[c] < kFlat || to.deviation[c] < kFlat;
        const double scale = flat ? 1 : to.deviation[c] / from.deviation[c];
        scale_[c] = static_cast<float>(scale);
        offset_[c] = static_cast<float>(to.mean[c] - scale * from.mean[c]);
    }
}

at::Tensor ColorTransfer::apply(const at::Tensor& frames) const {
    return (frames * per_channel(scale_)).add_(per_channel(offset_)).clamp_(0, 1);
}

std::vector<float> fusion_weights(OverlapFusion fusion, int n) {
    std::vector<float> weights;
    for (int i = 0; i < n; ++i) {
        const double linear = (i + 1.0) / (n + 1.0);
        const double weight = fusion == OverlapFusion::last ? 0
                              : fusion == OverlapFusion::linear
                                  ? linear
                                  : (1 - std::cos(std::numbers::pi * linear)) / 2;
        weights.push_back(static_cast<float>(weight));
    }
    return weights;
}

Joiner::Joiner(const ResolvedRequest& request, Carried& carried, const FrameCallback& sink)
    : request_(request),
      segment_(request.segments.segments[static_cast<std::size_t>(carried.next_segment)]),
      carried_(carried),
      sink_(sink),
      measured_(request.segments.segments.size() > 1) {
    const auto& segments = request.segments.segments;
    const auto next = static_cast<std::size_t>(carried.next_segment) + 1;
    next_carries_ = next < segments.size() && segments[next].carried_frames > 0;
    // The shared frames are handed out by the earlier segment, or once they are blended.
    const bool blended = request.joins.fusion != OverlapFusion::last;
    timeline_ = segment_.start + (blended ? 0 : segment_.carried_frames);
    if (segment_.carried_frames > 0) recent_ = carried.tail;
}

void Joiner::push(int output, const at::Tensor& frames) {
    if (std::exchange(output_, output) != output) {
        position_ = 0;
        timeline_ = segment_.start;  // several outputs have one segment
        carried_.frames_given = 0;
    }
    const std::int64_t shared =
        std::clamp<std::int64_t>(segment_.carried_frames - position_, 0, frames.size(1));
    position_ += static_cast<int>(frames.size(1));
    if (shared > 0) {
        head_.push_back(frames.narrow(1, 0, shared));
        if (position_ >= segment_.carried_frames) join_head();
    }
    if (shared == frames.size(1)) return;
    const at::Tensor rest = frames.narrow(1, shared, frames.size(1) - shared);
    add(transfer_ ? transfer_->apply(rest) : rest);
}

void Joiner::join_head() {
    at::Tensor head = at::cat(head_, 1);
    head_.clear();
    ColorSums earlier, later;
    earlier.add(carried_.tail);
    later.add(head);
    drift_.before = earlier.statistics();
    const ColorStatistics own = later.statistics();
    const bool given = request_.joins.fusion == OverlapFusion::last;  // the shared frames are
    drift_.join = carried_.next_segment;
    drift_.frame = carried_.frames_given + (given ? 0 : static_cast<int>(carried_.tail.size(1)));
    for (std::size_t c = 0; c < 3; ++c)
        drift_.overlap_mean_difference[c] = own.mean[c] - drift_.before.mean[c];
    if (request_.joins.color_match) {
        transfer_.emplace(own, drift_.before);
        head = transfer_->apply(head);
    }
    if (given) return;
    recent_ = fused(carried_.tail, head, request_.joins.fusion);
    waiting_ = true;
}

void Joiner::add(const at::Tensor& frames) {
    if (measured_) {
        segment_sums_.add(frames);
        const std::int64_t counted =
            std::clamp<std::int64_t>(segment_.carried_frames - after_, 0, frames.size(1));
        if (counted > 0) after_sums_.add(frames.narrow(1, 0, counted));
        after_ += static_cast<int>(counted);
    }
    const bool held = next_carries_ && request_.joins.fusion != OverlapFusion::last;
    const at::Tensor joined = recent_.defined() ? at::cat({recent_, frames}, 1) : frames;
    const std::int64_t kept =
        next_carries_ ? std::min<std::int64_t>(request_.segments.overlap, joined.size(1)) : 0;
    if (held || waiting_) {
        const std::int64_t ready = joined.size(1) - (held ? kept : 0);
        if (ready > 0) hand_out(joined.narrow(1, 0, ready));
    } else {
        hand_out(frames);
    }
    recent_ = kept > 0 ? last_frames(joined, kept) : at::Tensor();
    waiting_ = held;
}

void Joiner::hand_out(const at::Tensor& frames) {
    const plan::SegmentPlan& plan = request_.segments;
    const int count = static_cast<int>(frames.size(1));
    int wanted = 0;  // padding stands at a shot's end
    while (wanted < count && !plan::is_padding(plan, timeline_ + wanted)) ++wanted;
    timeline_ += count;
    if (wanted == 0) return;
    carried_.frames_given += wanted;
    if (sink_) sink_(output_, frames.narrow(1, 0, wanted));
}

void Joiner::finish() {
    carried_.next_segment += 1;
    if (!measured_) return;
    if (segment_.carried_frames > 0) {
        drift_.after = after_sums_.statistics();
        drift_.segment = segment_sums_.statistics();
        drift_.first = carried_.first.value_or(drift_.segment);
        carried_.drift.push_back(drift_);
    } else {
        carried_.first = segment_sums_.statistics();
    }
    carried_.tail = recent_.defined() ? recent_.clone() : at::Tensor();
}

}  // namespace zoetrope
