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
constexpr double kForgotten = 1.0;  // seconds after which a person counts as gone
// Somebody of whom the networks are not sure: so far from the frame before, and in so many.
constexpr std::int64_t kUnsureReach = 2;
constexpr std::int64_t kPersistent = 8;
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

// The one whose box goes on from another's in a frame nearby; null where there is none.
template <typename Accept>
const Person* next_of(const std::vector<Person>& people, const Person& before, Accept&& accept) {
    const Person* best = nullptr;
    float best_overlap = -1;
    const float size = std::max(before.box.width(), before.box.height());
    const Point b = centre_of(before.box);
    for (const Person& person : people) {
        if (!accept(person)) continue;
        const Point a = centre_of(person.box);
        const float overlap = overlap_of(person.box, before.box);
        const bool same =
            overlap > kSamePersonOverlap || std::hypot(a.x - b.x, a.y - b.y) < kNearby * size;
        if (same && overlap > best_overlap) {
            best = &person;
            best_overlap = overlap;
        }
    }
    return best;
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
    std::vector<const Person*> people;
    for (const Person& person : analysis.people) {
        if (person.sure) people.push_back(&person);
    }
    if (people.empty()) return nullptr;
    const auto middle = static_cast<float>(analysis.width) / 2;
    const auto x_of = [](const Person* person) { return centre_of(person->box).x; };
    switch (choice_.kind) {
        case PersonChoice::Kind::largest: return people.front();
        case PersonChoice::Kind::center:
            return *std::min_element(
                people.begin(), people.end(), [&](const Person* a, const Person* b) {
                    return std::abs(x_of(a) - middle) < std::abs(x_of(b) - middle);
                });
        case PersonChoice::Kind::nth: {
            std::stable_sort(people.begin(), people.end(),
                             [&](const Person* a, const Person* b) { return x_of(a) < x_of(b); });
            const auto n = static_cast<std::size_t>(choice_.nth);
            return people[std::min(n, people.size()) - 1];
        }
    }
    return nullptr;
}

const Person* IdentityJoiner::follow(const FrameAnalysis& analysis) const {
    const bool near = pushed_ - last_seen_ <= kUnsureReach;
    return next_of(analysis.people, *last_,
                   [near](const Person& person) { return person.sure || near; });
}

// How many frames of the shot before this one show the same person unsurely, none further than
// `reach` from the next; they become good ones where `adopt` is set.
std::int64_t IdentityJoiner::go_back(const Person& person, std::int64_t frame, std::int64_t reach,
                                     bool adopt) {
    std::int64_t count = 0;
    const Person* after = &person;
    const std::int64_t begin = std::max({shot_, ready_, first_});
    for (std::int64_t k = frame - 1; k >= begin && frame - k <= reach; --k) {
        Entry& before = entry(k);
        const Person* same = next_of(before.unsure, *after, [](const Person&) { return true; });
        if (same == nullptr) continue;
        ++count;
        if (adopt) {
            find(before, *same);
            hold(k, frame);
        }
        frame = k;
        after = same;
    }
    return count;
}

// The frames between a good one and another take the first one's person.
void IdentityJoiner::hold(std::int64_t good, std::int64_t end) {
    for (std::int64_t k = good + 1; k < end; ++k)
        entry(k).joined.person = entry(good).joined.person;
}

// Somebody unsure who was seen in as many frames as make up for it.
const Person* IdentityJoiner::persistent(const FrameAnalysis& analysis) {
    for (const Person& person : analysis.people) {
        if (go_back(person, pushed_, kUnsureReach, false) + 1 >= kPersistent) return &person;
    }
    return nullptr;
}

void IdentityJoiner::find(Entry& found, const Person& person) {
    found.joined.found = true;
    found.joined.why_not.clear();
    found.joined.person = person;
    found.raw_face = any_face_box(person);
}

void IdentityJoiner::forget() {
    following_ = false;
    last_.reset();
}

// A shot too short to be sure of anybody: who is seen in more than half of its frames is there.
void IdentityJoiner::end_shot() {
    const std::int64_t length = pushed_ - shot_;
    if (following_ || length > kLookAhead) return;
    for (std::int64_t k = pushed_ - 1; k >= shot_; --k) {
        for (const Person& person : entry(k).unsure) {
            if (2 * (go_back(person, k, length, false) + 1) <= length) continue;
            find(entry(k), person);
            hold(k, pushed_);
            go_back(person, k, length, true);
            return;
        }
    }
}

void IdentityJoiner::push(FrameAnalysis analysis) {
    const bool cut = colors_ && is_cut(*colors_, analysis.colors);
    colors_ = analysis.colors;
    if (cut) {
        end_shot();
        shot_ = pushed_;
        forget();
    } else if (following_ && static_cast<double>(pushed_ - last_seen_) > kForgotten * fps_) {
        forget();
    }
    const bool shot_goes_on = following_;
    const Person* person = following_ ? follow(analysis) : choose(analysis);
    if (person == nullptr && !following_) person = persistent(analysis);
    Entry added;
    added.joined.frame = pushed_;
    added.joined.cut = cut;
    if (person == nullptr) {
        const auto& people = analysis.people;
        const bool others =
            std::any_of(people.begin(), people.end(), [](const Person& one) { return one.sure; });
        added.joined.why_not = people.empty() ? "nobody"
                               : others       ? "another person"
                                              : "nobody for sure";
        added.joined.person = last_;
        if (!following_) added.unsure = std::move(analysis.people);
    } else {
        find(added, *person);
        if (!shot_goes_on) {
            go_back(*person, pushed_, kUnsureReach, true);
        } else if (bad_frames_ == BadFrames::interpolate && last_seen_ < pushed_ - 1) {
            fill_gap(*person);
        }
        last_ = *person;
        last_seen_ = pushed_;
        following_ = true;
    }
    entries_.push_back(std::move(added));
    ++pushed_;
    settle();
}

// The frames between the last good one and this one that are still held back.
void IdentityJoiner::fill_gap(const Person& after) {
    const auto gap = static_cast<float>(pushed_ - last_seen_);
    for (std::int64_t frame = std::max(last_seen_ + 1, ready_); frame < pushed_; ++frame) {
        const float share = static_cast<float>(frame - last_seen_) / gap;
        entry(frame).joined.person = mix(*last_, after, share);
    }
}

void IdentityJoiner::end() {
    end_shot();
    ended_ = true;
    settle();
}

void IdentityJoiner::settle() {
    ready_ = ended_ ? pushed_ : std::max<std::int64_t>(pushed_ - kLookAhead, 0);
}

JoinedFrame IdentityJoiner::take() {
    ZT_CHECK(taken_ < ready_, internal, "frame {} was taken before it was joined", taken_);
    const std::int64_t frame = taken_++;
    // Within the shot only.
    std::int64_t from = frame;
    while (from > first_ && from > frame - kFaceReach && !entry(from).joined.cut) --from;
    std::int64_t to = frame;
    while (to + 1 < pushed_ && to < frame + kFaceReach && !entry(to + 1).joined.cut) ++to;
    std::vector<std::optional<Box>> boxes;
    for (std::int64_t k = from; k <= to; ++k) boxes.push_back(entry(k).raw_face);
    JoinedFrame joined = entry(frame).joined;
    ZT_CHECK(joined.found || bad_frames_ != BadFrames::stop, bad_request,
             "frame {} ({:.2f} s) shows {}: cut it out of the clip, or take --on-bad-frame hold or "
             "interpolate",
             frame, static_cast<double>(frame) / fps_,
             joined.why_not == "another person" ? "only others than the person followed"
                                                : joined.why_not);
    joined.face = smoothed(boxes, static_cast<std::size_t>(frame - from));
    // Nobody was seen yet in this shot: the first person that will be, if near.
    for (std::int64_t k = frame + 1; !joined.person && k < pushed_ && !entry(k).joined.cut; ++k)
        joined.person = entry(k).joined.person;
    if (!joined.face && joined.person) joined.face = any_face_box(*joined.person);
    while (first_ < taken_ - kFaceReach) {
        entries_.pop_front();
        ++first_;
    }
    return joined;
}

}  // namespace zoetrope::preprocess
