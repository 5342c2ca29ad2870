// The state that runs leave behind: what is written comes back to the last bit, and what is not a
// state, or not of this run, is told apart. Processes that are killed: tests/resume_test.py.
#include "engine/checkpoint.h"

#include "base/json.h"
#include "denoise/scheduler.h"
#include "engine/fingerprint.h"
#include "errors.h"
#include "golden.h"
#include "scratch.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sin.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <fstream>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class State : public testing::Test {
protected:
    std::string message_of_opening() {
        return error_of([&] { StateFolder state(folder_); }).second;
    }
    std::vector<std::string> files() const {
        std::vector<std::string> names;
        for (const auto& entry : fs::recursive_directory_iterator(folder_))
            names.push_back(fs::relative(entry.path(), folder_).string());
        std::sort(names.begin(), names.end());
        return names;
    }

    Scratch scratch_;
    fs::path folder_ = scratch_ / "state";
};

const nlohmann::json kScheduler = {{"_class_name", "UniPCMultistepScheduler"},
                                   {"use_flow_sigmas", true},
                                   {"prediction_type", "flow_prediction"},
                                   {"flow_shift", 3.0},
                                   {"num_train_timesteps", 1000}};
constexpr int kSteps = 7;

// A model's place: any function of latents and time that no scheduler knows.
at::Tensor velocity_of(const at::Tensor& latents, float timestep) {
    return at::sin(latents * 3 + timestep / 100);
}

// Steps of a scheduler up to `to`, as DenoiseLoop makes them.
void advance(Scheduler& scheduler, LoopState& state, int to) {
    at::Generator generator = at::detail::createCPUGenerator(0);
    scheduler.restore(state.scheduler);
    generator.set_state(state.generator);
    while (state.step < to) {
        const float timestep = scheduler.timesteps()[static_cast<std::size_t>(state.step)];
        state.latents = scheduler.step(velocity_of(state.latents, timestep), state.step,
                                       state.latents, generator);
        state.step += 1;
        state.scheduler = scheduler.state();
        state.generator = generator.get_state();
    }
}

TEST_F(State, EverySchedulerGoesOnFromEveryStepAsIfNothingHadBeen) {
    for (const std::string& name : scheduler_names()) {
        SCOPED_TRACE(name);
        const auto made = [&name] {
            auto scheduler = make_scheduler(kScheduler, {.name = name});
            scheduler->set_timesteps(kSteps);
            return scheduler;
        };
        const auto begin = [] {
            at::Generator generator = at::detail::createCPUGenerator(42);
            LoopState state;
            state.latents = at::randn({2, 4, 3, 5, 6}, generator, at::kFloat);
            state.generator = generator.get_state();
            return state;
        };
        const auto whole = made();
        const int steps = static_cast<int>(whole->timesteps().size());
        LoopState expected = begin();
        advance(*whole, expected, steps);
        for (int cut = 0; cut <= steps; ++cut) {
            LoopState state = begin();
            advance(*made(), state, cut);
            {
                StateFolder folder(folder_);
                folder.begin({{"x", 1}});
                folder.save(StateFolder::kLoop, tensors_of(state), values_of(state));
            }
            const StateFolder folder(folder_);
            const auto saved = folder.load(StateFolder::kLoop);
            ASSERT_TRUE(saved);
            LoopState back = loop_state_of(*saved);
            EXPECT_EQ(back.step, cut);
            advance(*made(), back, steps);
            EXPECT_TRUE(back.latents.equal(expected.latents)) << "cut at " << cut;
            EXPECT_TRUE(back.generator.equal(expected.generator)) << "cut at " << cut;
        }
        fs::remove_all(folder_);
    }
}

// A tiny Animate pipeline over three segments.
struct Animation {
    Engine engine;
    ResolvedRequest request;

    static Request request_of(const fs::path& folder, const JoinOptions& joins) {
        Request request;
        request.prompt = "a raccoon";
        request.image = folder / "image.png";
        request.pose_video = folder / "pose";
        request.face_video = folder / "face";
        request.background_video = folder / "background";
        request.mask_video = folder / "mask";
        request.height = request.width = 32;
        request.num_inference_steps = 3;
        request.guidance_scale = 1;
        request.scheduler = "dpm++-sde";
        request.seed = 5;
        request.segment_length = 9;
        request.segment_overlap = 5;
        request.carry = joins.carry;
        request.overlap_fusion = joins.fusion;
        request.color_match = joins.color_match;
        return request;
    }
    explicit Animation(const JoinOptions& joins,
                       const fs::path& folder = golden_folder() / "conditions" / "replace",
                       const fs::path& text = golden_folder() / "pipeline" / "unipc")
        : engine(ModelFolder::open({.model = folder.string(),
                                    .text_encoder = text / "text_encoder",
                                    .tokenizer = text / "tokenizer"}),
                 {.dtype = "fp32", .threads = 1}),
          request(engine.resolve(request_of(folder, joins))) {}

    // Frames that are handed out: [3, n, H, W].
    at::Tensor frames(const SegmentHooks& hooks) {
        std::vector<at::Tensor> chunks;
        Report report;
        engine.generate(
            request, [&](int, const at::Tensor& frames) { chunks.push_back(frames.clone()); }, {},
            report, hooks);
        return chunks.empty() ? at::empty({3, 0, 32, 32}) : at::cat(chunks, 1);
    }
};

// Begun again at every point where its state was saved, a run gives the frames that were missing.
void check_every_step(const JoinOptions& joins, const fs::path& path) {
    fs::remove_all(path);
    Animation animation(joins);
    ASSERT_GE(animation.request.segments.segments.size(), 3u);
    StateFolder folder(path);
    folder.begin({{"x", 1}});
    // What is kept comes back from the disk.
    std::vector<Carried> carried;                  // behind each segment
    std::vector<std::pair<int, LoopState>> loops;  // segment and state
    const at::Tensor whole = animation.frames(
        {.after_segment =
             [&](const Carried& now, const ReportMark&) {
                 folder.save(StateFolder::kCarried, tensors_of(now), values_of(now));
                 carried.push_back(carried_of(*folder.load(StateFolder::kCarried)));
             },
         .after_step =
             [&](int segment, const LoopState& state) {
                 folder.save(StateFolder::kLoop, tensors_of(state), values_of(state));
                 loops.emplace_back(segment, loop_state_of(*folder.load(StateFolder::kLoop)));
             }});
    EXPECT_EQ(whole.size(1), animation.request.num_frames);
    EXPECT_EQ(carried.size(), animation.request.segments.segments.size());
    EXPECT_EQ(loops.size(), 3 * carried.size());
    const auto check = [&](const SegmentHooks& point) {
        const int given = point.begin ? point.begin->frames_given : 0;
        const at::Tensor rest = animation.frames(point);
        EXPECT_TRUE(rest.equal(whole.narrow(1, given, whole.size(1) - given))) << given;
    };
    for (const Carried& point : carried) check({.begin = point});
    for (const auto& [segment, state] : loops) {
        SegmentHooks point{.begin_loop = state};
        if (segment > 0) point.begin = carried[static_cast<std::size_t>(segment) - 1];
        check(point);
    }
}

// With joins that leave latents to the next segment, and with such that leave it colours.
TEST_F(State, ARunGoesOnFromEveryStepOfEverySegment) {
    for (const JoinOptions& joins :
         {JoinOptions{.carry = Carry::latents, .fusion = OverlapFusion::linear},
          JoinOptions{.fusion = OverlapFusion::cosine, .color_match = true}})
        check_every_step(joins, folder_);
}

TEST_F(State, AFolderIsForOneAtATimeAndIsGoneWhereNothingCameOfIt) {
    {
        const StateFolder folder(folder_ / "deep");
        EXPECT_FALSE(folder.was_used());
        EXPECT_THAT(error_of([&] { StateFolder second(folder_ / "deep"); }).second,
                    HasSubstr(fmt::format("process {}", getpid())));
    }
    EXPECT_FALSE(fs::exists(folder_ / "deep"));
    {
        StateFolder folder(folder_);
        folder.begin({{"x", 1}});
        EXPECT_FALSE(folder.has_progress());
    }
    EXPECT_THAT(files(), testing::IsEmpty());
    {
        StateFolder folder(folder_);
        folder.begin({{"x", 1}});
        const NamedTensor tensor{"a", at::randn({3})};
        folder.save(StateFolder::kCarried, std::span(&tensor, 1), {{"n", 2.5}});
        EXPECT_TRUE(folder.has_progress());
    }
    EXPECT_THAT(files(), ElementsAre("carried.safetensors", "run.json"));
    {
        StateFolder folder(folder_);
        EXPECT_TRUE(folder.was_used());
        EXPECT_EQ(folder.run()["x"], 1);
        EXPECT_EQ(folder.load(StateFolder::kCarried)->values["n"], 2.5);
        EXPECT_FALSE(folder.load(StateFolder::kLoop));
        fs::create_directories(folder.segments());
        std::ofstream(folder.segments() / "segment-0000.mp4") << "x";
        folder.finish({{"files", {"a.mp4"}}});
    }
    EXPECT_THAT(files(), ElementsAre("run.json"));
    StateFolder folder(folder_);
    EXPECT_EQ(folder.result()["files"][0], "a.mp4");
    EXPECT_FALSE(folder.has_progress());
}

TEST_F(State, WhatIsNoStateIsTold) {
    fs::create_directories(folder_);
    std::ofstream(folder_ / "holiday.jpg") << "x";
    EXPECT_THAT(message_of_opening(), HasSubstr("'holiday.jpg'"));
    EXPECT_THAT(files(), ElementsAre("holiday.jpg"));
    fs::remove(folder_ / "holiday.jpg");
    for (const char* text : {"", "{", "[1]", "{\"zoetrope_state\": 1}",
                             "{\"zoetrope_state\": 1, \"run\": 3}", "{\"run\": {}}"}) {
        std::ofstream(folder_ / "run.json") << text;
        EXPECT_THAT(message_of_opening(), HasSubstr("remove the folder")) << text;
    }
    std::ofstream(folder_ / "run.json") << "{\"zoetrope_state\": 7, \"run\": {}}";
    EXPECT_THAT(message_of_opening(), HasSubstr("format 7"));
    EXPECT_THAT(files(), ElementsAre("run.json"));
}

TEST_F(State, DamageIsSeen) {
    StateFolder folder(folder_);
    folder.begin({{"x", 1}});
    const NamedTensor tensor{"a", at::randn({300})};
    folder.save(StateFolder::kLoop, std::span(&tensor, 1), {{"n", 1}});
    const fs::path file = folder_ / StateFolder::kLoop;
    std::ifstream in(file, std::ios::binary);
    const std::string whole{std::istreambuf_iterator<char>(in), {}};
    const auto refused = [&](std::string bytes) {
        std::ofstream(file, std::ios::binary) << bytes;
        EXPECT_THAT(error_of([&] { folder.load(StateFolder::kLoop); }).second,
                    HasSubstr("remove the folder"));
    };
    for (std::size_t size = 0; size < whole.size(); size += 97) refused(whole.substr(0, size));
    for (std::size_t at = whole.size() - 1200; at < whole.size(); at += 53) {
        std::string bytes = whole;
        bytes[at] = static_cast<char>(bytes[at] ^ 4);
        refused(bytes);
    }
    std::ofstream(file, std::ios::binary) << whole;
    EXPECT_TRUE(folder.load(StateFolder::kLoop)->tensors.at("a").equal(tensor.tensor));
    // Values that are of another run, or of another program's state.
    SavedState saved = *folder.load(StateFolder::kLoop);
    EXPECT_EQ(error_of([&] { loop_state_of(saved); }).first, ErrorKind::io);
}

TEST(Differences, NameTheLeavesThatDiffer) {
    const nlohmann::json before = {{"a", 1}, {"b", {{"c", "x"}, {"d", {1, 2}}}}, {"old", true}};
    EXPECT_THAT(differences(before, before), testing::IsEmpty());
    const nlohmann::json now = {{"a", 1}, {"b", {{"c", "y"}, {"d", {1, 3}}}}, {"new", 0.5}};
    EXPECT_THAT(differences(before, now),
                ElementsAre("b.c was \"x\" and is \"y\"", "b.d was [1,2] and is [1,3]",
                            "new was not there and is 0.5", "old was true and is not there"));
    const auto cut = differences({{"p", std::string(100, 'x')}}, {{"p", "y"}});
    EXPECT_THAT(cut, ElementsAre("p was \"" + std::string(59, 'x') + "... and is \"y\""));
}

TEST(Fingerprint, IsTheSameForTheSameAndAnotherForAnother) {
    const Scratch scratch;
    const fs::path model = scratch / "model";
    fs::copy(golden_folder() / "pipeline" / "unipc", model, fs::copy_options::recursive);
    const auto of = [&](int seed, const char* output) {
        Engine engine(ModelFolder::open({.model = model.string()}), {.dtype = "fp32"});
        Request request;
        request.prompt = "x";
        request.height = request.width = 32;
        request.num_frames = 5;
        request.seed = static_cast<std::uint64_t>(seed);
        return fingerprint(engine.resolve(request), engine, output);
    };
    const auto first = of(1, "a.mp4");
    EXPECT_THAT(differences(first, of(1, "elsewhere/b.mp4")), testing::IsEmpty());
    EXPECT_THAT(differences(first, of(2, "a.mp4")), ElementsAre("settings.seed was 1 and is 2"));
    EXPECT_THAT(differences(first, of(1, "a.gif")),
                ElementsAre("output.format was \".mp4\" and is \".gif\""));
    // Another fine-tune of the same shapes.
    const fs::path weights = model / "transformer" / "diffusion_pytorch_model.safetensors";
    std::fstream file(weights, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(fs::file_size(weights) / 2));
    file.put('\x11');
    file.close();
    const auto changed = differences(first, of(1, "a.mp4"));
    ASSERT_EQ(changed.size(), 1u);
    EXPECT_THAT(changed[0], HasSubstr("model.transformer.diffusion_pytorch_model.safetensors"));
}

}  // namespace
}  // namespace zoetrope
