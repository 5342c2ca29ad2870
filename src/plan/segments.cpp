#include "plan/segments.h"

#include "base/choices.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>

namespace zoetrope::plan {
namespace {

constexpr int kStep = 4;  // frames of a latent frame behind the first
constexpr std::array kOverlaps = {1, 5, 9};
// auto_lim may lose a sixteenth of the video: fewer lengths would be left, and tiny ones, if it
// had to lose less, and the cheapest would be to generate nothing if it might lose all.
constexpr int kAutoLimMayLose = 16;

constexpr Choices<SegmentPolicy, 5> kPolicies = {{{SegmentPolicy::off, "off"},
                                                  {SegmentPolicy::vanilla, "vanilla"},
                                                  {SegmentPolicy::automatic, "auto"},
                                                  {SegmentPolicy::auto_lim, "auto_lim"},
                                                  {SegmentPolicy::exact, "exact"}}};
constexpr Choices<CutPolicy, 2> kCutPolicies = {
    {{CutPolicy::carry, "carry"}, {CutPolicy::restart, "restart"}}};

// Windows of one length over one shot.
struct Windows {
    int length = 0;
    int count = 0;
    int generated(int overlap) const {
        return length > overlap ? count * (length - overlap) + overlap : length;
    }
};

// The fewest windows that cover every frame.
Windows covering(int length, int frames, int overlap) {
    if (frames <= length) return {length, 1};
    const int step = length - overlap;
    return {length, (frames - overlap + step - 1) / step};
}

// The most windows that need no padding; one where none does.
Windows within(int length, int frames, int overlap) {
    if (length <= overlap) return {length, 1};
    return {length, std::max(1, (frames - overlap) / (length - overlap))};
}

// The cheapest length that covers every frame. Equal costs: less padding, then the longer window.
Windows cheapest_covering(int frames, int cap, int overlap, const SegmentCost& cost) {
    Windows best;
    double least = std::numeric_limits<double>::infinity();
    for (int length = 1; length <= cap; length += kStep) {
        if (length <= overlap && length < frames) continue;
        const Windows windows = covering(length, frames, overlap);
        const double total = windows.count * cost(length);
        if (total < least ||
            (total == least && windows.generated(overlap) <= best.generated(overlap))) {
            best = windows;
            least = total;
        }
    }
    return best;
}

// Of the lengths that lose at most a sixteenth of the frames (or as few as any does), the one of
// least cost per frame that is kept.
Windows cheapest_within(int frames, int cap, int overlap, const SegmentCost& cost) {
    int most_kept = 0;
    const auto fits = [&](const Windows& windows) { return windows.generated(overlap) <= frames; };
    for (int length = 1; length <= cap; length += kStep) {
        const Windows windows = within(length, frames, overlap);
        if (fits(windows)) most_kept = std::max(most_kept, windows.generated(overlap));
    }
    const int enough = std::min(most_kept, frames - frames / kAutoLimMayLose);
    Windows best;
    double least = std::numeric_limits<double>::infinity();
    for (int length = 1; length <= cap; length += kStep) {
        const Windows windows = within(length, frames, overlap);
        if (!fits(windows) || windows.generated(overlap) < enough) continue;
        const double each = windows.count * cost(length) / windows.generated(overlap);
        if (each > least) continue;
        best = windows;
        least = each;
    }
    return best;
}

// `units` latent frames shared out over `parts` segments, the longer ones first.
std::vector<int> equal_parts(int units, int parts) {
    std::vector<int> sizes(static_cast<std::size_t>(parts), units / parts);
    std::fill_n(sizes.begin(), units % parts, units / parts + 1);
    return sizes;
}

// Units of new frames of each segment: the partition of `units` into parts of 1 to `most` whose
// costs sum to the least. cost_of[u]: of a segment with u units.
std::vector<int> cheapest_partition(int units, int most, const std::vector<double>& cost_of) {
    const auto at = [](auto& values, int i) -> auto& {
        return values[static_cast<std::size_t>(i)];
    };
    std::vector<double> least(static_cast<std::size_t>(units) + 1,
                              std::numeric_limits<double>::infinity());
    std::vector<int> last(least.size(), 0);  // the last part of the cheapest partition
    least[0] = 0;
    for (int total = 1; total <= units; ++total) {
        for (int part = std::min(most, total); part >= 1; --part) {
            const double cost = at(least, total - part) + at(cost_of, part);
            if (cost >= at(least, total)) continue;
            at(least, total) = cost;
            at(last, total) = part;
        }
    }
    std::vector<int> parts;
    for (int total = units; total > 0; total -= at(last, total)) parts.push_back(at(last, total));
    // As many parts of equal size cost no more where the costs are convex, and leave no stub where
    // partitions cost the same.
    std::vector<int> equal = equal_parts(units, static_cast<int>(parts.size()));
    double cost = 0;
    for (const int part : equal) cost += at(cost_of, part);
    constexpr double kRounding = 1e-12;
    if (cost <= at(least, units) * (1 + kRounding)) return equal;
    std::sort(parts.rbegin(), parts.rend());
    return parts;
}

// Cuts of one video on the timeline of one shot, as multiples of 4 new frames: each at the legal
// border next to it, and left out where that is too near to another border.
std::vector<int> borders_of(const std::vector<int>& cuts, int units, int most, int overlap,
                            std::vector<std::string>& warnings) {
    const int apart = std::min(most, kLeastFramesPerShot / kStep);
    std::vector<int> borders;
    int before = -overlap / kStep;  // the video's own beginning
    for (const int cut : cuts) {
        // Borders lie at overlap + 4 u: the nearest is at most 2 frames off.
        const int border = (cut - overlap + 2) / kStep;
        if (cut < overlap || border < 1 || border - before < apart || units - border < apart) {
            warnings.push_back(fmt::format(
                "the scene change at frame {} gets no border of its own: {} frames at least lie "
                "between two borders",
                cut, apart * kStep));
            continue;
        }
        borders.push_back(border);
        before = border;
    }
    borders.push_back(units);
    return borders;
}

// Lengths of the segments of one shot of `frames`, exact.
std::vector<int> exact_lengths(int frames, int cap, int overlap, const std::vector<int>& cuts,
                               const SegmentCost& cost, std::vector<std::string>& warnings) {
    if (frames <= overlap) return {round_up(frames)};
    const int units = (frames - overlap + kStep - 1) / kStep;
    const int most = std::min(units, (cap - overlap) / kStep);
    std::vector<double> cost_of(static_cast<std::size_t>(most) + 1, 0);
    for (int u = 1; u <= most; ++u)
        cost_of[static_cast<std::size_t>(u)] = cost(overlap + kStep * u);
    std::vector<int> lengths;
    int before = 0;
    for (const int border : borders_of(cuts, units, most, overlap, warnings)) {
        for (const int part : cheapest_partition(border - before, most, cost_of))
            lengths.push_back(overlap + kStep * part);
        before = border;
    }
    return lengths;
}

// A window that is no longer than the video.
int shortened(int length, int frames, std::vector<std::string>& warnings) {
    if (length <= frames) return length;
    warnings.push_back(fmt::format(
        "--segment-length {} is more than the {} frames there are, which auto_lim never exceeds: "
        "{} is taken",
        length, frames, round_down(frames)));
    return round_down(frames);
}

std::vector<int> lengths_of(const SegmentRequest& request, int frames, const SegmentCost& cost,
                            const std::vector<int>& cuts, std::vector<std::string>& warnings) {
    const int overlap = request.overlap;
    const int cap = request.max_length;
    Windows windows;
    switch (request.policy) {
        case SegmentPolicy::off: windows = {frames / kStep * kStep + 1, 1}; break;
        case SegmentPolicy::vanilla:
            windows = covering(request.length.value_or(kDefaultLength), frames, overlap);
            break;
        case SegmentPolicy::automatic:
            windows = request.length ? covering(*request.length, frames, overlap)
                                     : cheapest_covering(frames, cap, overlap, cost);
            break;
        case SegmentPolicy::auto_lim:
            windows = request.length
                          ? within(shortened(*request.length, frames, warnings), frames, overlap)
                          : cheapest_within(frames, cap, overlap, cost);
            break;
        case SegmentPolicy::exact: return exact_lengths(frames, cap, overlap, cuts, cost, warnings);
    }
    return std::vector<int>(static_cast<std::size_t>(windows.count), windows.length);
}

// Appends the segments of real frames [from, from + frames).
void add_shot(const SegmentRequest& request, int from, int frames, const std::vector<int>& cuts,
              const SegmentCost& cost, SegmentPlan& plan) {
    Shot shot{.start = plan.generated_frames, .source_start = from, .source_frames = frames};
    int end = shot.start;
    for (const int length : lengths_of(request, frames, cost, cuts, plan.warnings)) {
        const bool first = end == shot.start;
        Segment segment{.start = first ? end : end - plan.overlap,
                        .length = length,
                        .carried_frames = first ? 0 : plan.overlap,
                        .restart = first && shot.start > 0};
        end = segment.end();
        segment.padded_frames = std::clamp(end - (shot.start + frames), 0, segment.new_frames());
        plan.padded_frames += segment.padded_frames;
        plan.denoised_frames += length;
        plan.cost += cost(length);
        plan.segments.push_back(segment);
    }
    shot.generated_frames = end - shot.start;
    plan.dropped_frames += std::max(0, frames - shot.generated_frames);
    plan.generated_frames = end;
    plan.shots.push_back(shot);
}

// A length as it was given, down to 4k+1.
int checked_length(const char* flag, int given, int overlap, std::vector<std::string>& warnings) {
    ZT_CHECK(given >= overlap + kStep, bad_request,
             "{} is {}: with an overlap of {} a segment has {} frames or more", flag, given,
             overlap, overlap + kStep);
    const int rounded = round_down(given);
    if (rounded != given) {
        warnings.push_back(fmt::format("{} {} is not 4k+1, which the VAE needs: {} is taken", flag,
                                       given, rounded));
    }
    return rounded;
}

// The request with lengths rounded and cuts sorted; sentences about what changed go to `warnings`.
SegmentRequest checked(SegmentRequest request, std::vector<std::string>& warnings) {
    ZT_CHECK(request.num_frames >= 1, bad_request, "--num-frames is {}: accepted are 1 and more",
             request.num_frames);
    ZT_CHECK(std::find(kOverlaps.begin(), kOverlaps.end(), request.overlap) != kOverlaps.end(),
             bad_request, "--segment-overlap is {}: accepted are {}", request.overlap,
             fmt::join(kOverlaps, ", "));
    request.max_length =
        checked_length("--segment-max-length", request.max_length, request.overlap, warnings);
    if (request.length) {
        ZT_CHECK(request.policy != SegmentPolicy::off, bad_request,
                 "--segment-length is {} and --segment-policy off, which makes one window: leave "
                 "one of them out",
                 *request.length);
        request.length =
            checked_length("--segment-length", *request.length, request.overlap, warnings);
        if (request.policy == SegmentPolicy::exact)
            request.max_length = std::min(request.max_length, *request.length);
    }
    std::sort(request.cuts.begin(), request.cuts.end());
    request.cuts.erase(std::unique(request.cuts.begin(), request.cuts.end()), request.cuts.end());
    for (const int cut : request.cuts) {
        ZT_CHECK(cut >= 1 && cut < request.num_frames, bad_request,
                 "a scene change at frame {} is not inside the video: accepted are 1 to {}", cut,
                 request.num_frames - 1);
    }
    return request;
}

const Shot& shot_of(const SegmentPlan& plan, int frame) {
    const auto after =
        std::upper_bound(plan.shots.begin(), plan.shots.end(), frame,
                         [](int position, const Shot& shot) { return position < shot.start; });
    ZT_CHECK(frame >= 0 && frame < plan.generated_frames && after != plan.shots.begin(), internal,
             "frame {} is not on the joined timeline of {} frames", frame, plan.generated_frames);
    return *std::prev(after);
}

}  // namespace

std::string_view name_of(SegmentPolicy policy) { return word_of(kPolicies, policy); }

SegmentPolicy parse_segment_policy(std::string_view text) {
    return parse_choice(kPolicies, "--segment-policy", text);
}

std::string_view name_of(CutPolicy policy) { return word_of(kCutPolicies, policy); }

CutPolicy parse_cut_policy(std::string_view text) {
    return parse_choice(kCutPolicies, "--cut-policy", text);
}

int round_down(int frames) { return (frames - 1) / kStep * kStep + 1; }

int round_up(int frames) { return (frames + kStep - 2) / kStep * kStep + 1; }

int SegmentPlan::longest(int otherwise) const {
    const auto found =
        std::max_element(segments.begin(), segments.end(),
                         [](const Segment& a, const Segment& b) { return a.length < b.length; });
    return found == segments.end() ? otherwise : found->length;
}

SegmentPlan plan_segments(const SegmentRequest& given, const SegmentCost& cost) {
    SegmentPlan plan;
    const SegmentRequest request = checked(given, plan.warnings);
    plan.policy = request.policy;
    plan.num_frames = request.num_frames;
    plan.overlap = request.overlap;
    if (request.cut_policy == CutPolicy::carry || request.cuts.empty()) {
        if (!request.cuts.empty() && request.policy != SegmentPolicy::exact) {
            plan.warnings.push_back(fmt::format(
                "scene changes move borders with --segment-policy exact only, not with {}",
                name_of(request.policy)));
        }
        add_shot(request, 0, request.num_frames, request.cuts, cost, plan);
        return plan;
    }
    ZT_CHECK(
        request.policy != SegmentPolicy::auto_lim && request.policy != SegmentPolicy::off,
        bad_request,
        "--cut-policy restart generates every frame of every shot, --segment-policy {} does not: "
        "accepted are exact, vanilla and auto",
        name_of(request.policy));
    int from = 0;
    for (const int cut : request.cuts) {
        add_shot(request, from, cut - from, {}, cost, plan);
        from = cut;
    }
    add_shot(request, from, request.num_frames - from, {}, cost, plan);
    return plan;
}

int reflect(int i, int count) {
    if (count <= 1) return 0;
    const int period = 2 * (count - 1);
    const int position = i % period;
    return position < count ? position : period - position;
}

int source_frame(const SegmentPlan& plan, int frame) {
    const Shot& shot = shot_of(plan, frame);
    return shot.source_start + reflect(frame - shot.start, shot.source_frames);
}

bool is_padding(const SegmentPlan& plan, int frame) {
    const Shot& shot = shot_of(plan, frame);
    return frame - shot.start >= shot.source_frames;
}

}  // namespace zoetrope::plan
