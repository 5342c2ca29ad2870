// Stages that overlap: what runs beside what, that nothing but the time depends on it, and how such
// a run ends early.
#include "base/timer.h"
#include "engine/checkpoint.h"
#include "engine/engine.h"
#include "engine/output.h"
#include "engine/segment_tail.h"
#include "engine/worker.h"
#include "errors.h"
#include "golden.h"
#include "golden_request.h"
#include "scratch.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <mutex>
#include <thread>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

void sleep_for(double seconds) {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

// ---- the worker

TEST(Worker, DoesJobsInOrderBesideItsCaller) {
    std::vector<int> done;
    std::thread::id thread;
    Worker worker({.limit = 100});
    for (int i = 0; i < 5; ++i) {
        worker.push([&, i] {
            thread = std::this_thread::get_id();
            done.push_back(i);
        });
    }
    worker.wait();
    EXPECT_TRUE(worker.is_idle());
    EXPECT_THAT(done, ElementsAre(0, 1, 2, 3, 4));
    EXPECT_NE(thread, std::this_thread::get_id());
}

TEST(Worker, HoldsNoMoreThanItsLimit) {
    std::atomic<int> under_way = 0, most = 0;
    Worker worker({.limit = 6});
    for (int i = 0; i < 12; ++i) {
        const int weight = i == 7 ? 10 : 2;  // one is heavier than the limit
        worker.push(
            [&, weight] {
                sleep_for(0.002);
                under_way -= weight;
            },
            weight);
        most = std::max<int>(most, under_way += weight);
    }
    worker.wait();
    EXPECT_EQ(most, 10);  // alone
    EXPECT_GT(worker.waited(), 0.005);
}

TEST(Worker, AnErrorEndsItsWork) {
    int later = 0;
    Worker worker({.limit = 100});
    worker.push([] { fail(ErrorKind::io, "the disk is full"); });
    const auto push_more = [&] {
        while (true) worker.push([&] { ++later; }, 60);
    };
    EXPECT_EQ(error_of(push_more), std::pair(ErrorKind::io, std::string("the disk is full")));
    EXPECT_EQ(error_of([&] { worker.wait(); }).second, "the disk is full");
    EXPECT_EQ(later, 0);
}

TEST(Worker, DropsWhatWaitsWhenItEnds) {
    std::atomic<int> done = 0;
    {
        Worker worker({.limit = 100});
        for (int i = 0; i < 50; ++i) {
            worker.push([&] {
                sleep_for(0.01);
                ++done;
            });
        }
        while (done == 0) sleep_for(0.001);
    }
    EXPECT_LT(done, 10);
}

// ---- stages that take a known time

constexpr int kSegments = 5;

// Segments of 5 frames that share one.
ResolvedRequest request_of_segments(bool decode_behind) {
    ResolvedRequest request;
    request.num_frames = 4 * kSegments + 1;
    request.segments = plan::plan_segments({.num_frames = request.num_frames,
                                            .policy = plan::SegmentPolicy::vanilla,
                                            .length = 5,
                                            .overlap = 1},
                                           [](int length) { return 1.0 * length; });
    request.decode_behind = decode_behind;
    request.joins.carry = decode_behind ? Carry::latents : Carry::pixels;
    return request;
}

struct Delays {
    double denoise = 0, decode = 0, write = 0;  // seconds per segment
};

struct Timed {
    double seconds = 0, decode = 0, write = 0, waited = 0;
    at::Tensor video;
};

// A run whose stages do nothing but take their time.
Timed run_with(const Delays& delays, bool decode_behind) {
    const ResolvedRequest request = request_of_segments(decode_behind);
    Timed run;
    std::vector<at::Tensor> chunks;
    const FrameCallback sink = [&](int, const at::Tensor& frames) {
        sleep_for(delays.write);
        chunks.push_back(frames);
    };
    const SegmentTail::Decode decode = [&](const at::Tensor& latents, const FrameCallback& frames,
                                           const RunControl&, Report& report) {
        sleep_for(delays.decode);
        frames(0, at::zeros({3, 5, 2, 2}) + latents);
        report.add_stage(Stage::decode, delays.decode);
    };
    const SegmentHooks hooks;
    const RunControl control;
    Report report;
    report.plan.measured.resize(kSegments);
    const Timer timer;
    {
        SegmentTail tail(request, hooks, sink, decode, {}, control, report);
        for (int index = 0; index < kSegments; ++index) {
            sleep_for(delays.denoise);
            tail.take({.latents = at::full({1}, index)}, control);
        }
        tail.wait();
        run.decode = 0;
        for (const double seconds : tail.decode_seconds()) run.decode += seconds;
        run.write = tail.write_seconds();
        run.waited = tail.waited();
    }
    run.seconds = timer.seconds();
    run.video = at::cat(chunks, 1);
    return run;
}

// The thread of the model denoises and decodes, the other writes meanwhile.
TEST(Overlap, WritingTakesNoTimeOfItsOwn) {
    const Delays delays{.denoise = 0.12, .decode = 0.06, .write = 0.1};
    const Timed run = run_with(delays, false);
    const double sequential = kSegments * (delays.denoise + delays.decode + delays.write);  // 1.4
    const double overlapped = kSegments * (delays.denoise + delays.decode) + delays.write;  // 1.0
    EXPECT_GE(run.seconds, overlapped - 0.01);
    EXPECT_LT(run.seconds, (sequential + overlapped) / 2);
    EXPECT_NEAR(run.decode, kSegments * delays.decode, 0.1);
    EXPECT_NEAR(run.write, kSegments * delays.write, 0.1);
}

TEST(Overlap, DecodingBehindTakesNoTimeOfItsOwn) {
    const Delays delays{.denoise = 0.14, .decode = 0.07, .write = 0.06};
    const Timed beside = run_with(delays, true);
    const double sequential = kSegments * (delays.denoise + delays.decode + delays.write);
    const double overlapped = kSegments * delays.denoise + delays.decode + delays.write;
    EXPECT_GE(beside.seconds, overlapped - 0.01);
    EXPECT_LT(beside.seconds, (sequential + overlapped) / 2);
    EXPECT_NEAR(beside.decode, kSegments * delays.decode, 0.1);
    const Timed before = run_with(delays, false);
    EXPECT_GT(before.seconds, overlapped + kSegments * delays.decode / 2);
    EXPECT_TRUE(at::equal(before.video, beside.video));
}

// Where what is behind is slower than all the rest, the model waits for it: one segment is behind.
TEST(Overlap, NoMoreThanOneSegmentIsBehind) {
    const Delays delays{.denoise = 0.02, .decode = 0.06, .write = 0.08};
    const Timed run = run_with(delays, true);
    const double slower = kSegments * (delays.decode + delays.write);
    EXPECT_GE(run.seconds, slower + delays.denoise - 0.01);
    EXPECT_LT(run.seconds, slower + 3 * delays.denoise + 0.15);
    EXPECT_NEAR(run.waited, run.seconds - kSegments * delays.denoise, 0.05);
}

// ---- runs of a tiny model

Engine tiny_engine() {
    return Engine(ModelFolder::open({.model = (golden_folder() / "pipeline/unipc").string()}),
                  {.dtype = "fp32", .threads = 1});
}

// Text to video in four segments.
Request long_request() {
    Request request = golden_request(golden_folder() / "pipeline/unipc");
    request.num_frames = 17;
    request.num_inference_steps = 2;
    request.guidance_scale = 1;
    request.seed = 5;
    request.segment_length = 5;
    request.segment_overlap = 1;
    request.carry = Carry::latents;
    return request;
}

struct Watched {
    at::Tensor video;
    Report report;
    std::vector<std::string> events;
    std::vector<Carried> carried;
};

Watched watch(Engine& engine, const ResolvedRequest& request, SegmentHooks hooks = {},
              double write = 0) {
    Watched watched;
    std::mutex mutex;
    const auto note = [&](const std::string& event) {
        const std::lock_guard lock(mutex);
        watched.events.push_back(event);
    };
    int ended = 0;
    hooks.end_frames = [&] { note(fmt::format("written {}", ended++)); };
    hooks.after_segment = [&](const Carried& carried, const ReportMark&) {
        note(fmt::format("saved {}", carried.next_segment - 1));
        watched.carried.push_back(carried);
    };
    std::vector<at::Tensor> chunks;
    const auto caller = std::this_thread::get_id();
    engine.generate(
        request,
        [&](int, const at::Tensor& frames) {
            EXPECT_NE(std::this_thread::get_id(), caller);
            sleep_for(write);
            chunks.push_back(frames.clone());
        },
        {}, watched.report, hooks);
    watched.video = at::cat(chunks, 1);
    return watched;
}

TEST(Pipeline, DecodingBehindChangesNothing) {
    Engine engine = tiny_engine();
    for (const auto fusion : {OverlapFusion::last, OverlapFusion::linear}) {
        Request request = long_request();
        request.overlap_fusion = fusion;
        const ResolvedRequest before = engine.resolve(request);
        EXPECT_FALSE(before.decode_behind);  // one device
        request.decode_behind = true;
        const ResolvedRequest behind = engine.resolve(request);
        ASSERT_TRUE(behind.decode_behind);
        const Watched expected = watch(engine, before);
        std::vector<LoopState> states;
        const Watched found =
            watch(engine, behind,
                  {.after_step = [&](int, const LoopState& state) { states.push_back(state); }});
        EXPECT_TRUE(at::equal(found.video, expected.video));
        ASSERT_EQ(found.carried.size(), 4u);
        ASSERT_EQ(states.size(), 8u);
        for (std::size_t i = 0; i < 4; ++i) {
            const Carried &a = found.carried[i], &b = expected.carried[i];
            EXPECT_EQ(a.frames_given, b.frames_given);
            EXPECT_EQ(a.drift.size(), b.drift.size());
            EXPECT_TRUE(a.generator.equal(b.generator));
            if (i == 3) break;
            EXPECT_TRUE(a.tail_latents.equal(b.tail_latents));
            EXPECT_TRUE(a.tail.equal(b.tail));
            // Begun again behind it, and inside the segment that follows.
            const std::int64_t given = a.frames_given;
            const at::Tensor rest = expected.video.narrow(1, given, 17 - given);
            EXPECT_TRUE(at::equal(watch(engine, behind, {.begin = a}).video, rest)) << i;
            const LoopState& inside = states[2 * (i + 1)];
            EXPECT_TRUE(
                at::equal(watch(engine, behind, {.begin = a, .begin_loop = inside}).video, rest))
                << i;
        }
    }
}

TEST(Pipeline, DecodesBehindOnlyWhereNoFramesAreNeeded) {
    Engine engine = tiny_engine();
    Request request = long_request();
    request.decode_behind = true;
    EXPECT_TRUE(engine.resolve(request).decode_behind);
    request.num_frames = 5;  // one window
    EXPECT_FALSE(engine.resolve(request).decode_behind);
    request.num_frames = 17;
    request.carry = Carry::pixels;
    EXPECT_FALSE(engine.resolve(request).decode_behind);
    // Whose channels are made of frames.
    const fs::path folder = golden_folder() / "conditions/i2v",
                   shared = golden_folder() / "pipeline/unipc";
    Engine image(ModelFolder::open({.model = folder.string(),
                                    .text_encoder = shared / "text_encoder",
                                    .tokenizer = shared / "tokenizer"}),
                 {.dtype = "fp32", .threads = 1});
    request.image = folder / "image.png";
    request.carry = Carry::latents;
    EXPECT_FALSE(image.resolve(request).decode_behind);
}

// A segment is on the disk before its state says so, and before the next one's frames come.
TEST(Pipeline, SegmentsAreFinishedInOrder) {
    Engine engine = tiny_engine();
    for (const bool behind : {false, true}) {
        Request request = long_request();
        request.decode_behind = behind;
        const Watched run = watch(engine, engine.resolve(request), {}, 0.02);
        EXPECT_THAT(run.events, ElementsAre("written 0", "saved 0", "written 1", "saved 1",
                                            "written 2", "saved 2", "written 3", "saved 3"));
        const Report::Pipeline& pipeline = run.report.pipeline;
        EXPECT_GT(pipeline.write, 4 * 0.02);
        EXPECT_LT(pipeline.write, pipeline.seconds);
        const auto json = to_json(run.report)["pipeline"];
        EXPECT_NEAR(json["stages"]["write"]["busy_seconds"].get<double>() +
                        json["stages"]["write"]["idle_seconds"].get<double>(),
                    pipeline.seconds, 1e-9);
        EXPECT_THAT(pipeline_summary(run.report), HasSubstr("decode "));
    }
}

TEST(Pipeline, TheMemoryPlanCountsWhatIsBehind) {
    Engine engine = tiny_engine();
    Request request = long_request();
    const auto part_of = [&](const std::string& stage, const std::string& part) {
        for (const auto& row : engine.plan_memory(engine.resolve(request)).stages) {
            if (row.stage == stage && row.parts.contains(part)) return row.parts.at(part);
        }
        return std::int64_t{-1};
    };
    const std::int64_t segment = 3LL * 4 * 5 * *request.height * *request.width;
    EXPECT_EQ(part_of("denoise", "frames_behind"), segment);
    EXPECT_EQ(part_of("decode", "frames_behind"), segment);
    request.decode_behind = true;
    EXPECT_EQ(part_of("denoise", "frames_behind"), -1);
    EXPECT_EQ(part_of("denoise", "decode_behind"),
              part_of("decode", "weights") + part_of("decode", "conversion") +
                  part_of("decode", "activations") + part_of("decode", "frames") +
                  part_of("decode", "latents") + part_of("decode", "joined_frames"));
}

TEST(Pipeline, AnErrorBehindEndsTheRunWithItsOwnSentence) {
    Engine engine = tiny_engine();
    for (const bool behind : {false, true}) {
        Request request = long_request();
        request.decode_behind = behind;
        const ResolvedRequest resolved = engine.resolve(request);
        int given = 0, steps = 0;
        SegmentHooks hooks;
        hooks.after_step = [&](int, const LoopState&) {
            ++steps;
            sleep_for(0.05);
        };
        Report report;
        const auto run = [&] {
            engine.generate(
                resolved,
                [&](int, const at::Tensor& frames) {
                    given += static_cast<int>(frames.size(1));
                    ZT_CHECK(given <= 6, io, "cannot write 'film.mp4': the disk is full");
                },
                {}, report, hooks);
        };
        EXPECT_EQ(
            error_of(run),
            std::pair(ErrorKind::io, std::string("cannot write 'film.mp4': the disk is full")));
        EXPECT_LE(steps, 6);  // of 8
    }
}

TEST(Pipeline, StopsWhenAsked) {
    Engine engine = tiny_engine();
    for (const bool behind : {false, true}) {
        Request request = long_request();
        request.decode_behind = behind;
        const ResolvedRequest resolved = engine.resolve(request);
        std::stop_source source;
        SegmentHooks hooks;
        hooks.after_step = [&](int segment, const LoopState&) {
            if (segment == 1) source.request_stop();
        };
        std::vector<std::string> events;
        std::atomic<int> chunks = 0;
        // Without a state to keep, what is not written is dropped; with one, it is finished.
        for (const bool kept : {false, true}) {
            if (kept) {
                hooks.end_frames = [&] { events.emplace_back("written"); };
                hooks.after_segment = [&](const Carried&, const ReportMark&) {
                    events.emplace_back("saved");
                };
            }
            source = {};
            chunks = 0;
            Report report;
            const auto run = [&] {
                engine.generate(
                    resolved,
                    [&](int, const at::Tensor&) {
                        ++chunks;
                        sleep_for(0.1);
                    },
                    {{}, source.get_token()}, report, hooks);
            };
            EXPECT_EQ(error_of(run).first, ErrorKind::cancelled);
            // Two chunks make a segment. Where it is decoded behind, the second may not be made.
            EXPECT_LE(chunks, 2);
            if (kept && !behind) {
                EXPECT_EQ(chunks, 2);
                EXPECT_THAT(events, ElementsAre("written", "saved"));
            }
            if (!kept) {
                EXPECT_THAT(events, testing::IsEmpty());
            }
        }
    }
}

// ---- with a state folder

class Kept : public testing::Test {
protected:
    std::string bytes_of(const char* name) const {
        std::ifstream in(folder_ / name, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }

    // One process's part of a run into `name`. stop_at: segment and step behind which it fails.
    // delay: of the writing of a segment. -> whether it came to its end
    bool run(Engine& engine, const ResolvedRequest& request, const char* name, StateFolder& state,
             std::pair<int, int> stop_at, double delay, Report& report) {
        Output output({.path = folder_ / name, .file_name = {}, .parts = state.segments()}, request,
                      engine);
        Checkpoint checkpoint(state, 1, request, report, output);
        SegmentHooks hooks = checkpoint.hooks();
        hooks.end_frames = [inner = hooks.end_frames, delay] {
            sleep_for(delay);
            inner();
        };
        hooks.after_step = [&, inner = hooks.after_step](int segment, const LoopState& loop) {
            inner(segment, loop);
            check_folder(state);
            if (std::pair(segment, loop.step) == stop_at) fail(ErrorKind::internal, "stopped");
        };
        try {
            output.finish(engine.generate(request, output.callback(), {}, report, hooks));
            return true;
        } catch (const Error& error) {
            EXPECT_STREQ(error.what(), "stopped");
            checkpoint.save_pending();
            return false;
        }
    }

    // What is said to be finished is there, and the loop's state goes on from it.
    void check_folder(const StateFolder& state) {
        const auto carried = state.load(StateFolder::kCarried);
        const auto loop = state.load(StateFolder::kLoop);
        const int finished = carried ? carried_of(*carried).next_segment : 0;
        for (int i = 0; i < finished; ++i)
            EXPECT_TRUE(fs::exists(state.segments() / fmt::format("segment-{:04}.mp4", i))) << i;
        if (loop) {
            EXPECT_LE(loop->values.at("segment").get<int>(), finished);
        }
    }

    const Scratch scratch_;
    const fs::path folder_ = scratch_.path();
};

TEST_F(Kept, RunsThatEndAnywhereGoOnWithTheSameBytes) {
    Engine engine = tiny_engine();
    for (const bool behind : {false, true}) {
        Request wanted = long_request();
        wanted.decode_behind = behind;
        const ResolvedRequest request = engine.resolve(wanted);
        StateFolder whole_state(folder_ / "whole-state");
        whole_state.begin({{"x", 1}});
        Report whole;
        ASSERT_TRUE(run(engine, request, "whole.mp4", whole_state, {-1, -1}, 0, whole));
        for (const auto& [delay, stop_at] :
             {std::pair{0.0, std::pair{1, 1}}, {0.15, {1, 1}}, {0.15, {1, 2}}, {0.15, {3, 2}}}) {
            SCOPED_TRACE(fmt::format("{} {} {} {}", behind, delay, stop_at.first, stop_at.second));
            const fs::path path = folder_ / "state";
            fs::remove_all(path);
            {
                StateFolder state(path);
                state.begin({{"x", 1}});
                Report report;
                EXPECT_FALSE(run(engine, request, "cut.mp4", state, stop_at, delay, report));
                EXPECT_TRUE(state.has_progress());
            }
            StateFolder state(path);
            Report report;
            ASSERT_TRUE(run(engine, request, "cut.mp4", state, {-1, -1}, delay, report));
            EXPECT_EQ(bytes_of("cut.mp4"), bytes_of("whole.mp4"));
            EXPECT_EQ(report.step_seconds.size(), 8u);
            // The segment behind was finished when the run failed, and with it the steps.
            ASSERT_EQ(report.resumed_from.size(), 1u);
            EXPECT_EQ(report.resumed_from[0].segment, stop_at.first);
            EXPECT_EQ(report.resumed_from[0].step, stop_at.second);
        }
    }
    EXPECT_FALSE(bytes_of("whole.mp4").empty());
}

}  // namespace
}  // namespace zoetrope
