// The VAE's operators against the plain definition: all frames in one piece, zeros written out,
// double precision.
#include "ops/conv.h"

#include "base/error.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

namespace zoetrope::ops {
namespace {

at::Tensor random(std::vector<std::int64_t> shape, std::uint64_t seed) {
    return at::randn(shape, at::detail::createCPUGenerator(seed), at::kFloat);
}

double distance(const at::Tensor& a, const at::Tensor& b) {
    EXPECT_EQ(a.sizes(), b.sizes());
    const at::Tensor wanted = b.to(at::kDouble);
    return a.to(at::kDouble).sub(wanted).norm().div(wanted.norm()).item<double>();
}

at::Tensor by_definition(const CausalConv3dArgs& args) {
    at::Tensor x = args.x.to(at::kDouble);
    std::int64_t zeros = args.options.time_padding;
    if (args.history.defined()) {
        x = at::cat({args.history.to(at::kDouble), x}, 2);
        zeros = std::max<std::int64_t>(0, zeros - args.history.size(2));
    }
    if (args.options.upsample) x = x.repeat_interleave(2, 3).repeat_interleave(2, 4);
    const auto& [left, right, top, bottom] = args.options.padding;
    x = at::constant_pad_nd(x, {left, right, top, bottom, zeros, 0});
    const auto bias = args.bias.defined() ? args.bias.to(at::kDouble) : at::Tensor();
    return at::conv3d(x, args.weight.to(at::kDouble), bias, args.options.stride);
}

struct Case {
    std::string name;
    std::array<std::int64_t, 3> kernel = {3, 3, 3};
    std::int64_t frames = 1;
    std::int64_t history = 0;
    ConvOptions options;
};

constexpr ConvOptions kSame = {.time_padding = 2, .padding = {1, 1, 1, 1}};
const std::vector<Case> kCases = {
    {.name = "first_frame", .options = kSame},
    {.name = "one_before", .history = 1, .options = kSame},
    {.name = "two_before", .history = 2, .options = kSame},
    {.name = "four_frames", .frames = 4, .options = kSame},
    {.name = "four_frames_one_before", .frames = 4, .history = 1, .options = kSame},
    {.name = "four_frames_two_before", .frames = 4, .history = 2, .options = kSame},
    {.name = "two_frames_three_before", .frames = 2, .history = 3, .options = kSame},
    {.name = "in_time", .kernel = {3, 1, 1}, .frames = 2, .options = {.time_padding = 2}},
    {.name = "half_the_frames",
     .kernel = {3, 1, 1},
     .frames = 4,
     .history = 1,
     .options = {.stride = {2, 1, 1}}},
    {.name = "pointwise", .kernel = {1, 1, 1}, .frames = 3},
    {.name = "half_the_size",
     .kernel = {1, 3, 3},
     .frames = 2,
     .options = {.stride = {1, 2, 2}, .padding = {0, 1, 0, 1}}},
    {.name = "twice_the_size",
     .kernel = {1, 3, 3},
     .frames = 2,
     .options = {.padding = {1, 1, 1, 1}, .upsample = true}},
    {.name = "all_at_once",
     .frames = 3,
     .history = 1,
     .options =
         {.stride = {1, 2, 1}, .time_padding = 2, .padding = {2, 0, 1, 1}, .upsample = true}},
};

class CausalConv3d : public ::testing::TestWithParam<Case> {
    at::NoGradGuard no_grad_;
};

CausalConv3dArgs args_of(const Case& test, std::int64_t batch) {
    const auto [kt, kh, kw] = test.kernel;
    CausalConv3dArgs args{.x = random({batch, 5, test.frames, 7, 6}, 1),
                          .weight = random({4, 5, kt, kh, kw}, 2),
                          .bias = random({4}, 3),
                          .options = test.options};
    if (test.history > 0) args.history = random({batch, 5, test.history, 7, 6}, 4);
    return args;
}

TEST_P(CausalConv3d, IsTheConvolutionOfTheWholeClip) {
    for (const std::int64_t batch : {1, 2}) {
        CausalConv3dArgs args = args_of(GetParam(), batch);
        const at::Tensor wanted = by_definition(args);
        EXPECT_LT(distance(causal_conv3d(args), wanted), 1e-6);
        args.x = args.x.contiguous(at::MemoryFormat::ChannelsLast3d);
        EXPECT_LT(distance(causal_conv3d(args), wanted), 1e-6);
        args.bias.reset();
        EXPECT_LT(distance(causal_conv3d(args), by_definition(args)), 1e-6);
    }
}

TEST_P(CausalConv3d, InBf16RoundsOnce) {
    CausalConv3dArgs args = args_of(GetParam(), 1);
    for (at::Tensor* tensor : {&args.x, &args.history, &args.weight, &args.bias}) {
        if (tensor->defined()) *tensor = tensor->to(at::kBFloat16);
    }
    // Rounding to 8 bits alone: at most 2^-9 of each value, half of that on the average.
    EXPECT_LT(distance(causal_conv3d(args), by_definition(args)), 3e-3);
}

TEST_P(CausalConv3d, CostsWhatItComputes) {
    const Case& test = GetParam();
    const CausalConv3dArgs args = args_of(test, 1);
    const auto [kt, kh, kw] = test.kernel;
    const ConvCost cost =
        causal_conv3d_cost({5, test.frames, 7, 6}, test.history, {4, 5, kt, kh, kw}, test.options);
    const at::Tensor wanted = by_definition(args);
    EXPECT_EQ(cost.result.elements(), wanted.numel());
    EXPECT_EQ(cost.result.frames, wanted.size(2));
    // Frames of zeros meet taps that are not computed: one frame's worth for each such pair.
    std::int64_t taps = wanted.size(2) * kt;
    const std::int64_t zeros = std::max<std::int64_t>(0, test.options.time_padding - test.history);
    for (std::int64_t t = 0; t < wanted.size(2); ++t) {
        taps -= std::max<std::int64_t>(0, zeros - t * test.options.stride[0]);
    }
    EXPECT_EQ(cost.flop, 2.0 * 4 * 5 * kh * kw * taps * wanted.size(3) * wanted.size(4));
}

INSTANTIATE_TEST_SUITE_P(Shapes, CausalConv3d, ::testing::ValuesIn(kCases),
                         [](const auto& test) { return test.param.name; });

TEST(CausalConv3dErrors, RefusesShapesThatDoNotFit) {
    const at::Tensor weight = at::zeros({4, 5, 3, 3, 3});
    EXPECT_THROW(causal_conv3d({.x = at::zeros({1, 4, 3, 5, 5}), .weight = weight}), Error);
    EXPECT_THROW(causal_conv3d({.x = at::zeros({1, 5, 2, 5, 5}), .weight = weight}), Error);
    EXPECT_THROW(causal_conv3d({.x = at::zeros({1, 5, 3, 2, 5}), .weight = weight}), Error);
    EXPECT_THROW(causal_conv3d({.x = at::zeros({5, 3, 5, 5}), .weight = weight}), Error);
}

at::Tensor norm_by_definition(const at::Tensor& x, const at::Tensor& gamma, bool silu) {
    const at::Tensor values = x.to(at::kDouble);
    const auto channels = static_cast<double>(x.size(1));
    const at::Tensor norm = values.square().sum(1, true).sqrt().clamp_min(1e-12);
    at::Tensor out = values.div(norm).mul_(std::sqrt(channels)).mul_(gamma.view({1, -1, 1, 1, 1}));
    if (silu) out.mul_(at::sigmoid(out));
    return out;
}

TEST(ChannelRmsNorm, IsTheDefinition) {
    for (const std::int64_t channels : {1, 3, 96}) {
        const at::Tensor x = random({2, channels, 3, 5, 4}, 5);
        x.select(2, 1).select(3, 2).zero_();  // a pixel of zeros stays zero
        const at::Tensor gamma = random({channels}, 6);
        for (const bool silu : {false, true}) {
            const at::Tensor wanted = norm_by_definition(x, gamma, silu);
            EXPECT_LT(distance(channel_rms_norm(x, gamma, silu), wanted), 5e-7);
            const at::Tensor half = channel_rms_norm(x.to(at::kBFloat16), gamma, silu);
            EXPECT_EQ(half.scalar_type(), at::kBFloat16);
            EXPECT_LT(distance(half, norm_by_definition(x.to(at::kBFloat16), gamma, silu)), 2e-3);
        }
    }
}

// More pixels than are worked on at a time, and in an order of memory that is not its own.
TEST(ChannelRmsNorm, TakesLargeClipsInParts) {
    const at::Tensor x = random({1, 64, 2, 130, 100}, 7);
    const at::Tensor gamma = random({64}, 8);
    EXPECT_LT(distance(channel_rms_norm(x, gamma, true), norm_by_definition(x, gamma, true)), 5e-7);
    EXPECT_GT(channel_rms_norm_workspace(64), 0);
}

}  // namespace
}  // namespace zoetrope::ops
