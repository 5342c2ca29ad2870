// Long videos in segments: joins on frames whose numbers are known, and runs of tiny models.
#include "base/json.h"
#include "engine/engine.h"
#include "engine/inputs.h"
#include "engine/join.h"
#include "engine/segment_run.h"
#include "errors.h"
#include "golden.h"
#include "media/writer.h"
#include "scratch.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/stack.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

// ---- joins, without a model

// Segments of 9 frames that share `overlap`.
ResolvedRequest joined_request(int num_frames, int overlap, JoinOptions joins = {}) {
    ResolvedRequest request;
    request.num_frames = num_frames;
    request.segments = plan::plan_segments({.num_frames = num_frames,
                                            .policy = plan::SegmentPolicy::vanilla,
                                            .length = 9,
                                            .overlap = overlap},
                                           [](int length) { return 1.0 * length; });
    request.joins = joins;
    return request;
}

// Runs segments through Joiners in the chunks that a decoder gives. segment_frames: of one segment,
// [3, 9, H, W]. -> the video [3, n, H, W]
at::Tensor join_all(const ResolvedRequest& request, Carried& carried,
                    const std::function<at::Tensor(const plan::Segment&)>& segment_frames) {
    std::vector<at::Tensor> chunks;
    const FrameCallback sink = [&](int, const at::Tensor& frames) {
        chunks.push_back(frames.clone());
    };
    for (const plan::Segment& segment : request.segments.segments) {
        const at::Tensor frames = segment_frames(segment);
        Joiner joiner(request, carried, sink);
        joiner.push(0, frames.narrow(1, 0, 1));
        for (std::int64_t first = 1; first < frames.size(1); first += 4)
            joiner.push(0, frames.narrow(1, first, 4));
        joiner.finish();
    }
    return at::cat(chunks, 1);
}

// Frames of one value: the frame's place on the timeline / 100, and `shift` of the segment.
at::Tensor counting_frames(const plan::Segment& segment, double shift) {
    at::Tensor frames = at::ones({3, segment.length, 2, 2});
    for (int i = 0; i < segment.length; ++i)
        frames.select(1, i).fill_((segment.start + i) / 100.0 + shift);
    return frames;
}

TEST(FusionWeights, GoFromTheEarlierToTheLater) {
    EXPECT_THAT(fusion_weights(OverlapFusion::linear, 4),
                testing::Pointwise(testing::FloatEq(), {0.2F, 0.4F, 0.6F, 0.8F}));
    EXPECT_THAT(fusion_weights(OverlapFusion::linear, 1), ElementsAre(0.5F));
    EXPECT_THAT(fusion_weights(OverlapFusion::last, 2), ElementsAre(0.0F, 0.0F));
    const auto cosine = fusion_weights(OverlapFusion::cosine, 5);
    EXPECT_NEAR(cosine[0], (1 - std::cos(3.14159265358979 / 6)) / 2, 1e-7);
    EXPECT_NEAR(cosine[2], 0.5, 1e-7);
    for (std::size_t i = 0; i < 5; ++i) EXPECT_NEAR(cosine[i] + cosine[4 - i], 1, 1e-7);
}

TEST(Joiner, LastKeepsTheEarlierFramesAndDropsPadding) {
    const ResolvedRequest request = joined_request(16, 5);  // 9, 13, 17 generated
    ASSERT_EQ(request.segments.segments.size(), 3u);
    Carried carried;
    int segment_index = 0;
    const at::Tensor video = join_all(request, carried, [&](const plan::Segment& segment) {
        return counting_frames(segment, 0.2 * segment_index++);
    });
    ASSERT_EQ(video.size(1), 16);
    for (int i = 0; i < 16; ++i) {
        const double shift = i < 9 ? 0 : i < 13 ? 0.2 : 0.4;
        EXPECT_NEAR(video[0][i][0][0].item<double>(), i / 100.0 + shift, 1e-6) << i;
    }
    EXPECT_EQ(carried.frames_given, 16);
    EXPECT_EQ(carried.next_segment, 3);
}

// Segments of 9 frames of which 5 are shared at either end: all frames but the first and last 4 are
// blends, and frame 8 of three segments.
TEST(Joiner, BlendedFramesAreHandedOutOnce) {
    for (const auto fusion : {OverlapFusion::linear, OverlapFusion::cosine}) {
        const ResolvedRequest request = joined_request(17, 5, {.fusion = fusion});
        ASSERT_EQ(request.segments.segments.size(), 3u);
        const auto weights = fusion_weights(fusion, 5);
        Carried carried;
        int segment_index = 0;
        const at::Tensor video = join_all(request, carried, [&](const plan::Segment& segment) {
            return counting_frames(segment, 0.2 * segment_index++);
        });
        ASSERT_EQ(video.size(1), 17);
        // Frame 8 is in all three: blended into the second segment, then into the third.
        const double eighth = 0.2 * weights[4];
        for (int i = 0; i < 17; ++i) {
            const auto weight = [&](int first) {
                return static_cast<double>(weights[static_cast<std::size_t>(i - first)]);
            };
            const double shift = i < 4    ? 0
                                 : i < 8  ? 0.2 * weight(4)
                                 : i == 8 ? eighth + (0.4 - eighth) * weight(8)
                                 : i < 13 ? 0.2 + 0.2 * weight(8)
                                          : 0.4;
            EXPECT_NEAR(video[1][i][0][0].item<double>(), i / 100.0 + shift, 1e-6) << i;
        }
    }
}

TEST(Joiner, WaitingFramesAreNotGivenYet) {
    const ResolvedRequest request = joined_request(17, 5, {.fusion = OverlapFusion::linear});
    Carried carried;
    const FrameCallback sink = [](int, const at::Tensor&) {};
    Joiner joiner(request, carried, sink);
    joiner.push(0, counting_frames(request.segments.segments[0], 0));
    joiner.finish();
    EXPECT_EQ(carried.frames_given, 4);
    EXPECT_EQ(carried.tail.size(1), 5);
    EXPECT_NEAR(carried.tail[0][0][0][0].item<double>(), 0.04, 1e-7);
}

// Every segment sees the same video through another scale and offset of each channel: matched to
// the frames it shares, it is the first segment's again.
TEST(Joiner, ColorMatchUndoesAShift) {
    const at::Tensor truth = at::rand({3, 17, 8, 8}) * 0.4 + 0.3;
    const at::Tensor scale = at::rand({3, 1, 1, 1}) * 0.2 + 0.9;
    const auto seen = [&](const plan::Segment& segment, int index) {
        const at::Tensor frames = truth.narrow(1, segment.start, segment.length);
        return index == 0 ? frames.clone() : frames * scale + 0.02 * index;
    };
    for (const bool match : {false, true}) {
        const ResolvedRequest request = joined_request(17, 5, {.color_match = match});
        Carried carried;
        int index = 0;
        const at::Tensor video = join_all(
            request, carried, [&](const plan::Segment& segment) { return seen(segment, index++); });
        if (match) {
            EXPECT_LT(largest_difference(video, truth), 2e-6);
        } else {
            EXPECT_GT(largest_difference(video, truth), 0.02);
        }
        // What the matching took away is told, matched or not.
        ASSERT_EQ(carried.drift.size(), 2u);
        for (std::size_t c = 0; c < 3; ++c) {
            const double mean =
                truth[static_cast<std::int64_t>(c)].narrow(0, 4, 5).mean().item<double>();
            const double change =
                mean * scale[static_cast<std::int64_t>(c)].item<double>() + 0.02 - mean;
            EXPECT_NEAR(carried.drift[0].overlap_mean_difference[c], change, 1e-6);
        }
    }
}

TEST(ColorTransfer, LeavesFlatColoursTheirContrast) {
    const ColorStatistics flat{{0.5, 0.5, 0.5}, {0, 0, 0}}, noisy{{0.6, 0.5, 0.4}, {0.1, 0.1, 0.1}};
    const at::Tensor frames = at::full({3, 1, 2, 2}, 0.5);
    const at::Tensor moved = ColorTransfer(flat, noisy).apply(frames);
    EXPECT_NEAR(moved[0][0][0][0].item<double>(), 0.6, 1e-7);
    EXPECT_NEAR(moved[2][0][1][1].item<double>(), 0.4, 1e-7);
}

// The first segment ends in frames of 0.5 +- 0.1, the second begins with 0.55 +- 0.12.
TEST(Drift, OfAKnownShift) {
    const ResolvedRequest request = joined_request(13, 5);
    Carried carried;
    const at::Tensor signs =
        at::stack({at::ones({8, 8}), -at::ones({8, 8})}, 1).view({1, 1, 16, 8});
    int index = 0;
    join_all(request, carried, [&](const plan::Segment&) {
        const double mean = index == 0 ? 0.5 : 0.55, contrast = index == 0 ? 0.1 : 0.12;
        ++index;
        return (signs * contrast + mean).expand({3, 9, 16, 8}).contiguous();
    });
    ASSERT_EQ(carried.drift.size(), 1u);
    Report report;
    report.drift = carried.drift;
    const auto json = to_json(report)["drift"][0];
    EXPECT_EQ(json["join"], 1);
    EXPECT_EQ(json["frame"], 9);
    for (int c = 0; c < 3; ++c) {
        EXPECT_NEAR(json["mean_difference"][c].get<double>(), 0.05, 1e-6);
        EXPECT_NEAR(json["contrast_ratio"][c].get<double>(), 1.2, 1e-5);
        EXPECT_NEAR(json["mean_difference_from_first"][c].get<double>(), 0.05, 1e-6);
        EXPECT_NEAR(json["contrast_ratio_to_first"][c].get<double>(), 1.2, 1e-5);
        EXPECT_NEAR(json["overlap_mean_difference"][c].get<double>(), 0.05, 1e-6);
        EXPECT_NEAR(json["before"]["std"][c].get<double>(), 0.1, 1e-6);
    }
    EXPECT_THAT(drift_summary(report), HasSubstr("mean changes by +0.0500 and its contrast 1.200"));
}

// ---- runs of tiny models

struct Model {
    const char* name;  // a folder of goldens
    int num_frames, length, overlap;
    Task task;
};

fs::path folder_of(const std::string& name) {
    return golden_folder() / (name == "unipc" ? "pipeline" : "conditions") / name;
}

Engine open_engine(const std::string& name, EngineOptions options = {}) {
    const fs::path shared = golden_folder() / "pipeline" / "unipc";
    options.dtype = "fp32";
    options.threads = 1;  // tiny models
    ModelPaths paths{.model = folder_of(name).string()};
    if (name != "unipc") {
        paths.text_encoder = shared / "text_encoder";
        paths.tokenizer = shared / "tokenizer";
    }
    return Engine(ModelFolder::open(paths), options);
}

Request request_of(const Model& model) {
    const fs::path folder = folder_of(model.name);
    const auto json = read_json(folder / "request.json");
    Request request;
    request.prompt = json["prompt"];
    request.height = 32;
    request.width = 32;
    request.num_frames = model.num_frames;
    request.num_inference_steps = 2;
    request.guidance_scale = 1;
    request.seed = 5;
    request.segment_length = model.length;
    request.segment_overlap = model.overlap;
    if (fs::exists(folder / "image.png")) request.image = folder / "image.png";
    if (model.task == Task::replace) {
        request.pose_video = folder / "pose";
        request.face_video = folder / "face";
        request.background_video = folder / "background";
        request.mask_video = folder / "mask";
    }
    return request;
}

struct Result {
    at::Tensor latents, video;  // [3, n, H, W]
    Report report;
    std::vector<Carried> carried;
};

Result run(Engine& engine, const Request& wanted, SegmentHooks hooks = {}) {
    const ResolvedRequest request = engine.resolve(wanted);
    Result result;
    std::vector<at::Tensor> chunks;
    hooks.after_segment = [&](const Carried& carried, const ReportMark&) {
        result.carried.push_back(carried);
    };
    result.latents = engine.generate(
        request, [&](int, const at::Tensor& frames) { chunks.push_back(frames.clone()); }, {},
        result.report, hooks);
    result.video = at::cat(chunks, 1);
    return result;
}

class Segments : public testing::TestWithParam<Model> {};

TEST_P(Segments, MakeEveryFrameAndReportEverySegment) {
    Engine engine = open_engine(GetParam().name);
    const Result whole = run(engine, request_of(GetParam()));
    EXPECT_EQ(whole.video.size(1), GetParam().num_frames);
    const Report::Plan& told = whole.report.plan;
    EXPECT_EQ(whole.carried.size(), told.segments.segments.size());
    EXPECT_EQ(whole.report.drift.size(), told.segments.segments.size() - 1);
    EXPECT_EQ(told.segments.policy, plan::SegmentPolicy::vanilla);
    EXPECT_GT(told.predicted_seconds(), 0);
    EXPECT_EQ(told.measured.size(), told.segments.segments.size());
    for (const double seconds : told.measured) EXPECT_GT(seconds, 0);
    const Report::Pipeline& pipeline = whole.report.pipeline;
    for (const double busy : {pipeline.prepare, pipeline.denoise, pipeline.decode}) {
        EXPECT_GT(busy, 0);
        EXPECT_LT(busy, pipeline.seconds);
    }
    EXPECT_EQ(whole.carried.back().frames_given, GetParam().num_frames);
}

// Begun again after any segment, and inside one, a run gives the very frames that were missing.
TEST_P(Segments, GoOnWhereTheyWereSaved) {
    Engine engine = open_engine(GetParam().name);
    for (const auto& [carry, fusion] :
         {std::pair{Carry::pixels, OverlapFusion::last}, {Carry::latents, OverlapFusion::linear}}) {
        Request request = request_of(GetParam());
        request.carry = carry;
        request.overlap_fusion = fusion;
        request.scheduler = "euler-ancestral";  // draws noise in every step
        std::vector<LoopState> states;
        SegmentHooks watching;
        watching.after_step = [&](int, const LoopState& state) { states.push_back(state); };
        const Result whole = run(engine, request, watching);
        const std::size_t segments = whole.carried.size();
        ASSERT_GE(segments, 2u);
        for (std::size_t done = 1; done < segments; ++done) {
            const Carried& carried = whole.carried[done - 1];
            const int given = carried.frames_given;
            const at::Tensor rest = whole.video.narrow(1, given, whole.video.size(1) - given);
            const Result again = run(engine, request, {.begin = carried});
            EXPECT_TRUE(at::equal(again.video, rest)) << done;
            const LoopState& middle = states[done * 2];  // after the segment's first step of two
            ASSERT_EQ(middle.step, 1);
            const Result inside = run(engine, request, {.begin = carried, .begin_loop = middle});
            EXPECT_TRUE(at::equal(inside.video, rest)) << done;
            EXPECT_EQ(inside.report.drift.size(), whole.report.drift.size());
        }
    }
}

TEST_P(Segments, MemoryCountsThePartsThatStay) {
    Engine engine = open_engine(GetParam().name);
    const MemoryPlan plan = engine.plan_memory(engine.resolve(request_of(GetParam())));
    std::map<std::string, std::map<std::string, std::int64_t>> stages;
    for (const auto& stage : plan.stages) stages[stage.stage] = stage.parts;
    EXPECT_GT(stages["denoise"]["held_vae"], 0);
    EXPECT_EQ(stages["decode"]["held_transformer"],
              stages["denoise"]["weights"] + stages["denoise"]["adapters"]);
    EXPECT_EQ(stages["encode_image"]["held_transformer"], stages["decode"]["held_transformer"]);
}

INSTANTIATE_TEST_SUITE_P(
    Models, Segments,
    testing::Values(Model{"unipc", 13, 5, 1, Task::t2v}, Model{"unipc", 21, 13, 5, Task::t2v},
                    Model{"i2v", 13, 9, 5, Task::i2v}, Model{"ti2v", 9, 5, 1, Task::i2v},
                    Model{"replace", 16, 13, 5, Task::replace}),
    [](const auto& instance) {
        return std::string(instance.param.name) + std::to_string(instance.param.overlap);
    });

// Frames that a segment is told of stay what they are: with latents carried, bit by bit.
TEST(Continuation, CarriedLatentsAreTheNextSegmentsFirst) {
    for (const Model& model :
         {Model{"unipc", 17, 13, 9, Task::t2v}, Model{"ti2v", 9, 9, 5, Task::i2v}}) {
        Engine engine = open_engine(model.name);
        Request request = request_of(model);
        if (model.task == Task::i2v) request.num_frames = 13;
        request.carry = Carry::latents;
        const Result whole = run(engine, request);
        ASSERT_EQ(whole.carried.size(), 2u);
        const at::Tensor& tail = whole.carried[0].tail_latents;
        ASSERT_EQ(tail.size(2), (model.overlap - 1) / 4 + 1);
        EXPECT_TRUE(at::equal(whole.latents.narrow(2, 0, tail.size(2)), tail)) << model.name;
        // Encoded from pixels, they are others.
        request.carry = Carry::pixels;
        const Result pixels = run(engine, request);
        EXPECT_GT(relative_error(pixels.latents.narrow(2, 0, tail.size(2)), tail), 1e-3);
    }
}

// The second segment, which shares one frame, is an image-to-video run from that frame with the
// second noise of the seed. The frame goes through a file of 8 bits here, and through none there.
TEST(Continuation, IsImageToVideoFromTheLastFrame) {
    for (const char* name : {"i2v", "ti2v"}) {
        Engine engine = open_engine(name);
        const Request wanted = request_of({name, 9, 5, 1, Task::i2v});
        const Result whole = run(engine, wanted);
        ASSERT_EQ(whole.carried.size(), 2u);
        const Scratch scratch;
        VideoWriter writer(scratch / "last.png", {});
        writer.write(to_frames(whole.carried[0].tail).front());
        Request alone = wanted;
        alone.image = writer.finish().front();
        alone.num_frames = 5;
        alone.segment_length.reset();
        alone.segment_overlap.reset();
        const ResolvedRequest first = engine.resolve(alone);
        // Two draws of one generator are one draw of both.
        SegmentHooks second;
        second.begin = Carried{.generator = whole.carried[0].generator};
        Report report;
        const at::Tensor latents = engine.generate(
            first, [](int, const at::Tensor&) {}, {}, report, second);
        EXPECT_LT(relative_error(latents, whole.latents), 5e-3) << name;
        EXPECT_GT(relative_error(run(engine, alone).latents, whole.latents), 0.1) << name;
    }
}

// The ends of both segments are there, and between them something of both.
TEST(Continuation, FusionChangesSharedFramesOnly) {
    Engine engine = open_engine("unipc");
    Request request = request_of({"unipc", 21, 13, 5, Task::t2v});
    const at::Tensor last = run(engine, request).video;
    request.overlap_fusion = OverlapFusion::linear;
    const at::Tensor linear = run(engine, request).video;
    EXPECT_TRUE(at::equal(linear.narrow(1, 0, 8), last.narrow(1, 0, 8)));
    EXPECT_TRUE(at::equal(linear.narrow(1, 13, 8), last.narrow(1, 13, 8)));
    EXPECT_GT(largest_difference(linear.narrow(1, 8, 5), last.narrow(1, 8, 5)), 1e-3);
}

TEST(Continuation, LatentsInReplaceMode) {
    Engine engine = open_engine("replace");
    Request request = request_of({"replace", 16, 13, 5, Task::replace});
    const Result pixels = run(engine, request);
    request.carry = Carry::latents;
    const Result latents = run(engine, request);
    EXPECT_TRUE(at::equal(latents.video.narrow(1, 0, 13), pixels.video.narrow(1, 0, 13)));
    EXPECT_GT(largest_difference(latents.video.narrow(1, 13, 3), pixels.video.narrow(1, 13, 3)), 0);
}

// ---- what a request becomes

TEST(Plan, FollowsTheFlags) {
    Engine engine = open_engine("unipc");
    Request request = request_of({"unipc", 13, 5, 1, Task::t2v});
    const auto lengths = [&] {
        std::vector<int> found;
        for (const auto& segment : engine.resolve(request).segments.segments)
            found.push_back(segment.length);
        return found;
    };
    EXPECT_THAT(lengths(), ElementsAre(5, 5, 5));
    request.num_frames = 5;
    EXPECT_THAT(lengths(), ElementsAre(5));
    request.segment_length = 81;  // longer than the video: one window, no padding
    EXPECT_THAT(lengths(), ElementsAre(5));
    request.segment_length.reset();
    request.segment_overlap.reset();
    request.num_frames = 301;  // as long as it is: nobody asked for segments
    EXPECT_THAT(lengths(), ElementsAre(301));
    request.segment_max_length = 77;  // exact
    for (const int length : lengths()) EXPECT_LE(length, 77);
    // A model that is told of no frames is shown as many as a segment has room for.
    request.segment_max_length.reset();
    request.num_frames = 33;
    for (const auto& [length, overlap] : {std::pair{17, 9}, {9, 5}, {5, 1}}) {
        request.segment_length = length;
        EXPECT_EQ(engine.resolve(request).segments.overlap, overlap);
    }
    request.num_frames = 301;
    request.segment_overlap = 1;
    request.segment_policy = "auto_lim";
    request.segment_max_length.reset();
    request.segment_length = 77;  // 1 + 3 * 76 = 229
    const ResolvedRequest limited = engine.resolve(request);
    EXPECT_EQ(limited.num_frames, 229);
    EXPECT_THAT(limited.warnings.back(), HasSubstr("72 frames that were asked for"));
}

TEST(Plan, RefusesWhatDoesNotGoTogether) {
    Engine engine = open_engine("unipc");
    const auto message_of = [&](auto change) {
        Request request = request_of({"unipc", 13, 5, 1, Task::t2v});
        change(request);
        return error_of([&] { engine.resolve(request); }).second;
    };
    EXPECT_THAT(message_of([](Request& r) { r.num_outputs = 2; }),
                HasSubstr("one video at a time"));
    EXPECT_THAT(message_of([](Request& r) { r.output_type = OutputType::latent; }),
                HasSubstr("3 segments"));
    EXPECT_THAT(message_of([](Request& r) { r.cut_policy = "restart"; }), HasSubstr("driving"));
    EXPECT_THAT(message_of([](Request& r) { r.segment_overlap = 2; }), HasSubstr("1, 5, 9"));
    const auto without = [](Request& r) {
        r.segment_length.reset();
        r.segment_overlap.reset();
    };
    EXPECT_THAT(message_of([&](Request& r) {
                    without(r);
                    r.carry = Carry::pixels;
                }),
                HasSubstr("--carry says how segments are joined"));
    EXPECT_THAT(message_of([&](Request& r) {
                    without(r);
                    r.color_match = true;
                }),
                HasSubstr("--color-match says how segments are joined"));
    EXPECT_THAT(message_of([](Request& r) {
                    r.color_match = true;
                    r.carry = Carry::latents;
                }),
                HasSubstr("--color-match goes with --carry pixels"));
    EXPECT_EQ(message_of([](Request& r) {
                  r.color_match = true;
                  r.carry = Carry::pixels;
              }),
              "nothing was thrown");
    Engine changing = open_engine("v2v");
    Request video = request_of({"v2v", 9, 5, 1, Task::v2v});
    video.video = folder_of("v2v") / "video";
    EXPECT_THAT(error_of([&] { changing.resolve(video); }).second, HasSubstr("runs in one window"));
}

// 14 red frames, then 14 blue ones.
TEST(Plan, ScenesOfTheBackgroundAreShots) {
    const Scratch scratch;
    VideoWriter writer(scratch / "scene.png", {});
    for (int i = 0; i < 28; ++i) {
        Frame frame(32, 32);
        for (std::size_t p = i < 14 ? 0u : 2u; p < frame.rgb.size(); p += 3) frame.rgb[p] = 200;
        writer.write(frame);
    }
    writer.finish();
    Engine engine = open_engine("replace");
    Request request = request_of({"replace", 28, 17, 1, Task::replace});
    request.pose_video = request.face_video = request.background_video = request.mask_video =
        scratch.path();
    EXPECT_TRUE(engine.resolve(request).cuts.empty());
    request.cut_policy = "carry";
    request.segment_policy = "exact";
    const ResolvedRequest carried = engine.resolve(request);
    EXPECT_THAT(carried.cuts, ElementsAre(14));
    EXPECT_EQ(carried.segments.shots.size(), 1u);
    request.cut_policy = "restart";
    request.segment_policy.reset();
    const ResolvedRequest resolved = engine.resolve(request);
    ASSERT_EQ(resolved.segments.segments.size(), 2u);
    EXPECT_TRUE(resolved.segments.segments[1].restart);
    const Result both = run(engine, request);
    EXPECT_EQ(both.video.size(1), 28);  // 3 frames of each shot's window are padding
    EXPECT_TRUE(both.report.drift.empty());
    EXPECT_EQ(both.report.plan.segments.padded_frames, 6);
}

TEST(Plan, LearnsWhatSegmentsCost) {
    const Scratch scratch;
    const fs::path folder = scratch / "cost";
    constexpr double kAnyWaiting = std::numeric_limits<double>::infinity();
    const EngineOptions options{
        .cost_folder = folder, .cost_least_seconds = 0, .cost_most_waiting = kAnyWaiting};
    const Request request = request_of({"unipc", 13, 5, 1, Task::t2v});
    {
        Engine engine = open_engine("unipc", options);
        EXPECT_THAT(engine.resolve(request).cost_source, HasSubstr("not measured here"));
        run(engine, request);
    }
    Engine engine = open_engine("unipc", options);
    const ResolvedRequest resolved = engine.resolve(request);
    EXPECT_EQ(resolved.cost_source, "a calibration on this device");
    const auto files = fs::recursive_directory_iterator(folder);
    const auto file = std::find_if(begin(files), end(files),
                                   [](const auto& entry) { return entry.is_regular_file(); });
    const auto stored = read_json(file->path());
    ASSERT_EQ(stored["samples"].size(), 3u);
    double measured = 0;
    for (const auto& sample : stored["samples"])
        measured += sample["denoise_seconds"].get<double>() + sample["vae_seconds"].get<double>();
    // One length alone: the defaults, scaled to the mean of what was measured.
    double predicted = 0;
    for (const double seconds : resolved.segment_seconds) predicted += seconds;
    EXPECT_NEAR(predicted, measured, 1e-6 * measured);
    // Runs that are over in less than the limit teach nothing, nor do those that had to wait.
    fs::remove_all(folder);
    for (const EngineOptions& stricter :
         {EngineOptions{.cost_folder = folder, .cost_most_waiting = kAnyWaiting},
          EngineOptions{.cost_folder = folder, .cost_least_seconds = 0, .cost_most_waiting = -1}}) {
        Engine another = open_engine("unipc", stricter);
        run(another, request);
        EXPECT_FALSE(fs::exists(folder));
    }
}

}  // namespace
}  // namespace zoetrope
