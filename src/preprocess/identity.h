// Which of the people in each frame is the one that is followed, and what stands in for frames in
// which that person was not found.
//
// Frames are looked at independently of each other; identities are joined here, in their order,
// with a look ahead of a few frames. A network that takes a bicycle for a person does so in a frame
// here and there: somebody of whom it is not sure counts only beside frames in which it is, or
// where it saw them again and again. Nothing is carried over a scene cut. One thread at a time.
// Errors: bad_request where a frame is bad and BadFrames::stop was asked for.
#pragma once

#include "base/frames.h"
#include "preprocess/skeleton.h"

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope::preprocess {

// hold: the last good frame's pose, for a second; interpolate: between the good frames around,
// where they are near; stop: an error.
enum class BadFrames { hold, interpolate, stop };
BadFrames parse_bad_frames(std::string_view text);

// Who is followed where there are several: the largest, the one nearest to the centre, or the n-th
// from the left (1, 2, ...) in the first frame of a shot in which somebody is seen.
struct PersonChoice {
    enum class Kind { largest, center, nth } kind = Kind::largest;
    int nth = 1;
};
PersonChoice parse_person_choice(std::string_view text);

// What tells one shot from another: how a frame's colours are shared out (4 shades of each of 3
// channels), and how bright it is where (8 by 8 fields, 0 to 255).
struct ColorShares {
    std::array<float, 64> shares{};
    std::array<float, 64> fields{};
};
ColorShares color_shares_of(const Frame& frame);

// Whether a scene ends between two frames.
bool is_cut(const ColorShares& before, const ColorShares& after);

struct FrameAnalysis {
    std::vector<Person> people;
    ColorShares colors{};
    int width = 0;
    int height = 0;
};

struct JoinedFrame {
    std::int64_t frame = 0;
    bool found = false;  // the person was seen here; else `person` stands in
    bool cut = false;    // a shot begins here
    // "nobody", "another person", "nobody for sure"; empty where found.
    std::string why_not{};
    std::optional<Person> person{};  // nothing where nobody was seen near by in this shot
    std::optional<Box> face{};       // smoothed
};

class IdentityJoiner {
public:
    IdentityJoiner(PersonChoice choice, BadFrames bad_frames, double fps);

    // Frames that push() holds back at most.
    static constexpr std::int64_t kLookAhead = 12;

    void push(FrameAnalysis analysis);
    void end();  // no more frames: all are ready
    // How many frames, from the first, can be taken.
    std::int64_t ready() const { return ready_; }
    // In order, each once.
    JoinedFrame take();

private:
    struct Entry {
        JoinedFrame joined;
        std::optional<Box> raw_face{};
        std::vector<Person> unsure{};  // where nobody was followed
    };

    Entry& entry(std::int64_t frame) { return entries_[static_cast<std::size_t>(frame - first_)]; }
    const Person* choose(const FrameAnalysis& analysis) const;
    const Person* follow(const FrameAnalysis& analysis) const;
    const Person* persistent(const FrameAnalysis& analysis);
    std::int64_t go_back(const Person& person, std::int64_t frame, std::int64_t reach, bool adopt);
    void hold(std::int64_t good, std::int64_t end);
    static void find(Entry& found, const Person& person);
    void forget();
    void end_shot();
    void fill_gap(const Person& after);
    void settle();

    PersonChoice choice_;
    BadFrames bad_frames_;
    double fps_;
    std::deque<Entry> entries_;  // not taken yet, after those kept for smoothing
    std::int64_t shot_ = 0;      // first frame of the shot
    std::int64_t first_ = 0;     // frame number of entries_.front()
    std::int64_t pushed_ = 0;
    std::int64_t ready_ = 0;
    std::int64_t taken_ = 0;
    bool ended_ = false;
    std::optional<ColorShares> colors_;
    std::optional<Person> last_;  // the person as last seen
    std::int64_t last_seen_ = -1;
    bool following_ = false;  // in this shot
};

}  // namespace zoetrope::preprocess
