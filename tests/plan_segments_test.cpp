// Segments: published numbers, properties over random requests, and the dynamic programme against
// brute force.
#include "plan/segments.h"

#include "errors.h"
#include "plan/devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

namespace zoetrope::plan {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// A convex cost like Wan-Animate's on a GPU: seconds of a segment of that many frames.
double gpu_cost(int length) {
    const double latents = (length - 1) / 4 + 2;
    return 45 + 3.2 * latents + 0.082 * latents * latents;
}

// No fixed part: the cost of a slow device, on which short segments are the cheapest.
double quadratic_cost(int length) {
    const double latents = (length - 1) / 4 + 2;
    return 3.2 * latents + 0.4 * latents * latents;
}

double linear_cost(int length) { return 2.0 * length; }

SegmentPlan plan_of(SegmentRequest request) { return plan_segments(request, gpu_cost); }

SegmentPlan plan_of(int frames, SegmentPolicy policy, std::optional<int> length = {}) {
    return plan_of({.num_frames = frames, .policy = policy, .length = length});
}

std::vector<int> lengths_of(const SegmentPlan& plan) {
    std::vector<int> lengths;
    for (const Segment& segment : plan.segments) lengths.push_back(segment.length);
    return lengths;
}

// What holds for every plan, whatever the policy.
void check_consistent(const SegmentPlan& plan, const SegmentCost& cost) {
    ASSERT_FALSE(plan.segments.empty());
    int end = 0, padded = 0, denoised = 0;
    double seconds = 0;
    for (std::size_t i = 0; i < plan.segments.size(); ++i) {
        const Segment& segment = plan.segments[i];
        ASSERT_EQ(segment.length % 4, 1);
        const bool fresh = i == 0 || segment.restart;
        ASSERT_EQ(segment.carried_frames, fresh ? 0 : plan.overlap);
        ASSERT_EQ(segment.start, end - segment.carried_frames);
        ASSERT_GT(segment.new_frames(), 0);
        end = segment.end();
        padded += segment.padded_frames;
        denoised += segment.length;
        seconds += cost(segment.length);
    }
    ASSERT_EQ(plan.generated_frames, end);
    ASSERT_EQ(plan.padded_frames, padded);
    ASSERT_EQ(plan.denoised_frames, denoised);
    ASSERT_DOUBLE_EQ(plan.cost, seconds);
    ASSERT_EQ(plan.generated_frames - plan.padded_frames + plan.dropped_frames, plan.num_frames);
}

// The least cost of lengths overlap + 4u under the cap that cover `frames`, by trying all
// partitions of the new latent frames.
double least_by_force(int units, int largest, int overlap, const SegmentCost& cost) {
    if (units == 0) return 0;
    double least = std::numeric_limits<double>::infinity();
    for (int u = std::min(units, largest); u >= 1; --u) {
        least =
            std::min(least, cost(overlap + 4 * u) + least_by_force(units - u, u, overlap, cost));
    }
    return least;
}

TEST(Segments, PublishedNumbers) {
    EXPECT_EQ(plan_of(308, SegmentPolicy::vanilla, 77).generated_frames, 381);
    EXPECT_EQ(plan_of(308, SegmentPolicy::vanilla).generated_frames, 381);
    EXPECT_EQ(plan_of(60, SegmentPolicy::vanilla, 77).generated_frames, 77);
    EXPECT_EQ(plan_of(78, SegmentPolicy::vanilla, 77).generated_frames, 153);

    const SegmentPlan fitted = plan_of(308, SegmentPolicy::auto_lim, 97);
    EXPECT_EQ(fitted.generated_frames, 289);
    EXPECT_EQ(fitted.dropped_frames, 19);
    EXPECT_EQ(plan_of(308, SegmentPolicy::auto_lim, 153).generated_frames, 305);
    for (const int length : {57, 29})
        EXPECT_EQ(plan_of(60, SegmentPolicy::auto_lim, length).generated_frames, 57);
    EXPECT_EQ(plan_of(60, SegmentPolicy::auto_lim).generated_frames, 57);

    for (const auto& [frames, generated] : {std::pair{308, 309}, std::pair{60, 61}}) {
        const SegmentPlan exact = plan_of(frames, SegmentPolicy::exact);
        EXPECT_EQ(exact.generated_frames, generated);
        EXPECT_EQ(exact.padded_frames, 1);
        EXPECT_EQ(exact.dropped_frames, 0);
    }
}

TEST(Segments, LengthsThatAreNot4kPlus1AreRoundedDown) {
    for (const auto& [given, taken] : {std::pair{99, 97}, std::pair{102, 101}}) {
        const SegmentPlan plan = plan_of(308, SegmentPolicy::vanilla, given);
        EXPECT_EQ(plan.segments.front().length, taken);
        EXPECT_THAT(plan.warnings,
                    ElementsAre(AllOf(HasSubstr(std::to_string(given)), HasSubstr("4k+1"),
                                      HasSubstr(std::to_string(taken)))));
    }
    const SegmentPlan plan =
        plan_of({.num_frames = 308, .policy = SegmentPolicy::exact, .max_length = 64});
    const std::vector<int> lengths = lengths_of(plan);
    // 61 is the longest that is allowed; six segments cost least when they are alike.
    EXPECT_EQ(*std::max_element(lengths.begin(), lengths.end()), 53);
    EXPECT_EQ(round_down(4), 1);
    EXPECT_EQ(round_down(5), 5);
    EXPECT_EQ(round_up(1), 1);
    EXPECT_EQ(round_up(2), 5);
    EXPECT_EQ(round_up(5), 5);
}

TEST(Segments, AutoCoversAndAutoLimLosesLittle) {
    std::mt19937 random(1);
    for (int i = 0; i < 2000; ++i) {
        const int frames = std::uniform_int_distribution(1, 2000)(random);
        const int overlap = 1 + 4 * std::uniform_int_distribution(0, 2)(random);
        const int cap = overlap + 4 + std::uniform_int_distribution(0, 150)(random);
        SegmentRequest request{.num_frames = frames,
                               .policy = SegmentPolicy::automatic,
                               .max_length = cap,
                               .overlap = overlap};
        const SegmentPlan covering = plan_of(request);
        check_consistent(covering, gpu_cost);
        EXPECT_EQ(covering.dropped_frames, 0);
        for (int length = overlap + 4; length <= cap; length += 4) {
            request.length = length;
            EXPECT_LE(covering.cost, plan_of(request).cost * (1 + 1e-12));
        }
        request.length = {};
        request.policy = SegmentPolicy::auto_lim;
        const SegmentPlan within = plan_of(request);
        check_consistent(within, gpu_cost);
        EXPECT_EQ(within.padded_frames, 0);
        EXPECT_LE(within.dropped_frames, std::max(3, frames / 16)) << frames << " " << cap;
    }
}

TEST(Segments, ExactOverRandomRequests) {
    std::mt19937 random(7);
    const SegmentCost costs[] = {gpu_cost, quadratic_cost, linear_cost};
    for (int i = 0; i < 10000; ++i) {
        const int frames = std::uniform_int_distribution(1, i % 2 == 0 ? 200 : 3000)(random);
        const int overlap = 1 + 4 * std::uniform_int_distribution(0, 2)(random);
        const int cap = overlap + 4 + std::uniform_int_distribution(0, 300)(random);
        const SegmentCost& cost = costs[i % 3];
        SegmentRequest request{.num_frames = frames, .max_length = cap, .overlap = overlap};
        SCOPED_TRACE(fmt::format("{} frames, cap {}, overlap {}", frames, cap, overlap));
        const SegmentPlan exact = plan_segments(request, cost);
        check_consistent(exact, cost);
        ASSERT_EQ(exact.dropped_frames, 0);
        ASSERT_LE(exact.padded_frames, 3);
        const std::vector<int> lengths = lengths_of(exact);
        const auto [shortest, longest] = std::minmax_element(lengths.begin(), lengths.end());
        ASSERT_LE(*longest, cap);
        ASSERT_LE(*longest - *shortest, 4);  // no stub
        for (int frame = 0; frame < frames; ++frame) ASSERT_EQ(source_frame(exact, frame), frame);
        request.policy = SegmentPolicy::vanilla;
        for (int length = overlap + 4; length <= cap; length += 4) {
            request.length = length;
            const double fixed = plan_segments(request, cost).cost;
            ASSERT_LE(exact.cost, fixed * (1 + 1e-12)) << "windows of " << length;
        }
    }
}

TEST(Segments, ExactEqualsBruteForce) {
    for (const SegmentCost& cost : {SegmentCost(gpu_cost), SegmentCost(quadratic_cost)}) {
        for (int frames = 1; frames <= 200; ++frames) {
            for (const int overlap : {1, 5, 9}) {
                for (const int cap : {overlap + 4, 21, 41, 77, 201}) {
                    if (frames <= overlap) continue;  // one segment, nothing to choose
                    // All partitions of 50 are 200,000: the long ones at a few lengths.
                    if (cap > 41 && frames > 120 && frames % 20 != 0) continue;
                    const SegmentPlan plan = plan_segments(
                        {.num_frames = frames, .max_length = cap, .overlap = overlap}, cost);
                    const double least = least_by_force((frames - overlap + 3) / 4,
                                                        (cap - overlap) / 4, overlap, cost);
                    ASSERT_NEAR(plan.cost, least, 1e-9 * least)
                        << frames << " frames, cap " << cap << ", overlap " << overlap;
                }
            }
        }
    }
}

// A cost that is not convex: the partition of the dynamic programme is kept, stubs or not.
TEST(Segments, ExactEqualsBruteForceWithoutConvexity) {
    const auto cost = [](int length) { return length == 41 ? 1.0 : 10.0 + length; };
    for (int frames = 41; frames <= 120; ++frames) {
        const SegmentPlan plan = plan_segments({.num_frames = frames}, cost);
        const double least = least_by_force((frames - 1 + 3) / 4, 38, 1, cost);
        EXPECT_NEAR(plan.cost, least, 1e-9 * least) << frames;
    }
}

TEST(Segments, CutsMoveBorders) {
    std::mt19937 random(3);
    for (int i = 0; i < 500; ++i) {
        const int frames = std::uniform_int_distribution(100, 600)(random);
        const int overlap = 1 + 4 * std::uniform_int_distribution(0, 2)(random);
        std::vector<int> cuts;
        for (int cut = 30; cut + 20 < frames; cut += std::uniform_int_distribution(17, 120)(random))
            cuts.push_back(cut);
        const SegmentPlan plan =
            plan_of({.num_frames = frames, .max_length = 77, .overlap = overlap, .cuts = cuts});
        check_consistent(plan, gpu_cost);
        EXPECT_LE(plan.padded_frames, 3);
        EXPECT_THAT(plan.warnings, IsEmpty());
        for (const int cut : cuts) {
            const bool near = std::any_of(
                plan.segments.begin() + 1, plan.segments.end(), [&](const Segment& segment) {
                    return std::abs(segment.start + segment.carried_frames - cut) <= 2;
                });
            EXPECT_TRUE(near) << "cut at " << cut << " of " << frames;
        }
        for (const Segment& segment : plan.segments) EXPECT_LE(segment.length, 77);
    }
}

TEST(Segments, CutsTooNearToEachOtherAreNamed) {
    const SegmentPlan plan =
        plan_of({.num_frames = 100, .max_length = 77, .cuts = {50, 2, 52, 99}});
    check_consistent(plan, gpu_cost);
    EXPECT_THAT(plan.warnings,
                ElementsAre(HasSubstr("frame 2 "), HasSubstr("frame 52 "), HasSubstr("frame 99 ")));
    for (const Segment& segment : plan.segments) EXPECT_GE(segment.length, 13);
    const SegmentPlan fixed =
        plan_of({.num_frames = 100, .policy = SegmentPolicy::vanilla, .cuts = {50}});
    EXPECT_THAT(fixed.warnings, ElementsAre(HasSubstr("exact only")));
}

TEST(Segments, RestartBeginsShotsAfresh) {
    const SegmentPlan plan = plan_of({.num_frames = 150,
                                      .max_length = 41,
                                      .overlap = 5,
                                      .cuts = {50, 52},
                                      .cut_policy = CutPolicy::restart});
    check_consistent(plan, gpu_cost);
    ASSERT_EQ(plan.shots.size(), 3u);
    EXPECT_EQ(plan.dropped_frames, 0);
    std::vector<int> real;  // real frames behind the timeline, without padding
    for (int frame = 0; frame < plan.generated_frames; ++frame) {
        const int source = source_frame(plan, frame);
        EXPECT_GE(source, 0);
        EXPECT_LT(source, 150);
        if (!is_padding(plan, frame)) real.push_back(source);
    }
    ASSERT_EQ(real.size(), 150u);
    for (int frame = 0; frame < 150; ++frame)
        EXPECT_EQ(real[static_cast<std::size_t>(frame)], frame);
    int restarts = 0;
    for (const Segment& segment : plan.segments) restarts += segment.restart ? 1 : 0;
    EXPECT_EQ(restarts, 2);
    for (const Shot& shot : plan.shots) EXPECT_LE(shot.generated_frames - shot.source_frames, 3);
    // The shot of two frames is a segment of 5, padded by reflection inside the shot.
    const Shot& tiny = plan.shots[1];
    EXPECT_EQ(tiny.generated_frames, 5);
    std::vector<int> sources;
    for (int i = 0; i < 5; ++i) sources.push_back(source_frame(plan, tiny.start + i));
    EXPECT_THAT(sources, ElementsAre(50, 51, 50, 51, 50));
}

TEST(Segments, PaddingIsReflectedAsWanDoesIt) {
    std::vector<int> three, one;
    for (int i = 0; i < 9; ++i) {
        three.push_back(reflect(i, 3));
        one.push_back(reflect(i, 1));
    }
    EXPECT_THAT(three, ElementsAre(0, 1, 2, 1, 0, 1, 2, 1, 0));
    EXPECT_THAT(one, testing::Each(0));
    const SegmentPlan plan = plan_of(60, SegmentPolicy::vanilla, 77);
    EXPECT_EQ(plan.padded_frames, 17);
    EXPECT_EQ(source_frame(plan, 59), 59);
    EXPECT_EQ(source_frame(plan, 60), 58);
    EXPECT_EQ(source_frame(plan, 76), 42);
    EXPECT_TRUE(is_padding(plan, 60));
    EXPECT_FALSE(is_padding(plan, 59));
}

TEST(Segments, OneWindow) {
    EXPECT_THAT(lengths_of(plan_of(16, SegmentPolicy::off)), ElementsAre(17));
    const SegmentPlan fewer = plan_of(15, SegmentPolicy::off);
    EXPECT_THAT(lengths_of(fewer), ElementsAre(13));
    EXPECT_EQ(fewer.dropped_frames, 2);
    EXPECT_THAT(lengths_of(plan_of(1, SegmentPolicy::exact)), ElementsAre(1));
    EXPECT_THAT(lengths_of(plan_of({.num_frames = 6, .overlap = 9})), ElementsAre(9));
    EXPECT_THAT(lengths_of(plan_of(3, SegmentPolicy::auto_lim)), ElementsAre(1));
}

TEST(Segments, TheLongestVideo) {
    const SegmentPlan plan = plan_of({.num_frames = 131072, .max_length = 4093});
    check_consistent(plan, gpu_cost);
    EXPECT_LE(plan.padded_frames, 3);
}

TEST(Segments, Refusals) {
    const auto message = [](const SegmentRequest& request) {
        const auto [kind, text] = error_of([&] { plan_of(request); });
        EXPECT_EQ(kind, ErrorKind::bad_request);
        return text;
    };
    EXPECT_THAT(message({.num_frames = 0}), HasSubstr("--num-frames is 0"));
    EXPECT_THAT(message({.num_frames = 9, .overlap = 3}), HasSubstr("1, 5, 9"));
    EXPECT_THAT(message({.num_frames = 9, .max_length = 8, .overlap = 5}),
                AllOf(HasSubstr("--segment-max-length is 8"), HasSubstr("9 frames or more")));
    EXPECT_THAT(message({.num_frames = 9, .policy = SegmentPolicy::vanilla, .length = 4}),
                HasSubstr("--segment-length is 4"));
    EXPECT_THAT(message({.num_frames = 9, .policy = SegmentPolicy::off, .length = 5}),
                HasSubstr("leave one of them out"));
    EXPECT_THAT(message({.num_frames = 9, .cuts = {9}}), HasSubstr("1 to 8"));
    EXPECT_THAT(message({.num_frames = 9,
                         .policy = SegmentPolicy::auto_lim,
                         .cuts = {5},
                         .cut_policy = CutPolicy::restart}),
                HasSubstr("accepted are exact, vanilla and auto"));
    EXPECT_THAT(error_of([] { parse_segment_policy("best"); }).second,
                HasSubstr("off, vanilla, auto, auto_lim, exact"));
    EXPECT_THAT(error_of([] { parse_cut_policy("x"); }).second, HasSubstr("carry, restart"));
    for (const auto* name : {"off", "vanilla", "auto", "auto_lim", "exact"})
        EXPECT_EQ(name_of(parse_segment_policy(name)), name);
}

}  // namespace
}  // namespace zoetrope::plan
