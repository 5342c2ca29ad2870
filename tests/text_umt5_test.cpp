#include "base/error.h"
#include "base/json.h"
#include "golden.h"
#include "ops/stats.h"
#include "text/umt5.h"
#include "weights/source.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

namespace zoetrope {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const std::filesystem::path kGolden = golden_folder() / "text";

std::vector<std::int32_t> ids_of(const at::Tensor& ids) {
    const auto* data = ids.const_data_ptr<std::int64_t>();
    return {data, data + ids.numel()};
}

// An encoder with all its weights at hand.
struct Loaded {
    Loaded(const Umt5Config& config, Weights weights, at::ScalarType dtype)
        : encoder(config, weights),
          residency((weights.check(), std::move(weights)), {.compute_dtype = dtype}),
          lease(residency.lease_all()) {}

    at::Tensor encode(std::span<const std::int32_t> ids) { return encoder.encode(ids, residency); }

    Umt5Encoder encoder;
    Residency residency;
    Lease lease;
};

Loaded load(const std::string& name, at::ScalarType dtype) {
    const auto folder = kGolden / name;
    return {Umt5Config::from_json(read_json(folder / "config.json")),
            Weights("text_encoder", open_safetensors(folder / "model.safetensors")), dtype};
}

class Umt5 : public testing::TestWithParam<std::string> {};

// Transformers pads to 512 and masks; here the real tokens alone are computed. Its own float32 is
// 1.7e-7 to 4.8e-7 from float64 on these encoders.
TEST_P(Umt5, Float32EqualsPaddedRunOfTransformers) {
    const auto expected = read_tensors(kGolden / GetParam() / "expected.safetensors");
    Loaded model = load(GetParam(), at::kFloat);
    for (const std::string length : {"1", "7", "200"}) {
        const at::Tensor& out = expected.at("out_" + length);
        const at::Tensor found = model.encode(ids_of(expected.at("ids_" + length)));
        ASSERT_EQ(found.sizes(), out.sizes());
        EXPECT_LT(relative_error(found, out), 1e-6) << length << " tokens";
    }
}

// fp16 of the second encoder passes 65504 in its middle block, which must not show.
TEST_P(Umt5, HalfPrecisionIsAsCloseToFloat32AsTransformers) {
    const auto expected = read_tensors(kGolden / GetParam() / "expected.safetensors");
    for (const auto& [kind, dtype] :
         {std::pair("bf16", at::kBFloat16), std::pair("fp16", at::kHalf)}) {
        Loaded model = load(GetParam(), dtype);
        for (const std::string length : {"1", "7", "200"}) {
            const double theirs =
                expected.at(fmt::format("{}_distance_{}", kind, length)).item().toDouble();
            const at::Tensor found = model.encode(ids_of(expected.at("ids_" + length)));
            EXPECT_EQ(found.scalar_type(), dtype);
            EXPECT_LT(relative_error(found, expected.at("out_" + length)), 1.2 * theirs)
                << kind << ", " << length << " tokens";
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Golden, Umt5, testing::Values("umt5_gated", "umt5_relu"));

TEST(Umt5Encoder, BucketsOfDistancesEqualTransformers) {
    for (const json& table : read_json(kGolden / "position_buckets.json")) {
        const auto expected = table.at("expected").get<std::vector<std::int64_t>>();
        const auto length = static_cast<std::int64_t>(expected.size() + 1) / 2;
        EXPECT_EQ(relative_position_buckets(length, table.at("buckets"), table.at("max_distance")),
                  expected);
    }
    EXPECT_EQ(relative_position_buckets(1, 32, 128), std::vector<std::int64_t>{0});
}

TEST(Umt5Encoder, RefusesIdsOutsideItsVocabulary) {
    Loaded model = load("umt5_gated", at::kFloat);
    for (const std::int32_t bad : {-1, 100}) {
        const std::vector<std::int32_t> ids = {5, bad, 1};
        try {
            model.encode(ids);
            ADD_FAILURE() << "no error for the id " << bad;
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::bad_request);
            EXPECT_THAT(error.what(), HasSubstr(std::to_string(bad)));
        }
    }
}

// A source of empty tensors with given names and shapes.
class NamesOnly : public TensorSource {
public:
    explicit NamesOnly(std::vector<TensorInfo> tensors) : tensors_(std::move(tensors)) {}
    std::span<const TensorInfo> tensors() const override { return tensors_; }
    at::Tensor read(std::size_t index) const override { return at::empty(tensors_[index].shape); }
    std::string description() const override { return "names"; }

private:
    std::vector<TensorInfo> tensors_;
};

TEST(Umt5Encoder, TakesTheTokenTableUnderEitherNameOrBoth) {
    const auto config = Umt5Config::from_json(read_json(kGolden / "umt5_gated/config.json"));
    const auto source = open_safetensors(kGolden / "umt5_gated/model.safetensors");
    std::vector<TensorInfo> rest;
    for (const TensorInfo& info : source->tensors()) {
        if (info.name != "shared.weight") rest.push_back(info);
    }
    const auto check = [&](std::initializer_list<const char*> names) {
        std::vector<TensorInfo> all = rest;
        for (const char* name : names) all.push_back({name, {100, 32}});
        Weights weights("text_encoder", std::make_shared<NamesOnly>(std::move(all)));
        const Umt5Encoder encoder(config, weights);
        weights.check();
        return encoder.outer_params().size() +
               static_cast<std::size_t>(encoder.num_blocks()) * encoder.params(0).size();
    };
    EXPECT_EQ(check({"shared.weight"}), 22u);
    EXPECT_EQ(check({"encoder.embed_tokens.weight"}), 22u);
    EXPECT_EQ(check({"shared.weight", "encoder.embed_tokens.weight"}), 22u);
    EXPECT_THROW(check({}), Error);
}

TEST(Umt5Encoder, CountsTheOperationsThatItDoes) {
    Loaded model = load("umt5_gated", at::kFloat);
    const std::vector<std::int32_t> ids(9, 3);
    double counted = 0;
    {
        ops::Collection collection;
        model.encode(ids);
        for (const auto& [name, stats] : collection.operators()) counted += stats.flop;
    }
    EXPECT_DOUBLE_EQ(model.encoder.flop(9), counted);
}

TEST(Umt5Config, ReadsTheReleasedEncodersConfig) {
    const Umt5Config xxl = Umt5Config::from_json(json::parse(R"({
        "architectures": ["UMT5EncoderModel"], "model_type": "umt5", "vocab_size": 256384,
        "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
        "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-06, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false
    })"));
    const Umt5Config expected;
    EXPECT_EQ(xxl.vocab_size, expected.vocab_size);
    EXPECT_EQ(xxl.d_ff, expected.d_ff);
    EXPECT_EQ(xxl.num_heads, expected.num_heads);
    EXPECT_TRUE(xxl.gated);
    EXPECT_EQ(xxl.activation, Umt5Activation::gelu_tanh);
}

TEST(Umt5Config, RefusesWhatItDoesNotKnow) {
    const json good = read_json(kGolden / "umt5_relu/config.json");
    const auto kind_with = [&](const char* key, const json& value) {
        json config = good;
        if (value.is_null()) {
            config.erase(key);
        } else {
            config[key] = value;
        }
        try {
            Umt5Config::from_json(config);
        } catch (const Error& error) {
            EXPECT_THAT(error.what(), HasSubstr(key));
            return error.kind();
        }
        return ErrorKind::internal;
    };
    EXPECT_EQ(kind_with("model_type", "t5"), ErrorKind::unsupported);
    EXPECT_EQ(kind_with("feed_forward_proj", "gated-silu"), ErrorKind::unsupported);
    EXPECT_EQ(kind_with("d_model", json()), ErrorKind::io);
    EXPECT_EQ(kind_with("d_model", 0), ErrorKind::io);
    EXPECT_EQ(kind_with("num_heads", "four"), ErrorKind::io);
    EXPECT_EQ(kind_with("vocab_size", std::int64_t{1} << 40), ErrorKind::io);
    EXPECT_EQ(kind_with("relative_attention_num_buckets", 2), ErrorKind::io);
}

}  // namespace
}  // namespace zoetrope
