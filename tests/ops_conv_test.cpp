// The VAE's operators against the plain definition: all frames in one piece, zeros written out,
// double precision.
#include "ops/conv.h"

#include "base/error.h"
#include "ops/brgemm.h"
#include "ops/conv_cpu.h"
#include "ops/device.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/equal.h>
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

using kernels::Isa;

// Of our own kernels on this CPU, each with the distance that its results may have from exact ones:
// rounding both factors to 24, 8 or 11 bits, and sums of 64 steps to 11 (measured: 1.2e-3).
struct Products {
    Isa isa;
    double noise;
};
std::vector<Products> products() {
    std::vector<Products> found;
    for (const Products& p :
         {Products{Isa::ref, 1e-6}, Products{Isa::avx512, 1e-6}, Products{Isa::avx512bf16, 3e-3},
          Products{Isa::avx512fp16, 1.9e-3}, Products{Isa::amx, 3e-3}}) {
        if (brgemm_runs(p.isa)) found.push_back(p);
    }
    return found;
}

struct Sizes {
    std::int64_t in, out, height, width;
};
// Less than a panel; several panels of odd width; results so few that the taps are columns, of one
// panel and of several; a line of more than one block.
constexpr Sizes kSizes[] = {
    {5, 4, 7, 6}, {37, 101, 9, 13}, {48, 3, 6, 17}, {19, 12, 5, 11}, {3, 50, 4, 500}};

at::Tensor by_kernel(const CausalConv3dArgs& args, Isa isa) {
    ConvSpec spec{.options = args.options, .spread_taps = true};
    std::copy_n(args.weight.sizes().begin(), 5, spec.weight.begin());
    const PackedConv conv = pack_conv(args.weight, args.bias, spec, isa);
    ConvHistory history;
    ConvPool pool;
    const ConvStage stage{.conv = conv, .history = &history};
    if (args.history.defined()) carry_cpu(stage, {.x = args.history, .pool = &pool});
    return causal_conv3d_cpu({&stage, 1}, {.x = args.x, .pool = &pool});
}

TEST_P(CausalConv3d, ByEveryKernel) {
    const Case& test = GetParam();
    const auto [kt, kh, kw] = test.kernel;
    if (test.name == "all_at_once") {
        EXPECT_THROW(by_kernel(args_of(test, 1), Isa::ref), Error);
        return;
    }
    if (test.history > kt - test.options.stride[0]) return;  // more than a stream keeps
    for (const Sizes& size : kSizes) {
        CausalConv3dArgs args{
            .x = random({2, size.in, test.frames, size.height, size.width}, 1).mul_(100),
            .weight = random({size.out, size.in, kt, kh, kw}, 2),
            .bias = random({size.out}, 3),
            .options = test.options};
        if (test.history > 0)
            args.history = random({2, size.in, test.history, size.height, size.width}, 4);
        const at::Tensor wanted = by_definition(args);
        for (const auto& [isa, noise] : products()) {
            EXPECT_LT(distance(by_kernel(args, isa), wanted), noise)
                << kernels::name_of(isa) << ", " << size.in << " to " << size.out;
        }
    }
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

TEST(CausalConv3dKernels, MakeTwoFramesOfTheHalvesOfTheChannels) {
    CausalConv3dArgs args{.x = random({1, 20, 3, 5, 4}, 1),
                          .weight = random({40, 20, 3, 1, 1}, 2),
                          .bias = random({40}, 3),
                          .options = {.time_padding = 2}};
    const at::Tensor both = by_definition(args);  // [1, 40, 3, 5, 4]
    const at::Tensor wanted = both.unflatten(1, {2, 20}).permute({0, 2, 3, 1, 4, 5}).flatten(2, 3);
    for (const auto& [isa, noise] : products()) {
        const PackedConv conv = pack_conv(
            args.weight, args.bias,
            {.weight = {40, 20, 3, 1, 1}, .options = args.options, .frames_per_step = 2}, isa);
        ConvHistory history;
        const ConvStage stage{.conv = conv, .history = &history};
        EXPECT_LT(distance(causal_conv3d_cpu({&stage, 1}, {.x = args.x}), wanted), noise);
    }
}

at::Tensor norm_by_definition(const at::Tensor& x, const at::Tensor& gamma, bool silu) {
    const at::Tensor values = x.to(at::kDouble);
    const auto channels = static_cast<double>(x.size(1));
    const at::Tensor norm = values.square().sum(1, true).sqrt().clamp_min(1e-12);
    at::Tensor out = values.div(norm).mul_(std::sqrt(channels)).mul_(gamma.view({1, -1, 1, 1, 1}));
    if (silu) out.mul_(at::sigmoid(out));
    return out;
}

// conv(silu(norm(conv(silu(norm(x)))))) + x.
struct Residual {
    at::Tensor weight = random({50, 50, 3, 3, 3}, 2), bias = random({50}, 3);
    at::Tensor gamma = random({50}, 4);

    at::Tensor by_definition_of(at::Tensor x) const {
        at::Tensor h = x;
        for (int i = 0; i < 2; ++i) {
            h = by_definition({.x = norm_by_definition(h, gamma, true),
                               .weight = weight,
                               .bias = bias,
                               .options = kSame});
        }
        return h.add_(x);
    }

    // In chunks of so many frames.
    at::Tensor by_kernels(const at::Tensor& x, Isa isa, std::vector<std::int64_t> chunks) const {
        const PackedConv conv =
            pack_conv(weight, bias, {.weight = {50, 50, 3, 3, 3}, .options = kSame}, isa);
        ConvHistory history[2];
        ConvPool pool;
        const ConvStage stages[2] = {{conv, gamma, true, &history[0]},
                                     {conv, gamma, true, &history[1]}};
        std::vector<at::Tensor> parts;
        std::int64_t first = 0;
        for (const std::int64_t frames : chunks) {
            const at::Tensor part =
                x.narrow(2, first, frames).clone(at::MemoryFormat::ChannelsLast3d);
            parts.push_back(causal_conv3d_cpu(
                stages, {.x = part, .residual = part, .out = part, .pool = &pool}));
            first += frames;
        }
        return at::cat(parts, 2);
    }
};

TEST(CausalConv3dKernels, NormAndConvolveTwiceInARow) {
    const Residual block;
    const at::Tensor x = random({2, 50, 5, 11, 23}, 1);
    x.select(2, 1).select(3, 2).zero_();  // pixels of zeros stay zeros
    const at::Tensor wanted = block.by_definition_of(x);
    const int threads_before = threads();
    for (const auto& [isa, noise] : products()) {
        const at::Tensor whole = block.by_kernels(x, isa, {5});
        EXPECT_LT(distance(whole, wanted), 1.5 * noise) << kernels::name_of(isa);
        EXPECT_TRUE(at::equal(block.by_kernels(x, isa, {1, 3, 1}), whole));
        set_threads(1);
        EXPECT_TRUE(at::equal(block.by_kernels(x, isa, {1, 4}), whole));
        set_threads(threads_before);
    }
}

// Frames 1 to 8 are alike, and 9 and 10; they come in chunks of 1, 4, 4 and 4.
const std::vector<std::int64_t> kFrameOf = {0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 1};

// The stages over such a clip, chunk by chunk: with all frames, or with what Repeats leave of them
// and the result's repeats written out again. computed: frames of the result that were
at::Tensor over_alike_frames(std::span<const ConvStage> stages, const at::Tensor& frames,
                             bool residual, bool leave_out, std::int64_t& computed) {
    ConvPool pool;
    std::vector<at::Tensor> results;
    computed = 0;
    for (std::size_t first = 0; first < kFrameOf.size(); first += first == 0 ? 1 : 4) {
        Repeats repeats;
        std::vector<at::Tensor> chunk;
        for (std::size_t t = first; t < first + (first == 0 ? 1 : 4); ++t) {
            const bool repeat = t > 0 && kFrameOf[t] == kFrameOf[t - 1];
            if (leave_out) repeats.frames.push_back(repeat);
            if (!leave_out || !repeat) chunk.push_back(frames.narrow(2, kFrameOf[t], 1));
        }
        if (leave_out) repeats.go_on = repeats.frames.back();
        const at::Tensor x = (chunk.empty() ? frames.narrow(2, 0, 0) : at::cat(chunk, 2))
                                 .contiguous(at::MemoryFormat::ChannelsLast3d);
        if (first == 0 && stages[0].conv.spec.options.stride[0] == 2) {
            carry_cpu(stages[0], {.x = x, .pool = &pool});
            continue;
        }
        ConvCall call{.x = x, .pool = &pool, .repeats = leave_out ? &repeats : nullptr};
        if (residual) call.residual = call.out = x;
        const at::Tensor part = causal_conv3d_cpu(stages, call);
        computed += part.size(2);
        if (!leave_out) results.push_back(part);
        std::int64_t taken = 0;
        for (const bool repeat : repeats.frames)
            results.push_back(repeat ? results.back() : part.narrow(2, taken++, 1));
    }
    return at::cat(results, 2);
}

TEST(CausalConv3dKernels, RepeatWhatSeesTheSameFramesAgain) {
    struct Stages {
        std::string name;
        ConvSpec spec;
        int count;
        std::int64_t computed;  // frames of the result
    };
    // A result is repeated when its window and the one before hold the same frame.
    const Stages cases[] = {
        {"same", {.weight = {50, 50, 3, 3, 3}, .options = kSame}, 1, 8},
        {"twice", {.weight = {50, 50, 3, 3, 3}, .options = kSame}, 2, 10},
        {"half", {.weight = {50, 50, 1, 3, 3}, .options = {.stride = {1, 2, 2}}}, 1, 5},
        {"fewer", {.weight = {50, 50, 3, 1, 1}, .options = {.stride = {2, 1, 1}}}, 1, 4},
    };
    const at::Tensor frames = random({2, 50, 4, 7, 9}, 1), gamma = random({50}, 4);
    for (const Stages& test : cases) {
        const auto [out, in, kt, kh, kw] = test.spec.weight;
        const at::Tensor weight = random({out, in, kt, kh, kw}, 2), bias = random({50}, 3);
        for (const auto& [isa, noise] : products()) {
            const PackedConv conv = pack_conv(weight, bias, test.spec, isa);
            const auto run = [&](bool leave_out, std::int64_t& computed) {
                ConvHistory history[2];
                std::vector<ConvStage> stages;
                for (int i = 0; i < test.count; ++i)
                    stages.push_back({conv, kh == 3 && kt == 3 ? gamma : at::Tensor(), kt == 3,
                                      kt > 1 ? &history[i] : nullptr});
                return over_alike_frames(stages, frames, test.count == 2, leave_out, computed);
            };
            std::int64_t all = 0, computed = 0;
            const at::Tensor wanted = run(false, all);
            EXPECT_TRUE(at::equal(run(true, computed), wanted)) << test.name;
            EXPECT_EQ(computed, test.computed) << test.name << " of " << all;
        }
    }
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
