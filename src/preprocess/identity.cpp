#include "preprocess/identity.h"

#include "base/error.h"
#include "preprocess/face_box.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace zoetrope::preprocess {
namespace {

constexpr float kSamePersonOverlap = 0.15F;  // of boxes in frames that follow each other
constexpr float kNearby =
    0.5F;  // distance of centres, in the person's size, that counts as the same
constexpr float kCutShare = 0.45F;  // of the colours that change between two shots
// Mean change of a field's brightness between two shots. Of a film's five cuts the least was 38; of
// 1300 other pairs of frames, of twelve clips, the largest 16.
constexpr float kCutBrightness = 27;
constexpr std::size_t kFields = 64;
constexpr double kForgotten = 1.0;  // seconds after which somebody else may be followed
constexpr std::int64_t kFaceReach =
    4;  // frames to both sides over which the face's box is smoothed

Point centre_of(const Box& box) { return {(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, 0}; }

float mix(float a, float b, float share) { return a + (b - a) * share; }

Point mix(const Point& a, const Point& b, float share) {
    return {mix(a.x, b.x, share), mix(a.y, b.y, share), std::min(a.score, b.score)};
}

Person mix(const Person& a, const Person& b, float share) {
    Person between = share < 0.5F ? a : b;  // the outline of the nearer one
    for (std::size_t i = 0; i < kWholeBodyPoints; ++i)
        between.points[i] = mix(a.points[i], b.points[i], share);
    between.box = {mix(a.box.x0, b.box.x0, share), mix(a.box.y0, b.box.y0, share),
                   mix(a.box.x1, b.box.x1, share), mix(a.box.y1, b.box.y1, share)};
    return between;
}

std::optional<Box> any_face_box(const Person& person) {
    const auto face = face_box_of(person.points);
    return face ? face : head_box_of(person.points);
}

}  // namespace

BadFrames parse_bad_frames(std::string_view text) {
    if (text == "hold") return BadFrames::hold;
    if (text == "interpolate") return BadFrames::interpolate;
    ZT_CHECK(text == "stop", bad_request,
             "--on-bad-frame is '{}': accepted are hold, interpolate and stop", text);
    return BadFrames::stop;
}

PersonChoice parse_person_choice(std::string_view text) {
    if (text == "largest") return {};
    if (text == "center") return {.kind = PersonChoice::Kind::center};
    int nth = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), nth);
    ZT_CHECK(error == std::errc() && end == text.data() + text.size() && nth >= 1, bad_request,
             "--person is '{}': accepted are largest, center and a number from 1 (from the left)",
             text);
    return {.kind = PersonChoice::Kind::nth, .nth = nth};
}

ColorShares color_shares_of(const Frame& frame) {
    constexpr std::size_t kStep = 7;  // every seventh pixel of a row says enough
    ColorShares found;
    std::array<float, kFields> counts{};  // pixels
    float count = 0;
    const auto width = static_cast<std::size_t>(frame.width);
    const auto height = static_cast<std::size_t>(frame.height);
    for (std::size_t y = 0; y < height; ++y) {
        const std::uint8_t* row = frame.rgb.data() + y * width * 3;
        for (std::size_t x = y % kStep; x < width; x += kStep) {
            const std::uint8_t* pixel = row + x * 3;
            found.shares[static_cast<std::size_t>((pixel[0] >> 6) * 16 + (pixel[1] >> 6) * 4 +
                                                  (pixel[2] >> 6))] += 1;
            const std::size_t field = y * 8 / height * 8 + x * 8 / width;
            found.fields[field] += static_cast<float>(pixel[0] + pixel[1] + pixel[2]) / 3;
            counts[field] += 1;
            count += 1;
        }
    }
    for (float& share : found.shares) share /= std::max(count, 1.0F);
    for (std::size_t i = 0; i < counts.size(); ++i) found.fields[i] /= std::max(counts[i], 1.0F);
    return found;
}

bool is_cut(const ColorShares& before, const ColorShares& after) {
    float moved = 0, brightness = 0;
    for (std::size_t i = 0; i < before.shares.size(); ++i) {
        moved += std::abs(before.shares[i] - after.shares[i]) / 2;
        brightness += std::abs(before.fields[i] - after.fields[i]);
    }
    return moved > kCutShare || brightness > kCutBrightness * static_cast<float>(kFields);
}

IdentityJoiner::IdentityJoiner(PersonChoice choice, BadFrames bad_frames, double fps)
    : choice_(choice), bad_frames_(bad_frames), fps_(fps) {}

const Person* IdentityJoiner::choose(const FrameAnalysis& analysis) const {
    const auto& people = analysis.people;
    if (people.empty()) return nullptr;
    const auto middle = static_cast<float>(analysis.width) / 2;
    const auto away = [middle](const Person& p) { return std::abs(centre_of(p.box).x - middle); };
    switch (choice_.kind) {
        case PersonChoice::Kind::largest: return &people.front();
        case PersonChoice::Kind::center:
            return &*std::min_element(
                people.begin(), people.end(),
                [&](const auto& a, const auto& b) { return away(a) < away(b); });
        case PersonChoice::Kind::nth: {
            std::vector<const Person*> row;
            for (const Person& person : people) row.push_back(&person);
            std::stable_sort(row.begin(), row.end(), [](const Person* a, const Person* b) {
                return centre_of(a->box).x < centre_of(b->box).x;
            });
            const auto n = static_cast<std::size_t>(choice_.nth);
            return row[std::min(n, row.size()) - 1];
        }
    }
    return nullptr;
}

const Person* IdentityJoiner::follow(const FrameAnalysis& analysis) const {
    const Person* best = nullptr;
    float best_overlap = -1;
    const float size = std::max(last_->box.width(), last_->box.height());
    for (const Person& person : analysis.people) {
        const Point a = centre_of(person.box);
        const Point b = centre_of(last_->box);
        const float overlap = overlap_of(person.box, last_->box);
        const bool same =
            overlap > kSamePersonOverlap || std::hypot(a.x - b.x, a.y - b.y) < kNearby * size;
        if (same && overlap > best_overlap) {
            best = &person;
            best_overlap = overlap;
        }
    }
    return best;
}

void IdentityJoiner::push(FrameAnalysis analysis) {
    Entry entry;
    entry.joined.frame = pushed_;
    entry.joined.cut = colors_ && is_cut(*colors_, analysis.colors);
    colors_ = analysis.colors;
    const bool forgotten =
        following_ && static_cast<double>(pushed_ - last_seen_) > kForgotten * fps_;
    if (entry.joined.cut || forgotten) following_ = false;
    const Person* person = following_ ? follow(analysis) : choose(analysis);
    if (person == nullptr) {
        entry.joined.why_not = analysis.people.empty() ? "nobody" : "another person";
        ZT_CHECK(
            bad_frames_ != BadFrames::stop, bad_request,
            "frame {} ({:.2f} s) shows {}: cut it out of the clip, or take --on-bad-frame hold "
            "or interpolate",
            pushed_, static_cast<double>(pushed_) / fps_,
            analysis.people.empty() ? "nobody" : "only others than the person followed");
        entry.joined.person = last_;
    } else {
        entry.joined.found = true;
        entry.joined.person = *person;
        entry.raw_face = any_face_box(*person);
        const bool shot_goes_on = following_;
        if (bad_frames_ == BadFrames::interpolate && shot_goes_on && last_seen_ < pushed_ - 1)
            fill_gap(*person);
        last_ = *person;
        last_seen_ = pushed_;
        following_ = true;
    }
    entries_.push_back(std::move(entry));
    ++pushed_;
    settle();
}

// The frames between the last good one and this one that are still held back.
void IdentityJoiner::fill_gap(const Person& after) {
    const auto gap = static_cast<float>(pushed_ - last_seen_);
    for (std::int64_t frame = std::max(last_seen_ + 1, ready_); frame < pushed_; ++frame) {
        const float share = static_cast<float>(frame - last_seen_) / gap;
        entries_[static_cast<std::size_t>(frame - first_)].joined.person =
            mix(*last_, after, share);
    }
}

void IdentityJoiner::end() {
    ended_ = true;
    settle();
}

void IdentityJoiner::settle() {
    ready_ = ended_ ? pushed_ : std::max<std::int64_t>(pushed_ - kLookAhead, 0);
}

JoinedFrame IdentityJoiner::take() {
    ZT_CHECK(taken_ < ready_, internal, "frame {} was taken before it was joined", taken_);
    const std::int64_t frame = taken_++;
    const auto at = [this](std::int64_t k) -> Entry& {
        return entries_[static_cast<std::size_t>(k - first_)];
    };
    // Within the shot only.
    std::int64_t from = frame;
    while (from > first_ && from > frame - kFaceReach && !at(from).joined.cut) --from;
    std::int64_t to = frame;
    while (to + 1 < pushed_ && to < frame + kFaceReach && !at(to + 1).joined.cut) ++to;
    std::vector<std::optional<Box>> boxes;
    for (std::int64_t k = from; k <= to; ++k) boxes.push_back(at(k).raw_face);
    JoinedFrame joined = at(frame).joined;
    joined.face = smoothed(boxes, static_cast<std::size_t>(frame - from));
    // Nobody was seen yet: the first person that will be, if near.
    for (std::int64_t k = frame + 1; !joined.person && k < pushed_ && !at(k).joined.cut; ++k)
        joined.person = at(k).joined.person;
    if (!joined.face && joined.person) joined.face = any_face_box(*joined.person);
    while (first_ < taken_ - kFaceReach) {
        entries_.pop_front();
        ++first_;
    }
    return joined;
}

}  // namespace zoetrope::preprocess
