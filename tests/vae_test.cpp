// The Wan VAE against Diffusers' results for tiny models (tools/oracle/vae_golden.py), and the
// promises of its streams: chunks of any origin, memory that does not grow, costs counted ahead.
#include "vae/vae.h"

#include "base/error.h"
#include "base/json.h"
#include "ops/conv_cpu.h"
#include "ops/device.h"
#include "ops/stats.h"
#include "weights/source.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <cmath>
#include <cstdlib>

namespace zoetrope {
namespace {

using nlohmann::json;

// Uniform in [-1, 1): the finaliser of MurmurHash3 over the index and the FNV-1a hash of the name.
at::Tensor values(const std::string& name, const std::vector<std::int64_t>& shape) {
    std::uint32_t seed = 2166136261U;
    for (const unsigned char byte : name) seed = (seed ^ byte) * 16777619U;
    at::Tensor tensor = at::empty(shape, at::kDouble);
    auto* data = tensor.mutable_data_ptr<double>();
    for (std::int64_t i = 0; i < tensor.numel(); ++i) {
        std::uint32_t x = (static_cast<std::uint32_t>(i) * 2654435761U) ^ seed;
        x = (x ^ (x >> 16)) * 0x85ebca6bU;
        x = (x ^ (x >> 13)) * 0xc2b2ae35U;
        x ^= x >> 16;
        data[i] = static_cast<double>(x >> 8) / (1 << 23) - 1;
    }
    return tensor;
}

// Weights by that formula, for the names and shapes that a golden lists.
class FormulaSource : public TensorSource {
public:
    explicit FormulaSource(const json& parameters) {
        for (const auto& [name, shape] : parameters.items()) {
            tensors_.push_back({name, shape.get<std::vector<std::int64_t>>(), at::kFloat});
        }
    }
    std::span<const TensorInfo> tensors() const override { return tensors_; }
    std::string description() const override { return "the formula"; }
    at::Tensor read(std::size_t index) const override {
        const TensorInfo& info = tensors_[index];
        at::Tensor u = values(info.name, info.shape);
        if (info.name.ends_with("gamma")) {
            u.mul_(0.2).add_(1);
        } else if (info.name.ends_with("bias")) {
            u.mul_(0.1);
        } else {
            double fan_in = 1;
            for (std::size_t i = 1; i < info.shape.size(); ++i) {
                fan_in *= static_cast<double>(info.shape[i]);
            }
            u.mul_(std::sqrt(3 / fan_in));
        }
        return u.to(at::kFloat);
    }

private:
    std::vector<TensorInfo> tensors_;
};

double distance(const at::Tensor& a, const at::Tensor& b) {
    EXPECT_EQ(a.sizes(), b.sizes());
    const at::Tensor wanted = b.to(at::kDouble);
    return a.to(at::kDouble).sub(wanted).norm().div(wanted.norm()).item<double>();
}

// One golden: Diffusers' results, and our VAE with the same weights.
struct Golden {
    json metadata;
    at::Tensor decoded, encoded;  // fp32
    std::unique_ptr<Vae> vae;
    std::unique_ptr<Residency> residency;

    Golden(const std::string& name, at::ScalarType dtype, const VaeOptions& options = {}) {
        const auto file = open_safetensors(std::string(ZT_SOURCE_DIR) + "/tests/golden/vae/" +
                                           name + ".safetensors");
        for (const auto& [key, value] : file->metadata()) metadata[key] = json::parse(value);
        for (std::size_t i = 0; i < file->tensors().size(); ++i) {
            (file->tensors()[i].name == "decoded" ? decoded : encoded) = file->read(i);
        }
        Weights weights("vae", std::make_shared<FormulaSource>(metadata["parameters"]));
        vae = std::make_unique<Vae>(VaeConfig::from_json(metadata["config"]), weights, options);
        weights.check();
        residency = std::make_unique<Residency>(std::move(weights),
                                                ResidencyOptions{.compute_dtype = dtype});
    }

    at::Tensor latents() const {
        return values("latents", encoded.sizes().vec()).to(at::kFloat).mul_(2);
    }
    at::Tensor frames() const { return values("frames", decoded.sizes().vec()).to(at::kFloat); }
};

at::Tensor decode(const Vae& vae, Residency& residency, const at::Tensor& latents) {
    const Lease lease = residency.lease(vae.decoder_params());
    auto stream = vae.decode_stream(lease);
    std::vector<at::Tensor> frames;
    for (std::int64_t i = 0; i < latents.size(2); ++i) {
        frames.push_back(stream.push(latents.narrow(2, i, 1)));
    }
    return at::cat(frames, 2);
}

at::Tensor encode(const Vae& vae, Residency& residency, const at::Tensor& frames) {
    const Lease lease = residency.lease(vae.encoder_params());
    auto stream = vae.encode_stream(lease);
    std::vector<at::Tensor> latents;
    const std::int64_t step = vae.config().scale_factor_temporal;
    for (std::int64_t first = 0; first < frames.size(2); first += first == 0 ? 1 : step) {
        latents.push_back(stream.push(frames.narrow(2, first, first == 0 ? 1 : step)));
    }
    return at::cat(latents, 2);
}

// One thread: the tensors are too small for more, which wait for each other on a busy machine.
class OneThread : public ::testing::Environment {
    void SetUp() override { ops::set_threads(1); }
};
const ::testing::Environment* const kOneThread = ::testing::AddGlobalTestEnvironment(new OneThread);

class VaeGolden : public ::testing::TestWithParam<const char*> {
    at::NoGradGuard no_grad_;
};

// Measured: 1.3e-6 to 7.0e-6 (ATen's convolutions: 0.7e-6 to 3.3e-6), the order of summation alone
// (the largest where the norm of three channels nearly vanishes).
constexpr double kFloatNoise = 1e-5;

TEST_P(VaeGolden, DecodesAsDiffusers) {
    Golden golden(GetParam(), at::kFloat);
    const double measured =
        distance(decode(*golden.vae, *golden.residency, golden.latents()), golden.decoded);
    EXPECT_LT(measured, kFloatNoise);
    RecordProperty("distance", std::to_string(measured * 1e9) + "e-9");
}

TEST_P(VaeGolden, EncodesAsDiffusers) {
    Golden golden(GetParam(), at::kFloat);
    const double measured =
        distance(encode(*golden.vae, *golden.residency, golden.frames()), golden.encoded);
    EXPECT_LT(measured, kFloatNoise);
    RecordProperty("distance", std::to_string(measured * 1e9) + "e-9");
}

TEST_P(VaeGolden, InBf16IsNoFurtherOffThanDiffusers) {
    Golden golden(GetParam(), at::kBFloat16);
    const at::Tensor decoded =
        decode(*golden.vae, *golden.residency, golden.latents().to(at::kBFloat16));
    const at::Tensor encoded =
        encode(*golden.vae, *golden.residency, golden.frames().to(at::kBFloat16));
    EXPECT_EQ(decoded.scalar_type(), at::kBFloat16);
    EXPECT_EQ(encoded.scalar_type(), at::kBFloat16);
    const double decode_distance = distance(decoded, golden.decoded);
    const double encode_distance = distance(encoded, golden.encoded);
    EXPECT_LE(decode_distance, 1.2 * golden.metadata["bf16_decode_distance"].get<double>());
    EXPECT_LE(encode_distance, 1.2 * golden.metadata["bf16_encode_distance"].get<double>());
    RecordProperty("decode", std::to_string(decode_distance));
    RecordProperty("encode", std::to_string(encode_distance));
}

// In float32 but for the products of the convolutions.
TEST_P(VaeGolden, WithBf16ProductsIsNearerThanDiffusersInBf16) {
    Golden golden(GetParam(), at::kFloat, {.bf16_products = true});
    const double decode_distance =
        distance(decode(*golden.vae, *golden.residency, golden.latents()), golden.decoded);
    const double encode_distance =
        distance(encode(*golden.vae, *golden.residency, golden.frames()), golden.encoded);
    EXPECT_LE(decode_distance, golden.metadata["bf16_decode_distance"].get<double>());
    EXPECT_LE(encode_distance, golden.metadata["bf16_encode_distance"].get<double>());
    RecordProperty("decode", std::to_string(decode_distance));
    RecordProperty("encode", std::to_string(encode_distance));
}

// What is counted ahead is what the operators count while they run.
TEST_P(VaeGolden, CountsItsOperationsExactly) {
    Golden golden(GetParam(), at::kFloat);
    const at::Tensor latents = golden.latents(), frames = golden.frames();
    const auto counted = [](const auto& work) {
        const ops::Collection collection;
        work();
        double flop = 0;
        for (const auto& [name, stats] : collection.operators()) flop += stats.flop;
        return flop;
    };
    EXPECT_EQ(counted([&] { decode(*golden.vae, *golden.residency, latents); }),
              golden.vae->decode_flop(latents.size(2), latents.size(3), latents.size(4)));
    EXPECT_EQ(counted([&] { encode(*golden.vae, *golden.residency, frames); }),
              golden.vae->encode_flop(frames.size(2), frames.size(3), frames.size(4)));
}

// Clips of 1, 5, 9 and 17 frames begin alike, whatever comes after.
TEST_P(VaeGolden, ShorterClipsAreTheBeginningOfLongerOnes) {
    Golden golden(GetParam(), at::kFloat);
    const at::Tensor latents = golden.latents(), frames = golden.frames();
    for (std::int64_t n = 1; n <= latents.size(2); ++n) {
        const std::int64_t count = 1 + (n - 1) * golden.vae->config().scale_factor_temporal;
        EXPECT_LT(distance(decode(*golden.vae, *golden.residency, latents.narrow(2, 0, n)),
                           golden.decoded.narrow(2, 0, count)),
                  kFloatNoise);
        EXPECT_LT(distance(encode(*golden.vae, *golden.residency, frames.narrow(2, 0, count)),
                           golden.encoded.narrow(2, 0, n)),
                  kFloatNoise);
    }
}

INSTANTIATE_TEST_SUITE_P(Tiny, VaeGolden,
                         ::testing::Values("plain", "wide", "still", "odd", "residual",
                                           "shortcuts"),
                         [](const auto& test) { return std::string(test.param); });

// A small VAE with random weights.
struct Random {
    Vae vae;
    Residency residency;

    explicit Random(const json& config, const VaeOptions& options = {})
        : Random(config, options, Weights::random("vae", {.dtype = at::kFloat})) {}

private:
    Random(const json& config, const VaeOptions& options, Weights weights)
        : vae(VaeConfig::from_json(config), weights, options),
          residency(std::move(weights), {.compute_dtype = at::kFloat}) {}
};

// Measured, with weights that blow differences up: 57.4 dB with products of fp16, 49.8 dB with
// those of bf16. (Rounding frames to 8 bits leaves 59 dB.)
constexpr double kLeastPsnr = 48;

json small_config() { return {{"base_dim", 8}, {"dim_mult", {1, 2, 4, 4}}, {"num_res_blocks", 1}}; }

json small_residual_config() {
    json config = small_config();
    config.update(
        {{"is_residual", true}, {"patch_size", 2}, {"in_channels", 12}, {"out_channels", 12}});
    return config;
}

class SmallVae : public ::testing::TestWithParam<bool> {
protected:
    json config() const { return GetParam() ? small_residual_config() : small_config(); }
    std::int64_t factor() const { return GetParam() ? 16 : 8; }  // pixels per latent pixel

private:
    at::NoGradGuard no_grad_;
};
INSTANTIATE_TEST_SUITE_P(Of, SmallVae, ::testing::Bool(), [](const auto& test) {
    return test.param ? std::string("Wan22") : std::string("Wan21");
});

TEST_P(SmallVae, StreamsDoNotDisturbEachOther) {
    Random model(config());
    const at::Tensor a = values("a", {1, 16, 3, 4, 6}).to(at::kFloat);
    const at::Tensor b = values("b", {1, 16, 3, 4, 6}).to(at::kFloat);
    const at::Tensor alone = decode(model.vae, model.residency, a);
    const Lease lease = model.residency.lease(model.vae.decoder_params());
    auto first = model.vae.decode_stream(lease);
    auto second = model.vae.decode_stream(lease);
    std::vector<at::Tensor> frames;
    for (int i = 0; i < 3; ++i) {
        second.push(b.narrow(2, i, 1));
        at::Tensor latent = a.narrow(2, i, 1).clone();
        frames.push_back(first.push(latent));
        latent.zero_();  // the stream has kept nothing of the caller's tensor
    }
    EXPECT_TRUE(at::equal(at::cat(frames, 2), alone));
}

TEST_P(SmallVae, EncodeStreamKeepsNothingOfTheCallersFrames) {
    Random model(config());
    const at::Tensor clip = values("clip", {1, 3, 9, 2 * factor(), 3 * factor()}).to(at::kFloat);
    const at::Tensor alone = encode(model.vae, model.residency, clip);
    const Lease lease = model.residency.lease(model.vae.encoder_params());
    auto stream = model.vae.encode_stream(lease);
    std::vector<at::Tensor> latents;
    for (int i = 0; i < 3; ++i) {
        at::Tensor frames = clip.narrow(2, i == 0 ? 0 : 4 * i - 3, i == 0 ? 1 : 4)
                                .clone(at::MemoryFormat::ChannelsLast3d);
        latents.push_back(stream.push(frames));
        frames.zero_();
    }
    EXPECT_TRUE(at::equal(at::cat(latents, 2), alone));
}

// Signal to noise of the frames, which reach from -1 to 1, in dB.
double psnr(const at::Tensor& frames, const at::Tensor& wanted) {
    return 10 * std::log10(4 / frames.sub(wanted).to(at::kDouble).square().mean().item<double>());
}

// A picture and zeros, as image-to-video conditions on it, then another picture. The negative zeros
// in one of them are other bits and mean the same, so that nothing is repeated.
TEST(Vae, EncodesFramesThatRepeatOnce) {
    const at::NoGradGuard no_grad;
    for (const bool bf16_products : {false, true}) {
        Random model(small_config(), {.bf16_products = bf16_products});
        if (ops::conv_cpu_isa(bf16_products) == kernels::Isa::ref) GTEST_SKIP() << "not by ATen";
        const at::Tensor clip = at::zeros({1, 3, 81, 16, 24});
        clip.select(2, 0).copy_(values("first", {1, 3, 16, 24}));
        clip.select(2, 80).copy_(values("last", {1, 3, 16, 24}));
        const at::Tensor signs = clip.clone();
        for (std::int64_t t = 1; t < 80; t += 2) signs.select(2, t).neg_();
        const auto flop_of = [&](const at::Tensor& frames, at::Tensor& latents) {
            const ops::Collection collection;
            latents = encode(model.vae, model.residency, frames);
            double flop = 0;
            for (const auto& [name, stats] : collection.operators()) flop += stats.flop;
            return flop;
        };
        at::Tensor latents, wanted;
        const double all = flop_of(signs, wanted);
        EXPECT_EQ(all, model.vae.encode_flop(81, 16, 24));
        const double some = flop_of(clip, latents);
        EXPECT_TRUE(at::equal(latents, wanted));
        EXPECT_LT(some, 0.5 * all);
        RecordProperty("part", std::to_string(some / all));
    }
}

TEST_P(SmallVae, Bf16ProductsAreInvisible) {
    Random exact(config()), quick(config(), {.bf16_products = true});
    const at::Tensor latents = values("a", {1, 16, 3, 6, 10}).to(at::kFloat);
    const at::Tensor wanted = decode(exact.vae, exact.residency, latents);
    const at::Tensor frames = decode(quick.vae, quick.residency, latents);
    EXPECT_GT(psnr(frames, wanted), kLeastPsnr);
    RecordProperty("psnr", std::to_string(psnr(frames, wanted)));
    if (ops::conv_cpu_isa(true) == kernels::Isa::ref) return;  // ATen sums by threads
    ops::set_threads(2);
    EXPECT_TRUE(at::equal(decode(quick.vae, quick.residency, latents), frames));
    ops::set_threads(1);
}

TEST_P(SmallVae, DecodesABatchAsItsParts) {
    Random model(config());
    const at::Tensor latents = values("batch", {2, 16, 3, 3, 5}).to(at::kFloat);
    const at::Tensor both = decode(model.vae, model.residency, latents);
    for (int i = 0; i < 2; ++i) {
        const at::Tensor one = decode(model.vae, model.residency, latents.narrow(0, i, 1));
        EXPECT_LT(distance(both.narrow(0, i, 1), one), kFloatNoise);
    }
}

TEST_P(SmallVae, ResultDependsOnTheFramesBefore) {
    Random model(config());
    at::Tensor latents = values("a", {1, 16, 4, 3, 5}).to(at::kFloat);
    const at::Tensor before = decode(model.vae, model.residency, latents);
    latents.select(2, 2).neg_();
    const at::Tensor after = decode(model.vae, model.residency, latents);
    EXPECT_TRUE(at::equal(before.narrow(2, 0, 5), after.narrow(2, 0, 5)));  // causal
    EXPECT_GT(distance(after.narrow(2, 9, 4), before.narrow(2, 9, 4)), 0.01);
}

TEST(Vae, NormalizesWithTheConfigsStatistics) {
    Golden golden("wide", at::kFloat);  // mean i / 4 - 1, std 1 + i / 8
    const at::Tensor z = values("z", {2, 4, 3, 2, 2}).to(at::kFloat);
    const at::Tensor denormalized = golden.vae->denormalize(z);
    EXPECT_FLOAT_EQ(denormalized[1][3][2][0][1].item<float>(),
                    z[1][3][2][0][1].item<float>() * 1.375F - 0.25F);
    EXPECT_LT(distance(golden.vae->normalize(denormalized), z), 1e-6);
    EXPECT_EQ(golden.vae->normalize(z.to(at::kBFloat16)).scalar_type(), at::kBFloat16);
}

TEST(Vae, RefusesClipsThatDoNotFit) {
    Random model(small_config());
    const Lease lease = model.residency.lease_all();
    EXPECT_THROW(model.vae.decode_stream(lease).push(at::zeros({1, 16, 2, 4, 4})), Error);
    EXPECT_THROW(model.vae.decode_stream(lease).push(at::zeros({1, 4, 1, 4, 4})), Error);
    EXPECT_THROW(model.vae.encode_stream(lease).push(at::zeros({1, 3, 4, 32, 32})), Error);
    EXPECT_THROW(model.vae.encode_stream(lease).push(at::zeros({1, 3, 1, 4, 4})), Error);
}

TEST(Vae, OfPatchesRefusesClipsThatDoNotFit) {
    Random model(small_residual_config());
    const Lease lease = model.residency.lease_all();
    EXPECT_NO_THROW(model.vae.encode_stream(lease).push(at::zeros({1, 3, 1, 32, 16})));
    EXPECT_THROW(model.vae.encode_stream(lease).push(at::zeros({1, 12, 1, 32, 32})), Error);
    EXPECT_THROW(model.vae.encode_stream(lease).push(at::zeros({1, 3, 1, 32, 40})), Error);
    EXPECT_THROW(model.vae.encode_stream(lease).push(at::zeros({1, 3, 1, 8, 16})), Error);
}

// The address sanitizer keeps what is freed, so that memory says nothing of the program.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kFreesMemory = false;
#else
constexpr bool kFreesMemory = true;
#endif

// The resident set's growth at its highest while `work` runs; 0 where the kernel does not tell.
template <typename Work>
double peak_of(const Work& work) {
    ::malloc_trim(0);  // what was freed is not at hand
    if (!kFreesMemory || !ops::reset_peak_memory()) return 0;
    const std::int64_t before = ops::process_memory().resident;
    work();
    return static_cast<double>(ops::process_memory().peak_resident - before);
}

// Sizes at which activations are most of it, and few enough channels for a moment's work.
TEST_P(SmallVae, PeaksOfMemoryAreAsCounted) {
    if (ops::conv_cpu_isa(false) == kernels::Isa::ref)
        GTEST_SKIP()
            << "LibTorch unfolds the pixels of so few channels, and not those of real models";
    ops::prepare_process();
    const ResidencyOptions compute{.compute_dtype = at::kFloat};
    const std::int64_t height = 32, width = 48;
    for (const bool decodes : {true, false}) {
        Random model(config());
        const at::Tensor latents = at::zeros({1, 16, 4, height, width});
        const at::Tensor frames =
            values("frames", {1, 3, 13, height * factor(), width * factor()}).to(at::kFloat);
        // Once on a small clip: what libraries keep for themselves is not the VAE's.
        decode(model.vae, model.residency, latents.slice(3, 0, 2).slice(4, 0, 2));
        encode(model.vae, model.residency,
               frames.slice(3, 0, 2 * factor()).slice(4, 0, 2 * factor()));
        const Lease lease = model.residency.lease_all();
        auto decoder = model.vae.decode_stream(lease);
        auto encoder = model.vae.encode_stream(lease);
        const double measured = peak_of([&] {
            for (std::int64_t i = 0; i < 4; ++i) {
                if (decodes) {
                    decoder.push(latents.narrow(2, i, 1));
                } else {
                    encoder.push(frames.narrow(2, i == 0 ? 0 : 4 * i - 3, i == 0 ? 1 : 4));
                }
            }
        });
        if (measured == 0) GTEST_SKIP() << "no peaks of memory here";
        const auto counted = static_cast<double>(
            decodes ? model.vae.decode_peak_bytes(height, width, compute)
                    : model.vae.encode_peak_bytes(height * factor(), width * factor(), compute));
        // Room for frames that repeat is counted in Wan 2.1's encoder, and not taken here.
        EXPECT_GT(measured, (decodes || GetParam() ? 0.9 : 0.7) * counted)
            << (decodes ? "decoding" : "encoding");
        EXPECT_LT(measured, 1.05 * counted) << (decodes ? "decoding" : "encoding");
        RecordProperty(decodes ? "decode" : "encode", std::to_string(measured / counted));
        RecordProperty(decodes ? "decode_mb" : "encode_mb", std::to_string(counted / 1e6));
    }
}

// Grows with neither the number of latent frames nor what went before: after the features are
// carried in full, resident memory stays where it is.
TEST(Vae, MemoryDoesNotGrowWithTheClip) {
    if (!kFreesMemory) GTEST_SKIP() << "the sanitizer keeps what is freed";
    const at::NoGradGuard no_grad;
    Random model({{"base_dim", 4}, {"dim_mult", {1, 2, 2, 2}}, {"num_res_blocks", 1}});
    const Lease lease = model.residency.lease(model.vae.decoder_params());
    auto stream = model.vae.decode_stream(lease);
    const at::Tensor latent = values("latent", {1, 16, 1, 24, 24}).to(at::kFloat);
    std::int64_t after_5 = 0;
    for (int i = 0; i < 20; ++i) {
        stream.push(latent);
        if (i == 4) after_5 = ops::process_memory().resident_anonymous;
    }
    const std::int64_t grown = ops::process_memory().resident_anonymous - after_5;
    // One more clip of 4 x 192 x 192 x 4 channels kept per latent frame would be 34 MB in all.
    EXPECT_LT(grown, 4 << 20) << "over 15 latent frames";
}

TEST(VaeConfig, HasTheDefaultsOfWan21) {
    const VaeConfig config = VaeConfig::from_json(json::object());
    EXPECT_EQ(config.base_dim, 96);
    EXPECT_EQ(config.decoder_base_dim, 96);
    EXPECT_THAT(config.dim_mult, ::testing::ElementsAre(1, 2, 4, 4));
    EXPECT_EQ(config.latents_mean.size(), 16U);
    EXPECT_FLOAT_EQ(config.latents_std[3], 2.6558F);
    EXPECT_EQ(config.scale_factor_temporal, 4);
    EXPECT_EQ(config.scale_factor_spatial, 8);
    EXPECT_EQ(config.latent_frames(81), 21);
}

TEST(VaeConfig, TakesItsScaleFactorsFromTheLayers) {
    const VaeConfig config = VaeConfig::from_json(
        {{"dim_mult", {1, 2, 2}}, {"temperal_downsample", {true, false}}, {"base_dim", 4}});
    EXPECT_EQ(config.scale_factor_temporal, 2);
    EXPECT_EQ(config.scale_factor_spatial, 4);
    EXPECT_EQ(config.decoder_base_dim, 4);
}

TEST(VaeConfig, TakesThatOfWan22) {
    const VaeConfig config = VaeConfig::from_json({{"_class_name", "AutoencoderKLWan"},
                                                   {"attn_scales", json::array()},
                                                   {"base_dim", 160},
                                                   {"clip_output", false},
                                                   {"decoder_base_dim", 256},
                                                   {"dim_mult", {1, 2, 4, 4}},
                                                   {"dropout", 0.0},
                                                   {"in_channels", 12},
                                                   {"is_residual", true},
                                                   {"latents_mean", std::vector<float>(48, 0.5F)},
                                                   {"latents_std", std::vector<float>(48, 2)},
                                                   {"num_res_blocks", 2},
                                                   {"out_channels", 12},
                                                   {"patch_size", 2},
                                                   {"scale_factor_spatial", 16},
                                                   {"scale_factor_temporal", 4},
                                                   {"temperal_downsample", {false, true, true}},
                                                   {"z_dim", 48}});
    EXPECT_TRUE(config.is_residual);
    EXPECT_EQ(config.base_dim, 160);
    EXPECT_EQ(config.decoder_base_dim, 256);
    EXPECT_EQ(config.patch_size, 2);
    EXPECT_EQ(config.frame_channels(), 3);
    EXPECT_EQ(config.latents_std.size(), 48U);
    EXPECT_EQ(config.scale_factor_temporal, 4);
    EXPECT_EQ(config.scale_factor_spatial, 16);
}

void expect_refused(const json& config, ErrorKind kind, const std::string& part) {
    try {
        VaeConfig::from_json(config);
        ADD_FAILURE() << "accepted " << config;
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), kind) << error.what();
        EXPECT_THAT(error.what(), ::testing::HasSubstr(part));
    }
}

TEST(VaeConfig, RefusesWhatIsNotBuilt) {
    expect_refused({{"attn_scales", {0.5}}}, ErrorKind::unsupported, "attn_scales");
    expect_refused({{"_class_name", "AutoencoderKL"}}, ErrorKind::unsupported, "AutoencoderKL");
}

TEST(VaeConfig, RefusesWhatIsNoVae) {
    expect_refused(json::array(), ErrorKind::io, "object");
    expect_refused({{"base_dim", "many"}}, ErrorKind::io, "base_dim");
    expect_refused({{"base_dim", -1}}, ErrorKind::io, "base_dim");
    expect_refused({{"base_dim", 1e300}}, ErrorKind::io, "base_dim");
    expect_refused({{"base_dim", std::uint64_t{1} << 63}}, ErrorKind::io, "base_dim");
    expect_refused({{"dim_mult", json::array()}}, ErrorKind::io, "dim_mult");
    expect_refused({{"dim_mult", {1, 2, "4"}}}, ErrorKind::io, "dim_mult");
    expect_refused({{"dim_mult", std::vector<int>(40, 1)}}, ErrorKind::io, "dim_mult");
    expect_refused({{"temperal_downsample", {1, 0, 1}}}, ErrorKind::io, "temperal_downsample");
    expect_refused({{"temperal_downsample", {true}}}, ErrorKind::io, "temperal_downsample");
    expect_refused({{"z_dim", 4}}, ErrorKind::io, "latents_mean");
    json zero = {{"latents_std", std::vector<float>(16, 0.0F)}};
    expect_refused(zero, ErrorKind::io, "latents_std");
    expect_refused({{"latents_mean", {nullptr}}}, ErrorKind::io, "latents_mean");
    expect_refused({{"is_residual", 1}}, ErrorKind::io, "is_residual");
    expect_refused({{"patch_size", 2}}, ErrorKind::io, "patch_size");
    expect_refused({{"patch_size", 0}}, ErrorKind::io, "patch_size");
    expect_refused({{"patch_size", 2}, {"in_channels", 12}}, ErrorKind::io, "out_channels");
    // Neither whole pixels per channel nor whole channels.
    expect_refused({{"is_residual", true}, {"dim_mult", {1, 3, 4, 4}}}, ErrorKind::io, "dim_mult");
    expect_refused({{"is_residual", true}, {"dim_mult", {1, 2, 3, 2}}}, ErrorKind::io, "dim_mult");
    expect_refused({{"is_residual", true}, {"dim_mult", {1, 2, 4, 8}}}, ErrorKind::io, "dim_mult");
}

}  // namespace
}  // namespace zoetrope
