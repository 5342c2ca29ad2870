// Operators beside plain formulas in float64.
#include "base/error.h"
#include "base/timer.h"
#include "ops/attention.h"
#include "ops/device.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/peak.h"
#include "ops/share_out.h"
#include "ops/stats.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <thread>

namespace zoetrope::ops {
namespace {

// `make test-isa` runs this once per instruction set.
TEST(Isa, TheForcedOneIsUsed) {
    if (!kernels::isa_is_forced()) {
        EXPECT_EQ(kernels::isa(), kernels::available().back());
        return;
    }
    EXPECT_EQ(kernels::name_of(kernels::isa()), std::getenv("ZOETROPE_ISA"));
    EXPECT_LE(fastest_bf16_products(), kernels::isa());
    EXPECT_EQ(amx_is_fastest(), kernels::isa() >= kernels::Isa::amx);
    EXPECT_EQ(takes_int8(at::kCPU, at::kBFloat16), kernels::isa() >= kernels::Isa::avx512vnni);
}

// Bytes of a run hang on it: never on how busy the machine is.
TEST(Isa, ProductsOfBf16FollowARule) {
    using kernels::Isa;
    Isa expected = Isa::ref;
    for (const Isa isa : {Isa::avx2, Isa::avx512, Isa::avx512bf16, Isa::avx512fp16}) {
        if (kernels::has(isa) && isa <= kernels::isa()) expected = isa;
    }
    for (int repeat = 0; repeat < 3; ++repeat) EXPECT_EQ(fastest_bf16_products(), expected);
}

double largest(const at::Tensor& a, const at::Tensor& b) {
    return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

at::Tensor attention_in_float64(const AttentionArgs& args) {
    const auto heads = [](const at::Tensor& x) { return x.to(at::kDouble).transpose(1, 2); };
    const std::int64_t keys = args.kv_length >= 0 ? args.kv_length : args.k.size(1);
    const double scale =
        args.scale != 0 ? args.scale : 1 / std::sqrt(static_cast<double>(args.q.size(3)));
    at::Tensor logits =
        at::matmul(heads(args.q), heads(args.k).narrow(2, 0, keys).transpose(2, 3)) * scale;
    if (args.bias.defined()) logits = logits + args.bias.to(at::kDouble).narrow(3, 0, keys);
    return at::matmul(at::softmax(logits, 3), heads(args.v).narrow(2, 0, keys)).transpose(1, 2);
}

TEST(Attention, EqualsTheFormulaOnEveryBackend) {
    const c10::InferenceMode inference;
    for (const auto backend : {AttentionBackend::aten, AttentionBackend::reference}) {
        const ForceAttentionBackend force(backend);
        for (const std::int64_t head_size : {6, 12, 64, 128}) {
            for (const auto& [queries, keys, kv_length] :
                 {std::tuple{1, 1, -1}, {7, 7, -1}, {33, 65, 65}, {64, 64, 50}, {5, 512, 1}}) {
                const at::Tensor q = at::randn({2, queries, 3, head_size});
                const at::Tensor k = at::randn({1, keys, 3, head_size});
                const at::Tensor v = at::randn({1, keys, 3, head_size});
                const AttentionArgs args{.q = q, .k = k, .v = v, .kv_length = kv_length};
                const at::Tensor out = attention(args).out;
                EXPECT_TRUE(out.is_contiguous());
                EXPECT_LT(largest(out, attention_in_float64(args)), 2e-6)
                    << name_of(backend) << " " << head_size << " " << queries << " " << keys;
            }
        }
    }
}

TEST(Attention, BiasScaleAndLogSumExp) {
    const c10::InferenceMode inference;
    const at::Tensor q = at::randn({1, 9, 2, 8}), k = at::randn({1, 9, 2, 8}),
                     v = at::randn({1, 9, 2, 8});
    const AttentionArgs args{.q = q, .k = k, .v = v, .bias = at::randn({1, 2, 9, 9}), .scale = 1.0};
    EXPECT_LT(largest(attention(args).out, attention_in_float64(args)), 2e-6);
    AttentionArgs with_sum = args;
    with_sum.log_sum_exp = true;
    const auto result = attention(with_sum);
    EXPECT_LT(largest(result.out, attention_in_float64(args)), 2e-6);
    const at::Tensor logits =
        at::matmul(q.transpose(1, 2), k.transpose(1, 2).transpose(2, 3)) + args.bias;
    EXPECT_LT(largest(result.log_sum_exp, logits.to(at::kDouble).logsumexp({3})), 2e-6);
}

TEST(Attention, ShapesThatDoNotFitAreErrors) {
    const at::Tensor q = at::randn({1, 4, 2, 8});
    EXPECT_THROW(attention({.q = q, .k = at::randn({1, 4, 3, 8}), .v = at::randn({1, 4, 3, 8})}),
                 Error);
    EXPECT_THROW(attention({.q = q, .k = q, .v = q, .kv_length = 5}), Error);
    EXPECT_THROW(attention({.q = q, .k = q, .v = q.to(at::kBFloat16)}), Error);
}

TEST(Norm, ModulationFollowsTheFrameOfEachToken) {
    const c10::InferenceMode inference;
    const at::Tensor x = at::randn({2, 6, 8});
    const at::Tensor shift = at::randn({2, 8}), scale = at::randn({2, 8}), gate = at::randn({2, 8});
    const FrameIndex frames{{1, 0, 1}, 2};
    const at::Tensor modulated = layer_norm_modulate(x, shift, scale, frames, 1e-6, at::kFloat);
    at::Tensor gated = x.clone();
    add_gated(gated, modulated, gate, frames);
    at::Tensor plain = x.clone();
    add_gated(plain, modulated, {}, {});
    EXPECT_EQ(largest(plain, x + modulated), 0);
    for (std::int64_t token = 0; token < 6; ++token) {
        const std::int64_t row = token / 2 == 1 ? 0 : 1;
        const at::Tensor one = x.select(1, token).to(at::kDouble);
        const at::Tensor centred = one - one.mean(-1, true);
        const at::Tensor normed = centred / (centred.pow(2).mean(-1, true) + 1e-6).sqrt();
        const at::Tensor wanted = normed * (scale[row].to(at::kDouble) + 1) + shift[row];
        EXPECT_LT(largest(modulated.select(1, token), wanted), 2e-6);
        EXPECT_LT(largest(gated.select(1, token), one + wanted * gate[row]), 4e-6);
    }
}

TEST(Norm, RotaryTurnsNeighbouringPairs) {
    const c10::InferenceMode inference;
    const std::int64_t tokens = 5, heads = 2, head_size = 6;
    const at::Tensor x = at::randn({1, tokens, heads * head_size});
    const at::Tensor weight = at::randn({heads * head_size});
    const at::Tensor angle = at::randn({tokens, head_size / 2});
    const at::Tensor out = rms_norm_rotary(x, weight, 1e-5, {angle.cos(), angle.sin()});
    const at::Tensor wide = x.to(at::kDouble);
    const at::Tensor normed = (wide / (wide.pow(2).mean(-1, true) + 1e-5).sqrt() * weight)
                                  .view({tokens, heads, head_size});
    for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t h = 0; h < heads; ++h) {
            for (std::int64_t p = 0; p < head_size / 2; ++p) {
                const double a = normed[t][h][2 * p].item<double>(),
                             b = normed[t][h][2 * p + 1].item<double>();
                const double turn = angle[t][p].item<double>();
                EXPECT_NEAR(out[0][t][h][2 * p].item<double>(),
                            a * std::cos(turn) - b * std::sin(turn), 3e-6);
                EXPECT_NEAR(out[0][t][h][2 * p + 1].item<double>(),
                            a * std::sin(turn) + b * std::cos(turn), 3e-6);
            }
        }
    }
}

TEST(Norm, HalfPrecisionIsRoundedOnce) {
    const c10::InferenceMode inference;
    const at::Tensor x = at::randn({1, 4, 64}).to(at::kBFloat16);
    const at::Tensor weight = at::randn({64});
    const at::Tensor exact = rms_norm(x.to(at::kFloat), weight, 1e-6);
    EXPECT_EQ(largest(rms_norm(x, weight, 1e-6), exact.to(at::kBFloat16)), 0);
    EXPECT_EQ(largest(rms_norm(x, weight, 1e-6, at::kFloat), exact), 0);
}

// What a tensor of other strides or another batch gives equals the same numbers side by side.
TEST(Norm, ColumnsOfAWiderMatrix) {
    const c10::InferenceMode inference;
    const Collection collection;
    const std::int64_t channels = 24;
    const at::Tensor wide = at::randn({2, 7, 3 * channels});
    const at::Tensor weight = at::randn({channels}), bias = at::randn({channels});
    const at::Tensor angle = at::randn({7, 6});
    const RotaryTable rotary{angle.cos(), angle.sin()};
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
        const at::Tensor part = wide.to(dtype).narrow(2, channels, channels);
        const at::Tensor whole = part.contiguous();
        EXPECT_EQ(largest(rms_norm_rotary(part, weight, 1e-6, rotary),
                          rms_norm_rotary(whole, weight, 1e-6, rotary)),
                  0);
        EXPECT_EQ(largest(rms_norm(part, weight, 1e-6), rms_norm(whole, weight, 1e-6)), 0);
        EXPECT_EQ(largest(layer_norm(part, weight, bias, 1e-6, at::kBFloat16),
                          layer_norm(whole, weight, bias, 1e-6, at::kBFloat16)),
                  0);
        at::Tensor sum = at::randn({2, 7, channels}), same = sum.clone();
        add_gated(sum, part, {}, {});
        add_gated(same, whole, {}, {});
        EXPECT_EQ(largest(sum, same), 0);
    }
    EXPECT_TRUE(collection.fallbacks().empty());
}

// Samples, frames and pieces of them that end in the middle of a thread's share.
TEST(Norm, ManyTokensOfSeveralSamples) {
    const c10::InferenceMode inference;
    const std::int64_t tokens = 6 * 37, channels = 1001;
    const at::Tensor x = at::randn({3, tokens, channels});
    const at::Tensor table = at::randn({2, 6, channels});
    const at::Tensor shift = table.select(1, 0), scale = table.select(1, 3);  // rows far apart
    const FrameIndex frames{{0, 1, 1, 0, 0, 1}, 37};
    const at::Tensor out = layer_norm_modulate(x, shift, scale, frames, 1e-6, at::kFloat);
    const at::Tensor centred = x.to(at::kDouble) - x.to(at::kDouble).mean(-1, true);
    const at::Tensor normed = centred / (centred.pow(2).mean(-1, true) + 1e-6).sqrt();
    for (std::int64_t frame = 0; frame < 6; ++frame) {
        const std::int64_t row = frames.rows[static_cast<std::size_t>(frame)];
        const at::Tensor wanted = normed.narrow(1, frame * 37, 37) * (scale[row] + 1) + shift[row];
        EXPECT_LT(largest(out.narrow(1, frame * 37, 37), wanted), 4e-6);
    }
    const int threads = at::get_num_threads();
    at::set_num_threads(1);
    const at::Tensor alone = layer_norm_modulate(x, shift, scale, frames, 1e-6, at::kFloat);
    at::set_num_threads(threads);
    EXPECT_EQ(largest(out, alone), 0);
}

TEST(Norm, TablesThatDoNotFitAreErrors) {
    const c10::InferenceMode inference;
    const at::Tensor x = at::randn({1, 4, 8}), row = at::randn({1, 8});
    EXPECT_THROW(layer_norm_modulate(x, row, at::randn({1, 7}), {}, 1e-6, at::kFloat), Error);
    EXPECT_THROW(layer_norm_modulate(x, row, row, {{0, 1}, 2}, 1e-6, at::kFloat), Error);
    EXPECT_THROW(layer_norm_modulate(x, row, row, {{0}, 3}, 1e-6, at::kFloat), Error);
    EXPECT_THROW(rms_norm(x, row.to(at::kBFloat16), 1e-6), Error);
    const at::Tensor angle = at::randn({3, 4});
    EXPECT_THROW(rms_norm_rotary(x, at::randn({8}), 1e-6, {angle, angle}), Error);
    at::Tensor sum = at::randn({1, 3, 8});
    EXPECT_THROW(add_gated(sum, x, {}, {}), Error);
}

// fp16 has no kernel on the CPU: ATen computes it, and the report says so.
TEST(Norm, HalfGoesToATenAndIsCounted) {
    const c10::InferenceMode inference;
    const Collection collection;
    const at::Tensor x = at::randn({2, 5, 24}).to(at::kHalf), wide = x.to(at::kFloat);
    const at::Tensor row = at::randn({1, 24}), weight = row[0];
    const at::Tensor angle = at::randn({5, 6});
    const RotaryTable rotary{angle.cos(), angle.sin()};
    constexpr double kStep = 8e-3;  // of half-precision numbers up to 8
    EXPECT_LT(largest(layer_norm_modulate(x, row, row, {}, 1e-6, at::kFloat),
                      layer_norm_modulate(wide, row, row, {}, 1e-6, at::kFloat)),
              4e-6);
    EXPECT_LT(largest(rms_norm_rotary(x, weight, 1e-6, rotary),
                      rms_norm_rotary(wide, weight, 1e-6, rotary)),
              kStep);
    EXPECT_EQ(collection.fallbacks().at("rms_norm_rotary Half to Half: no kernel"), 1);
    at::Tensor sum = at::randn({2, 5, 24}), same = sum.clone();
    add_gated(sum, x, row, {});
    add_gated(same, wide, row, {});
    EXPECT_LT(largest(sum, same), 1e-6);
}

TEST(Norm, ActivationsInPlaceAndWithCast) {
    const c10::InferenceMode inference;
    const at::Tensor x = at::randn({3, 1, 1000}) * 3;
    for (const auto which : {kernels::Activation::gelu_tanh, kernels::Activation::silu}) {
        const at::Tensor wide = x.to(at::kDouble);
        const at::Tensor wanted =
            which == kernels::Activation::silu ? at::silu(wide) : at::gelu(wide, "tanh");
        at::Tensor out = x.clone();
        activate(out, which, out);
        EXPECT_LT(largest(out, wanted), 2e-6);  // 1.3e-7 of numbers up to 13
        at::Tensor narrow = at::empty(x.sizes(), x.options().dtype(at::kBFloat16));
        activate(x, which, narrow);
        EXPECT_EQ(largest(narrow, out.to(at::kBFloat16)), 0);
        at::Tensor half = x.to(at::kHalf);
        activate(half, which, half);
        EXPECT_LT(largest(half, wanted), 8e-3);
    }
}

TEST(Linear, WideProductOfANarrowWeight) {
    const c10::InferenceMode inference;
    const at::Tensor weight = at::randn({3000, 2000}).to(at::kBFloat16);  // widened in two parts
    const at::Tensor x = at::randn({2, 2000}), bias = at::randn({3000});
    const at::Tensor wanted =
        at::matmul(x.to(at::kDouble), weight.to(at::kDouble).t()) + bias.to(at::kDouble);
    EXPECT_LT(largest(linear_fp32(x, {weight}, bias), wanted), 5e-4);
}

TEST(Linear, PackedWeightsOfAnotherLayoutAreRefused) {
    const at::Tensor weight = at::randn({3, 4});
    EXPECT_THROW(linear({.x = at::randn({2, 4}), .weight = {weight, MatrixLayout::int8}}), Error);
}

TEST(Stats, NestedOperatorsCountOnce) {
    using namespace std::chrono_literals;
    const Collection collection;
    {
        const OperatorScope outer("outer", 10);
        std::this_thread::sleep_for(20ms);
        const OperatorScope inner("inner", 5);
        std::this_thread::sleep_for(40ms);
    }
    count_fallback("attention of head size 5");
    const auto found = collection.operators();
    EXPECT_NEAR(found.at("inner").seconds, 0.040, 0.020);
    EXPECT_NEAR(found.at("outer").seconds, 0.020, 0.015);
    EXPECT_EQ(found.at("outer").flop, 10);
    EXPECT_EQ(collection.fallbacks().at("attention of head size 5"), 1);
}

TEST(Device, ParsesAndRefuses) {
    EXPECT_TRUE(parse_device("cpu").is_cpu());
    for (const char* bad : {"gpu", "cuda:x", "cuda:", "cuda:-1", "cuda:99", ""})
        EXPECT_THROW(parse_device(bad), Error) << bad;
    EXPECT_EQ(parse_dtype("bf16"), at::kBFloat16);
    EXPECT_THROW(parse_dtype("int3"), Error);
    EXPECT_GE(usable_cores(), 1);
    EXPECT_GT(process_memory().resident, 1 << 20);
}

TEST(Device, CountsTheTimeOnCores) {
    const ProcessTime before = process_time();
    if (before.running == 0) GTEST_SKIP() << "this kernel counts no time of threads";
    const Timer timer;
    const auto own = [] { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; };
    const double begin = own();
    while (own() - begin < 0.1) {
    }
    const ProcessTime now = process_time();
    EXPECT_NEAR(now.running - before.running, 0.1, 0.05);  // told once a tick
    EXPECT_LE(now.waiting - before.waiting, timer.seconds() * threads());
}

TEST(Peak, IsBelowWhatAnyCoreReaches) {
    const Peak peak = measured_peak(at::kFloat);
    EXPECT_GT(peak.flops, 1e9);
    EXPECT_LT(peak.flops / threads(), 1e12);
}

// Two items that wait for each other: a serial loop would wait in vain.
TEST(Threads, ShareOutRunsItemsAtTheSameTime) {
    const int before = threads();
    set_threads(2);
    std::atomic<int> started{0}, met{0};
    share_out(2, 2, [&](std::int64_t, std::int64_t) {
        started += 1;
        const auto begin = std::chrono::steady_clock::now();
        while (started < 2 && std::chrono::steady_clock::now() - begin < std::chrono::seconds(20))
            std::this_thread::yield();
        met += started == 2 ? 1 : 0;
    });
    set_threads(before);
    EXPECT_EQ(met, 2);
}

}  // namespace
}  // namespace zoetrope::ops
