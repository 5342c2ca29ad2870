// A long video cut into segments: which frames each covers, what it carries over, what it pads.
//
// Numbers only. The frames of all segments lie on one joined timeline, in which a segment repeats
// the last `overlap` frames of the one before it (they condition it) and adds new ones. Every
// length is 4k+1, which the VAE needs, and every overlap too. Plain values and pure functions, any
// thread. Errors: bad_request with the flag that is wrong.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope::plan {

enum class SegmentPolicy {
    off,        // one window
    vanilla,    // windows of a given length, as Diffusers makes them; the tail is padded
    automatic,  // windows of the one length of least predicted cost that covers every frame
    auto_lim,   // the same, never more frames than there are: the lost tail is reported
    exact,      // lengths that may differ: every frame, at most 3 padded, least predicted cost
};
// "off", "vanilla", "auto", "auto_lim", "exact".
std::string_view name_of(SegmentPolicy policy);
SegmentPolicy parse_segment_policy(std::string_view text);

// What a scene change does: its border is conditioned as any other, or a new beginning.
enum class CutPolicy { carry, restart };
std::string_view name_of(CutPolicy policy);
CutPolicy parse_cut_policy(std::string_view text);

inline constexpr int kDefaultLength = 77;       // frames: Wan-Animate's window
inline constexpr int kDefaultLongest = 153;     // frames: the longest the cost model is held to
inline constexpr int kMostPaddedByExact = 3;    // frames of a video, or of a shot that restarts
inline constexpr int kLeastFramesPerShot = 12;  // a border nearer to another one is left out

struct Segment {
    int start = 0;           // on the joined timeline
    int length = 0;          // 4k+1
    int carried_frames = 0;  // its first frames, which are the last of the segment before it
    int padded_frames = 0;   // its last frames, which no real frame stands behind
    bool restart = false;    // begins a shot afresh

    int end() const { return start + length; }
    int new_frames() const { return length - carried_frames; }
    bool operator==(const Segment&) const = default;
};

// A piece of the timeline that carries nothing over from before it: the whole video, or one shot.
struct Shot {
    int start = 0;             // on the joined timeline
    int generated_frames = 0;  // there
    int source_start = 0;      // its first real frame
    int source_frames = 0;     // how many real frames it has
};

struct SegmentRequest {
    int num_frames = 0;  // real frames, or those that are wanted
    SegmentPolicy policy = SegmentPolicy::exact;
    // Of every window (rounded down to 4k+1); vanilla: 77 without it, exact: its longest segment.
    std::optional<int> length = {};
    int max_length = kDefaultLongest;  // no segment is longer; rounded down to 4k+1
    int overlap = 1;                   // 1, 5 or 9
    std::vector<int> cuts = {};        // first frames of new shots, in any order
    CutPolicy cut_policy = CutPolicy::carry;
};

struct SegmentPlan {
    SegmentPolicy policy = SegmentPolicy::off;
    int num_frames = 0;
    int overlap = 1;
    std::vector<Segment> segments;
    std::vector<Shot> shots;            // one, or several with CutPolicy::restart
    int generated_frames = 0;           // length of the joined timeline
    int denoised_frames = 0;            // sum of lengths
    int padded_frames = 0;              // generated, and dropped after decoding
    int dropped_frames = 0;             // real frames at the end that are not generated
    double cost = 0;                    // sum of the segments' predicted costs
    std::vector<std::string> warnings;  // one sentence each

    // Frames of the longest segment; without segments, `otherwise`.
    int longest(int otherwise) const;
};

// Predicted seconds of a segment of that many frames. Grows with the length; convex (as CostModel
// is), which makes equal lengths the cheapest.
using SegmentCost = std::function<double(int length)>;

SegmentPlan plan_segments(const SegmentRequest& request, const SegmentCost& cost);

// n down to 4k+1: 99 -> 97.
int round_down(int frames);
// n up to 4k+1: 98 -> 101.
int round_up(int frames);

// Index into `count` frames of position i of their reflection: 0 1 2 1 0 1 2 for three. (Wan's
// padding: the frames at the ends are not repeated.)
int reflect(int i, int count);

// The real frame that stands behind a frame of the joined timeline; padding is reflected.
int source_frame(const SegmentPlan& plan, int frame);
// Whether a frame of the joined timeline is padding, which the written video leaves out.
bool is_padding(const SegmentPlan& plan, int frame);

}  // namespace zoetrope::plan
