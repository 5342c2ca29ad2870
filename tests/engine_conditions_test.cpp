// Runs that begin with pictures and videos beside Diffusers' pipelines
// (tools/oracle/tiny_conditions.py), and which inputs go with which model.
#include "base/json.h"
#include "engine/engine.h"
#include "engine/tasks.h"
#include "errors.h"
#include "golden.h"

#include <ATen/ops/cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// Ours against Diffusers, measured: 2e-6 at most without CLIP, 3e-6 with.
constexpr double kLatentTolerance = 2e-5;
constexpr double kFrameTolerance = 1e-3;  // of values in [0, 1]; the golden is stored in fp16

fs::path folder_of(const std::string& name) { return golden_folder() / "conditions" / name; }

Engine open_engine(const std::string& name) {
    const fs::path shared = golden_folder() / "pipeline" / "unipc";
    return Engine(ModelFolder::open({.model = folder_of(name).string(),
                                     .text_encoder = shared / "text_encoder",
                                     .tokenizer = shared / "tokenizer"}),
                  {.dtype = "fp32"});
}

fs::path file_of(const std::string& name, const char* file) {
    const fs::path path = folder_of(name) / file;
    return fs::exists(path) ? path : fs::path();
}

Request request_of(const std::string& name) {
    const auto json = read_json(folder_of(name) / "request.json");
    Request request;
    request.prompt = json["prompt"];
    request.height = json["height"];
    request.width = json["width"];
    request.num_frames = json["num_frames"];
    request.num_inference_steps = json["steps"];
    request.guidance_scale = json["guidance_scale"];
    request.seed = json["seed"];
    request.image = file_of(name, "image.png");
    request.last_image = file_of(name, "last.png");
    request.video = file_of(name, "video");
    request.mask_video = file_of(name, "mask");
    if (const auto reference = file_of(name, "reference0.png"); !reference.empty())
        request.reference_images = {reference};
    if (const auto poses = file_of(name, "pose"); !poses.empty()) {
        request.pose_video = poses;
        request.face_video = file_of(name, "face");
        request.background_video = file_of(name, "background");
        request.segment_length = json["segment_length"].get<int>();
        request.segment_overlap = json["overlap"].get<int>();
    }
    if (name == "v2v") request.strength = json["strength"];
    if (name == "vace") request.conditioning_scale = json["conditioning_scale"];
    return request;
}

class ConditionsGolden : public testing::TestWithParam<const char*> {};

TEST_P(ConditionsGolden, LatentsAndFramesEqualDiffusers) {
    const auto expected = read_tensors(folder_of(GetParam()) / "expected.safetensors");
    Engine engine = open_engine(GetParam());
    const ResolvedRequest request = engine.resolve(request_of(GetParam()));
    std::vector<at::Tensor> chunks;
    Report report;
    const at::Tensor latents = engine.generate(
        request, [&chunks](int, const at::Tensor& frames) { chunks.push_back(frames); }, {},
        report);
    EXPECT_EQ(latents.sizes(), expected.at("latents").sizes());
    EXPECT_LT(relative_error(latents, expected.at("latents")), kLatentTolerance);
    const at::Tensor video = at::cat(chunks, 1).transpose(0, 1).unsqueeze(0);
    EXPECT_EQ(video.sizes(), expected.at("video").sizes());
    EXPECT_LT(largest_difference(video, expected.at("video").to(at::kFloat)), kFrameTolerance);
    EXPECT_EQ(report.stages.at(1).stage, "encode_image");
}

INSTANTIATE_TEST_SUITE_P(Kinds, ConditionsGolden,
                         testing::Values("i2v", "flf2v", "ti2v", "v2v", "vace", "replace"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST(Conditions, SizesFollowThePictureWhereNoneAreGiven) {
    Engine engine = open_engine("i2v");
    Request request = request_of("i2v");  // a picture of 45x37
    request.height.reset();
    request.width.reset();
    const ResolvedRequest resolved = engine.resolve(request);
    EXPECT_EQ(resolved.height, 560);  // sqrt(480 * 832 * 37 / 45) = 573, down to 16
    EXPECT_EQ(resolved.width, 688);
}

TEST(Conditions, LengthOfTheVideoCounts) {
    Engine engine = open_engine("v2v");  // 9 frames
    Request request = request_of("v2v");
    request.num_frames.reset();
    EXPECT_EQ(engine.resolve(request).num_frames, 9);
    request.num_frames = 5;
    EXPECT_EQ(engine.resolve(request).num_frames, 5);
    request.num_frames = 13;
    EXPECT_THAT(error_of([&] { engine.resolve(request); }).second,
                HasSubstr("--video has 9 frames"));
}

TEST(Conditions, StrengthCutsTheSteps) {
    Engine engine = open_engine("v2v");
    Request request = request_of("v2v");
    request.num_inference_steps = 10;
    request.strength = 0.35;
    const ResolvedRequest resolved = engine.resolve(request);
    EXPECT_EQ(resolved.first_step, 7);
    EXPECT_EQ(resolved.last_step, 10);
    for (const double wrong : {0.0, 0.05, 1.5, -1.0}) {
        request.strength = wrong;
        EXPECT_THAT(error_of([&] { engine.resolve(request); }).second, HasSubstr("--strength"));
    }
}

// 16 frames in segments of 13: four latent frames and the character's, of 36 channels and 4x4.
TEST(Conditions, MemoryIsThatOfTheLongestSegment) {
    Engine engine = open_engine("replace");
    const MemoryPlan plan = engine.plan_memory(engine.resolve(request_of("replace")));
    const auto denoise = std::find_if(plan.stages.begin(), plan.stages.end(),
                                      [](const auto& stage) { return stage.stage == "denoise"; });
    ASSERT_NE(denoise, plan.stages.end());
    EXPECT_EQ(denoise->parts.at("latents"), 8 * 36 * 5 * 4 * 4 * 4);
}

// kind, two pictures, request, what the message names
TEST(Tasks, RefuseWhatTheModelDoesNotTake) {
    const auto refusal = [](ModelKind kind, const Request& request, bool two_pictures = false) {
        return error_of([&] { resolve_task(kind, two_pictures, request, 17); }).second;
    };
    const Request picture{.image = "a.png"};
    EXPECT_THAT(refusal(ModelKind::text, picture), HasSubstr("--image is not for --task t2v"));
    EXPECT_THAT(refusal(ModelKind::text, picture), HasSubstr("takes a prompt, and --video"));
    EXPECT_THAT(refusal(ModelKind::image, {}), HasSubstr("--image is missing"));
    EXPECT_THAT(refusal(ModelKind::image, picture, true), HasSubstr("--last-image is missing"));
    EXPECT_THAT(refusal(ModelKind::text, {.task = Task::i2v, .image = "a.png"}),
                HasSubstr("--task i2v does not fit the model"));
    EXPECT_THAT(refusal(ModelKind::text, {.task = Task::v2v}), HasSubstr("--video is missing"));
    EXPECT_THAT(refusal(ModelKind::control, {.mask_video = "m.mp4"}),
                HasSubstr("--video is missing"));
    EXPECT_THAT(refusal(ModelKind::text_or_image, {.last_image = "b.png"}),
                HasSubstr("--last-image is not for"));
    EXPECT_THAT(refusal(ModelKind::control, {.strength = 0.5}), HasSubstr("--strength is not for"));
}

// A driving clip, or the videos that are made of one, and not both.
TEST(Tasks, AnimateTakesAClipOrWhatIsMadeOfIt) {
    Request request{.image = "a.png"};
    const auto refusal = [&] {
        return error_of([&] { resolve_task(ModelKind::animate, false, request, 17); }).second;
    };
    EXPECT_THAT(refusal(), HasSubstr("--video is missing, or --pose-video and --face-video"));
    request.preprocessing_flag = "--retarget";
    EXPECT_THAT(refusal(), HasSubstr("--retarget says how a driving clip is looked at"));
    request.video = "clip.mp4";
    EXPECT_EQ(resolve_task(ModelKind::animate, false, request, 17), Task::animate);
    request.task = Task::replace;
    EXPECT_EQ(resolve_task(ModelKind::animate, false, request, 17), Task::replace);
    request.mask_video = "mask.mp4";
    EXPECT_THAT(refusal(), HasSubstr("--video and --mask-video were both given"));
    const Request text{.preprocessing_flag = "--person"};
    EXPECT_THAT(error_of([&] { resolve_task(ModelKind::text, false, text, 17); }).second,
                HasSubstr("--person is not for --task t2v"));
}

TEST(Tasks, FollowFromModelAndInputs) {
    const auto task = [](ModelKind kind, const Request& request, int frames = 17) {
        return resolve_task(kind, false, request, frames);
    };
    EXPECT_EQ(task(ModelKind::text, {}), Task::t2v);
    EXPECT_EQ(task(ModelKind::text, {}, 1), Task::t2i);
    EXPECT_EQ(task(ModelKind::text, {.video = "v.mp4"}), Task::v2v);
    EXPECT_EQ(task(ModelKind::image, {.image = "a.png"}), Task::i2v);
    EXPECT_EQ(task(ModelKind::image, {.image = "a.png", .last_image = "b.png"}), Task::flf2v);
    EXPECT_EQ(task(ModelKind::text_or_image, {}), Task::t2v);
    EXPECT_EQ(task(ModelKind::text_or_image, {.image = "a.png"}), Task::i2v);
    EXPECT_EQ(task(ModelKind::control, {}), Task::vace);
    EXPECT_EQ(task(ModelKind::control, {.video = "v.mp4", .mask_video = "m.mp4"}), Task::vace);
}

}  // namespace
}  // namespace zoetrope
