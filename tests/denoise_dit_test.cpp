// The DiT beside Diffusers' WanTransformer3DModel, tensor by tensor (tools/oracle/dit_golden.py).
#include "base/error.h"
#include "base/json.h"
#include "denoise/dit.h"
#include "golden.h"
#include "ops/trace.h"

#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace zoetrope {
namespace {

using testing::HasSubstr;

// Diffusers differs from itself by up to 4e-7 here (other thread counts and kernels); 1e-6 measured
// at most.
constexpr double kTolerance = 3e-6;

struct Golden {
    std::filesystem::path folder;
    std::map<std::string, at::Tensor> expected;
    DitConfig config;
    Weights weights;
    Dit dit;
    Residency residency;

    explicit Golden(const std::string& name, at::ScalarType dtype = at::kFloat)
        : folder(golden_folder() / "dit" / name),
          expected(read_tensors(folder / "expected.safetensors")),
          config(DitConfig::from_json(read_json(folder / "config.json"))),
          weights(Weights::open("transformer", folder)),
          dit(config, weights),
          residency((weights.check(), std::move(weights)), {.compute_dtype = dtype}) {}

    // One pass, one block at a time. -> velocity
    at::Tensor run() {
        const c10::InferenceMode inference;
        const at::Tensor latents = expected.at("latents");
        const LatentSize size{latents.size(2), latents.size(3), latents.size(4)};
        const at::Tensor timesteps = expected.at("timesteps");
        FrameTimesteps given;
        for (std::int64_t f = 0; f < timesteps.size(0); ++f) {
            const float value = timesteps[f].item<float>();
            const auto known = std::find(given.values.begin(), given.values.end(), value);
            given.frame_value.push_back(known - given.values.begin());
            if (known == given.values.end()) given.values.push_back(value);
        }
        const Lease outer = residency.lease(dit.outer_params());
        const at::Tensor text = expected.at("text").to(residency.options().compute_dtype);
        Conditions conditions{.text = text, .size = size};
        const auto given_or_none = [this](const char* name) {
            const auto found = expected.find(name);
            return found == expected.end() ? at::Tensor() : found->second;
        };
        conditions.image = given_or_none("image");
        conditions.channels = given_or_none("channels");
        conditions.control = given_or_none("control");
        conditions.control_scale = 0.7;  // CONTROL_SCALE of dit_golden.py
        conditions.pose = given_or_none("pose");
        conditions.faces = given_or_none("faces");
        auto prepared = dit.prepare(conditions, outer);
        auto state = dit.embed(latents, given, prepared, outer);
        for (std::int64_t i = 0; i < dit.num_blocks(); ++i) {
            const Lease block = residency.lease(dit.params(i));
            dit.blocks(i, i + 1, state, block);
        }
        return dit.head(state, outer);
    }
};

class DitGolden : public testing::TestWithParam<const char*> {};

TEST_P(DitGolden, EveryTracedTensorEqualsDiffusers) {
    Golden golden(GetParam());
    const ops::Recording recording;
    const at::Tensor velocity = golden.run();
    EXPECT_LT(relative_error(velocity, golden.expected.at("velocity")), kTolerance);
    int compared = 0;
    for (const auto& [name, tensor] : golden.expected) {
        if (!name.starts_with("traced.")) continue;
        const auto traced = recording.tensors().find(name.substr(7));
        ASSERT_NE(traced, recording.tensors().end()) << name;
        EXPECT_LT(relative_error(traced->second, tensor), kTolerance) << name;
        ++compared;
    }
    // Of a block with a hint, which Diffusers adds outside of it, the control block is compared; of
    // one that faces are looked at behind, the faces.
    const int images = golden.config.image_dim > 0 ? 1 : 0;
    EXPECT_EQ(compared, 2 + images + 4 * golden.config.num_layers);
}

TEST_P(DitGolden, HalfPrecisionStaysNear) {
    Golden golden(GetParam(), at::kBFloat16);
    const at::Tensor velocity = golden.run();
    EXPECT_EQ(velocity.scalar_type(), at::kFloat);
    EXPECT_LT(relative_error(velocity, golden.expected.at("velocity")),
              0.01);  // measured 0.003 to 0.005: 2^-8 over two blocks
}

TEST_P(DitGolden, SecondPassUsesTheKeptKeysAndValues) {
    Golden golden(GetParam());
    EXPECT_EQ(largest_difference(golden.run(), golden.run()), 0);
}

INSTANTIATE_TEST_SUITE_P(Cases, DitGolden,
                         testing::Values("plain", "frames", "no_cross_norm", "image", "two_images",
                                         "control", "animate"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST(Dit, ParametersAreLetGoBetweenBlocks) {
    Golden golden("plain", at::kBFloat16);  // stored as fp32, so leases hold copies
    golden.run();
    EXPECT_EQ(golden.residency.leased_bytes(), 0);
    std::int64_t outer = 0, block = 0;
    const auto bytes = [&](std::span<const Param> params) {
        std::int64_t sum = 0;
        for (const Param& param : params) {
            std::int64_t elements = 1;
            for (const auto n : param.shape) elements *= n;
            if (golden.residency.dtype_of(param) == at::kBFloat16) sum += 2 * elements;
        }
        return sum;
    };
    outer = bytes(golden.dit.outer_params());
    block = bytes(golden.dit.params(0));
    EXPECT_EQ(golden.residency.peak_leased_bytes(), outer + block);
}

TEST(Dit, RefusesSizesThatPatchesDoNotDivide) {
    Golden golden("plain");
    const Lease lease = golden.residency.lease(golden.dit.outer_params());
    const at::Tensor text = golden.expected.at("text");
    for (const LatentSize size :
         {LatentSize{1, 3, 4}, LatentSize{1, 4, 5}, LatentSize{0, 4, 4}, LatentSize{33, 4, 4}}) {
        EXPECT_THROW(golden.dit.prepare({.text = text, .size = size}, lease), Error);
    }
}

TEST(DitConfig, RefusesBrokenAndForeignConfigs) {
    const auto message_of = [](const char* json) -> std::string {
        try {
            DitConfig::from_json(nlohmann::json::parse(json));
        } catch (const Error& error) {
            return error.what();
        }
        return "accepted";
    };
    EXPECT_THAT(message_of(R"({"num_layers": -1})"), HasSubstr("num_layers is -1"));
    EXPECT_THAT(message_of(R"({"num_layers": "two"})"), HasSubstr("num_layers"));
    EXPECT_THAT(message_of(R"({"patch_size": [1, 2]})"), HasSubstr("patch_size"));
    EXPECT_THAT(message_of(R"({"image_dim": 1280})"), HasSubstr("added_kv_proj_dim"));
    EXPECT_THAT(message_of(R"({"_class_name": "WanVACETransformer3DModel", "num_layers": 4,
                               "vace_layers": [0, 4]})"),
                HasSubstr("vace_layers"));
    EXPECT_THAT(message_of(R"({"_class_name": "WanVACETransformer3DModel", "num_layers": 4,
                               "vace_layers": [1, 2]})"),
                HasSubstr("vace_layers"));
    EXPECT_THAT(message_of(R"({"_class_name": "UNet2DModel"})"), HasSubstr("UNet2DModel"));
    EXPECT_EQ(message_of(R"({})"), "accepted");
}

// 12 heads of 128 channels, 32,760 tokens: the figures of the 1.3B model at 480x832x81.
TEST(Dit, CountsOperationsOfTheRealShape) {
    DitConfig config;
    config.num_attention_heads = 12;
    config.ffn_dim = 8960;
    config.num_layers = 1;
    Weights weights = Weights::random("transformer", {});
    const Dit dit(config, weights);
    const auto flop = dit.flop({21, 60, 104}, 512);
    EXPECT_NEAR(flop.self_attention / 1e12, 4.0 * 32760 * 32760 * 1536 / 1e12, 1e-9);
    // Projections, cross-attention and the feed-forward part, counted by hand.
    EXPECT_NEAR(flop.total / 1e12, 6.5939 + 0.9276 + 0.0048 + 0.1031 + 1.8034, 2e-3);
}

}  // namespace
}  // namespace zoetrope
