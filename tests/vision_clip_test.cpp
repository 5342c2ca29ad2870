#include "base/json.h"
#include "errors.h"
#include "golden.h"
#include "ops/stats.h"
#include "vision/clip.h"
#include "weights/source.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

namespace zoetrope {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const std::filesystem::path kGolden = golden_folder() / "vision";

// The golden encoder with all its weights at hand.
struct Loaded {
    Loaded(const ClipVisionConfig& config, Weights weights, at::ScalarType dtype)
        : encoder(config, weights),
          residency((weights.check(), std::move(weights)), {.compute_dtype = dtype}),
          lease(residency.lease_all()) {}

    at::Tensor encode(const at::Tensor& pixels) { return encoder.encode(pixels, residency); }

    ClipVision encoder;
    Residency residency;
    Lease lease;
};

Loaded load(const std::string& activation, at::ScalarType dtype) {
    json config = read_json(kGolden / "clip/config.json");
    config["hidden_act"] = activation;
    return {ClipVisionConfig::from_json(config),
            Weights("image_encoder", open_safetensors(kGolden / "clip/model.safetensors")), dtype};
}

class Clip : public testing::TestWithParam<std::string> {};

// Transformers' own float32 is 4e-7 from its float64 on this encoder.
TEST_P(Clip, Float32EqualsTransformers) {
    const auto expected = read_tensors(kGolden / "clip/expected.safetensors");
    const at::Tensor found = load(GetParam(), at::kFloat).encode(expected.at("pixels"));
    ASSERT_EQ(found.sizes(), expected.at(GetParam()).sizes());
    EXPECT_LT(relative_error(found, expected.at(GetParam())), 1e-6);
}

TEST_P(Clip, Bf16IsAsCloseToFloat32AsTransformers) {
    const auto expected = read_tensors(kGolden / "clip/expected.safetensors");
    const at::Tensor found = load(GetParam(), at::kBFloat16).encode(expected.at("pixels"));
    EXPECT_EQ(found.scalar_type(), at::kBFloat16);
    const double theirs = expected.at(GetParam() + "_bf16_distance").item().toDouble();
    EXPECT_LT(relative_error(found, expected.at(GetParam())), theirs);
}

INSTANTIATE_TEST_SUITE_P(Golden, Clip, testing::Values("gelu", "quick_gelu", "gelu_pytorch_tanh"));

TEST(ClipVision, EncodesEachPictureByItself) {
    const at::Tensor pixels = read_tensors(kGolden / "clip/expected.safetensors").at("pixels");
    Loaded model = load("gelu", at::kFloat);
    const at::Tensor both = model.encode(pixels), second = model.encode(pixels.narrow(0, 1, 1));
    EXPECT_LT(relative_error(second, both.narrow(0, 1, 1)), 1e-6);
}

// The tensors of another source under other names, and more.
class Renamed : public TensorSource {
public:
    Renamed(std::shared_ptr<const TensorSource> source, const std::string& prefix)
        : source_(std::move(source)) {
        for (TensorInfo info : source_->tensors()) {
            info.name = prefix + info.name;
            tensors_.push_back(info);
        }
    }
    void add(TensorInfo info) { tensors_.push_back(std::move(info)); }
    std::span<const TensorInfo> tensors() const override { return tensors_; }
    at::Tensor read(std::size_t index) const override {
        return index < source_->tensors().size() ? source_->read(index)
                                                 : at::empty(tensors_[index].shape);
    }
    std::string description() const override { return "renamed"; }

private:
    std::shared_ptr<const TensorSource> source_;
    std::vector<TensorInfo> tensors_;
};

TEST(ClipVision, ReadsReleasedNamesAndLeavesWhatItDoesNotNeed) {
    const auto file = open_safetensors(kGolden / "clip/model.safetensors");
    auto source = std::make_shared<Renamed>(file, "vision_model.");
    source->add({"vision_model.embeddings.position_ids", {1, 17}, at::kLong});
    source->add({"visual_projection.weight", {32, 48}});
    Loaded model(ClipVisionConfig::from_json(read_json(kGolden / "clip/config.json")),
                 Weights("image_encoder", source), at::kFloat);
    const auto expected = read_tensors(kGolden / "clip/expected.safetensors");
    EXPECT_LT(relative_error(model.encode(expected.at("pixels")), expected.at("gelu")), 1e-6);
    // Three embeddings and the first norm; 16 tensors in each of two of the three blocks.
    EXPECT_EQ(model.encoder.outer_params().size(), 3u + 2u);
    ASSERT_EQ(model.encoder.num_blocks(), 2);
    EXPECT_EQ(model.encoder.params(1).size(), 16u);

    source->add({"vision_model.encoder.layers.3.mlp.fc1.bias", {112}});
    const auto [kind, message] = error_of([&] {
        return Loaded(model.encoder.config(), Weights("image_encoder", source), at::kFloat);
    });
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_THAT(message, HasSubstr("layers.3.mlp.fc1.bias"));
}

TEST(ClipVision, CountsTheOperationsThatItDoes) {
    Loaded model = load("gelu", at::kFloat);
    double counted = 0;
    {
        ops::Collection collection;
        model.encode(at::ones({2, 3, 28, 28}));
        for (const auto& [name, stats] : collection.operators()) counted += stats.flop;
    }
    EXPECT_DOUBLE_EQ(model.encoder.flop(2), counted);
}

TEST(ClipVision, RefusesPicturesOfAnotherSize) {
    Loaded model = load("gelu", at::kFloat);
    const auto [kind, message] = error_of([&] { return model.encode(at::ones({1, 3, 28, 35})); });
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_THAT(message, HasSubstr("[1, 3, 28, 35]"));
    EXPECT_THAT(message, HasSubstr("28x28"));
}

TEST(ClipVisionConfig, ReadsTheReleasedEncodersConfig) {
    const ClipVisionConfig found = ClipVisionConfig::from_json(json::parse(R"({
        "architectures": ["CLIPVisionModel"], "attention_dropout": 0.0, "dropout": 0.0,
        "hidden_act": "gelu", "hidden_size": 1280, "image_size": 224, "initializer_factor": 1.0,
        "initializer_range": 0.02, "intermediate_size": 5120, "layer_norm_eps": 1e-05,
        "model_type": "clip_vision_model", "num_attention_heads": 16, "num_channels": 3,
        "num_hidden_layers": 32, "patch_size": 14, "projection_dim": 1024
    })"));
    const ClipVisionConfig expected;
    EXPECT_EQ(found.hidden_size, expected.hidden_size);
    EXPECT_EQ(found.intermediate_size, expected.intermediate_size);
    EXPECT_EQ(found.num_hidden_layers, expected.num_hidden_layers);
    EXPECT_EQ(found.num_attention_heads, expected.num_attention_heads);
    EXPECT_EQ(found.layer_norm_eps, expected.layer_norm_eps);
    EXPECT_EQ(found.activation, ClipActivation::gelu_erf);
    EXPECT_EQ(found.tokens(), 257);
}

TEST(ClipVisionConfig, RefusesWhatItDoesNotKnow) {
    const json good = read_json(kGolden / "clip/config.json");
    const auto kind_with = [&](const char* key, const json& value) {
        json config = good;
        if (value.is_null()) {
            config.erase(key);
        } else {
            config[key] = value;
        }
        const auto [kind, message] = error_of([&] { return ClipVisionConfig::from_json(config); });
        EXPECT_THAT(message, HasSubstr(key));
        return kind;
    };
    EXPECT_EQ(kind_with("model_type", "siglip_vision_model"), ErrorKind::unsupported);
    EXPECT_EQ(kind_with("hidden_act", "silu"), ErrorKind::unsupported);
    EXPECT_EQ(kind_with("hidden_size", json()), ErrorKind::io);
    EXPECT_EQ(kind_with("hidden_size", 50), ErrorKind::io);
    EXPECT_EQ(kind_with("patch_size", 5), ErrorKind::io);
    EXPECT_EQ(kind_with("image_size", json::array({28, 28})), ErrorKind::io);
    EXPECT_EQ(kind_with("num_attention_heads", 0), ErrorKind::io);
    EXPECT_EQ(kind_with("layer_norm_eps", "small"), ErrorKind::io);
    EXPECT_EQ(kind_with("num_hidden_layers", std::int64_t{1} << 40), ErrorKind::io);
    EXPECT_EQ(error_of([] { return ClipVisionConfig::from_json(json::array()); }).first,
              ErrorKind::io);
}

}  // namespace
}  // namespace zoetrope
