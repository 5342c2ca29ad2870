// The CPU's attention kernels, each that this CPU can run, beside the formula in float64.
#include "ops/attention.h"
#include "ops/attention_cpu.h"
#include "ops/brgemm.h"
#include "ops/device.h"
#include "ops/stats.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorIndexing.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

namespace zoetrope::ops {
namespace {

using kernels::Isa;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Kernel {
    Isa isa;
    bool int8 = false;

    AttentionResult run(AttentionArgs args) const {
        args.int8 = int8;
        return attention_cpu(args, isa);
    }
    std::string name() const { return std::string(kernels::name_of(isa)) + (int8 ? " int8" : ""); }
    bool slow() const { return isa == Isa::ref; }
};

constexpr Kernel kInt8Kernels[] = {{Isa::avx512vnni, true}, {Isa::ref, true}};

// Those that this CPU can run and that compute `dtype` in a way of their own.
std::vector<Kernel> kernels_for(at::ScalarType dtype) {
    std::vector<Kernel> found;
    for (const Isa isa :
         {Isa::ref, Isa::avx2, Isa::avx512, Isa::avx512bf16, Isa::avx512fp16, Isa::amx}) {
        const bool own = dtype == at::kBFloat16 || isa < Isa::avx512bf16;
        if (own && brgemm_runs(isa)) found.push_back({isa});
    }
    for (const Kernel& kernel : kInt8Kernels) {
        if (kernels::has(kernel.isa)) found.push_back(kernel);
    }
    return found;
}

struct Expected {
    at::Tensor out;          // [B, Lq, H, D] fp64
    at::Tensor weight;       // the same of |v|: what relative errors of probabilities act on
    at::Tensor log_sum_exp;  // [B, H, Lq] fp64
    double logit = 0;        // largest |q| |k| scale
    double value = 0;        // largest |v|
};

Expected in_float64(const AttentionArgs& args) {
    const auto heads = [](const at::Tensor& x) { return x.to(at::kDouble).transpose(1, 2); };
    const at::Tensor q = heads(args.q), k = heads(args.k), v = heads(args.v);
    const double scale =
        args.scale != 0 ? args.scale : 1 / std::sqrt(static_cast<double>(args.q.size(3)));
    const at::Tensor logits = at::matmul(q, k.transpose(2, 3)) * scale;
    const at::Tensor p = at::softmax(logits, 3);
    return {at::matmul(p, v).transpose(1, 2), at::matmul(p, v.abs()).transpose(1, 2),
            at::logsumexp(logits, {3}),
            q.norm(2, 3).max().item<double>() * k.norm(2, 3).max().item<double>() * scale,
            v.abs().max().item<double>()};
}

// Relative error of a sum of probabilities that rounding explains: in float32 4 units, and two per
// unit of the largest logit that the norms allow; and of the probabilities to bf16. Those of fp16
// sums and int8 numbers are measured: below, 0.6 and 0.5 of these at most, and 0.85 for the
// log-sum-exp over 40 seeds. (Were all of the 35 or so fp16 roundings in a row to go one way, the
// error would be up to 28 times as much.)
double probability_error(at::ScalarType dtype, const Kernel& kernel, double logit) {
    if (kernel.int8) return 0.006 + 0.003 * logit;
    const bool bf16 = dtype == at::kBFloat16;
    if (bf16 && kernel.isa == Isa::avx512fp16) return std::ldexp(1, -11) * (5 + 1.25 * logit);
    const bool rounds = kernel.isa == Isa::avx512bf16 || kernel.isa == Isa::amx;
    return std::ldexp(1, -24) * (4 + 2 * logit) + (bf16 && rounds ? std::ldexp(1, -8) : 0);
}

// Largest error over what rounding explains: of probabilities, of values to int8, and of the result
// to its dtype.
double error_ratio(const at::Tensor& out, const Expected& want, const Kernel& kernel) {
    const at::Tensor bound =
        want.weight * probability_error(out.scalar_type(), kernel, want.logit) +
        want.out.abs() * (out.scalar_type() == at::kBFloat16 ? std::ldexp(1, -8) : 0) +
        (kernel.int8 ? want.value / 254 : 0);
    return ((out.to(at::kDouble) - want.out).abs() / bound).max().item<double>();
}

// q, k and v as views that are not contiguous: heads first, or parts of one projection.
AttentionArgs random_views(std::int64_t queries, std::int64_t keys, std::int64_t head_size,
                           at::ScalarType dtype, std::int64_t variant) {
    const auto options = at::TensorOptions().dtype(dtype);
    const bool large = queries * keys > 50'000;  // the formula in float64 takes long
    const std::int64_t batch = large ? 1 : 2, heads = large ? 1 : 2;
    const std::int64_t kv_batch = variant % 2 == 0 ? 1 : batch;
    if (variant / 2 % 2 == 0) {
        const auto view = [&](std::int64_t size, std::int64_t length) {
            return at::randn({size, heads, length, head_size}, options).transpose(1, 2);
        };
        return {.q = view(batch, queries), .k = view(kv_batch, keys), .v = view(kv_batch, keys)};
    }
    const at::Tensor kv = at::randn({kv_batch, keys, 2, heads, head_size}, options);
    return {
        .q = at::randn({batch, queries, heads, head_size + 16}, options).narrow(3, 16, head_size),
        .k = kv.select(2, 0),
        .v = kv.select(2, 1)};
}

// 1,000 random normal keys in float32, as they are or with channels that have means 3 times as
// large and four that are 8 times as large.
AttentionArgs with_outliers(bool outliers) {
    AttentionArgs args{.q = at::randn({1, 96, 1, 128}),
                       .k = at::randn({1, 1000, 1, 128}),
                       .v = at::randn({1, 1000, 1, 128})};
    if (!outliers) return args;
    args.k += 3 * at::randn({1, 1, 1, 128});
    for (const std::int64_t channel : {0, 31, 62, 93}) {
        args.q.select(3, channel).mul_(8.0);
        args.k.select(3, channel).mul_(8.0);
    }
    args.v += at::randn({1, 1, 1, 128});
    return args;
}

double relative_error(const at::Tensor& x, const at::Tensor& want) {
    return ((x.to(at::kDouble) - want).norm() / want.norm()).item<double>();
}

TEST(AttentionCpu, EveryKernelEqualsTheFormulaForOddSizes) {
    const c10::InferenceMode inference;
    at::manual_seed(1);
    const std::vector<std::int64_t> head_sizes = {64, 80, 96, 112, 128};
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        std::map<std::string, double> worst;
        std::int64_t variant = 0;
        for (const std::int64_t queries : {1, 7, 8, 31, 33, 95, 96, 97, 300}) {
            for (const std::int64_t keys : {1, 2, 7, 127, 128, 129, 255, 257, 1000}) {
                const std::int64_t head_size = head_sizes[static_cast<std::size_t>(variant % 5)];
                const AttentionArgs args = random_views(queries, keys, head_size, dtype, variant++);
                const Expected want = in_float64(args);
                for (const Kernel& kernel : kernels_for(dtype)) {
                    if (kernel.slow() && queries * keys > 10'000) continue;
                    ASSERT_TRUE(attention_cpu_takes(args, kernel.isa));
                    const at::Tensor out = kernel.run(args).out;
                    ASSERT_EQ(out.scalar_type(), dtype);
                    ASSERT_TRUE(out.is_contiguous());
                    const double ratio = error_ratio(out, want, kernel);
                    worst[kernel.name()] = std::max(worst[kernel.name()], ratio);
                    ASSERT_LT(ratio, 1.0) << kernel.name() << " " << dtype << " " << queries << "x"
                                          << keys << "x" << head_size;
                }
            }
        }
        for (const auto& [name, ratio] : worst)
            RecordProperty(name + "_" + c10::toString(dtype), std::to_string(ratio));
    }
}

// What lies behind kv_length, between rows and beside the heads is never read.
TEST(AttentionCpu, ReadsNothingButItsArguments) {
    const c10::InferenceMode inference;
    at::manual_seed(7);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const auto surrounded = [&](std::int64_t length) {
            at::Tensor all = at::full({1, length + 2, 3, 112}, kNaN, dtype);
            at::Tensor inner = all.narrow(1, 0, length).narrow(2, 1, 1).narrow(3, 16, 80);
            inner.copy_(at::randn({1, length, 1, 80}));
            return std::pair(all.narrow(2, 1, 1).narrow(3, 16, 80), inner);
        };
        const auto [q_all, q] = surrounded(97);
        const auto [k_all, k] = surrounded(261);
        const auto [v_all, v] = surrounded(261);
        const Expected want = in_float64({.q = q, .k = k, .v = v});
        for (const Kernel& kernel : kernels_for(dtype)) {
            const at::Tensor out = kernel.run({.q = q, .k = k, .v = v}).out;
            EXPECT_LT(error_ratio(out, want, kernel), 1.0) << kernel.name();
        }
        const ForceAttentionBackend force(AttentionBackend::cpu);
        const at::Tensor out = attention({.q = q, .k = k_all, .v = v_all, .kv_length = 261}).out;
        EXPECT_LT(error_ratio(out, want, {Isa::avx512fp16}), 1.0);
    }
}

TEST(AttentionCpu, GivesTheLogSumExp) {
    const c10::InferenceMode inference;
    at::manual_seed(8);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        AttentionArgs args = random_views(130, 300, 64, dtype, 1);
        args.log_sum_exp = true;
        args.scale = 0.3;
        const Expected want = in_float64(args);
        for (const Kernel& kernel : kernels_for(dtype)) {
            const at::Tensor lse = kernel.run(args).log_sum_exp;
            ASSERT_EQ(lse.sizes(), want.log_sum_exp.sizes());
            ASSERT_EQ(lse.scalar_type(), at::kFloat);
            EXPECT_LT((lse - want.log_sum_exp).abs().max().item<double>(),
                      probability_error(dtype, kernel, want.logit) +
                          std::ldexp(1, -23) * want.log_sum_exp.abs().max().item<double>())
                << kernel.name() << " " << dtype;
        }
    }
}

// Equal logits give the mean, and one key that is far above the others its value.
TEST(AttentionCpu, ExtremeLogits) {
    const c10::InferenceMode inference;
    at::manual_seed(2);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const AttentionArgs args = random_views(33, 600, 64, dtype, 3);
        for (const Kernel& kernel : kernels_for(dtype)) {
            AttentionArgs equal = args;
            equal.k = args.k.narrow(1, 0, 1).expand(args.k.sizes());
            EXPECT_LT(error_ratio(kernel.run(equal).out, in_float64(equal), kernel), 1.0)
                << kernel.name();

            // Half a unit of int8 values, which go up to about 4.
            const double tolerance = kernel.int8 ? 0.02 : 0;
            for (const float sign : {1.0F, -1.0F}) {
                AttentionArgs one = args;  // logits near 0 but one of 1e4 or all but one of -1e4
                one.q = args.q * 1e-3;
                one.q.select(3, 0).fill_(100.0F);
                one.k = at::zeros(args.k.sizes(), args.k.options());
                one.k.select(3, 0).fill_(sign > 0 ? 0.0F : -800.0F);
                one.k.select(3, 0).select(1, 431).fill_(sign > 0 ? 800.0F : 0.0F);
                const at::Tensor want = args.v.narrow(1, 431, 1).expand(args.q.sizes());
                EXPECT_TRUE(at::allclose(kernel.run(one).out, want, std::ldexp(1, -22), tolerance))
                    << kernel.name();
            }
            if (kernel.int8) continue;    // such logits do not last
            AttentionArgs spread = args;  // logits all over +-1e4
            spread.scale = 300.0;
            const Expected want = in_float64(spread);
            EXPECT_LT(error_ratio(kernel.run(spread).out, want, kernel), 1.0) << kernel.name();
        }
    }
}

// Relative error in the L2 norm, of bf16 tensors to the result of those in float32. Rounding the
// tensors costs 2.8e-3 (normal) and 2.8e-2 (outliers) here, and the whole 3.7e-3 and 2.7e-2. (With
// 8,192 normal keys 3.03e-3, and the whole 3.85e-3; ATen's bf16 attention 3.82e-3.)
TEST(AttentionCpu, Fp16IsAsExactAsRoundingToBf16) {
    if (!kernels::has(Isa::avx512fp16)) GTEST_SKIP() << "no AVX512-FP16";
    const c10::InferenceMode inference;
    at::manual_seed(5);
    for (const bool outliers : {false, true}) {
        const AttentionArgs wide = with_outliers(outliers);
        const AttentionArgs args{.q = wide.q.to(at::kBFloat16),
                                 .k = wide.k.to(at::kBFloat16),
                                 .v = wide.v.to(at::kBFloat16)};
        const at::Tensor want = in_float64(wide).out, rounded = in_float64(args).out;
        const at::Tensor out = attention_cpu(args, Isa::avx512fp16).out;
        const double rounding = relative_error(rounded, want);
        const double kernel = relative_error(out, rounded), total = relative_error(out, want);
        RecordProperty(outliers ? "outliers" : "normal",
                       fmt::format("rounding {}, kernel {}, total {}", rounding, kernel, total));
        EXPECT_LT(kernel, rounding);
        EXPECT_LT(total, 1.4 * rounding);
    }
}

// Of float32 tensors; measured: 1.4e-2 (normal) and 2.5e-2 (outliers), and 5.6e-2 without taking
// the means from K.
TEST(AttentionCpu, Int8KeepsTwoDigits) {
    const c10::InferenceMode inference;
    at::manual_seed(6);
    for (const bool outliers : {false, true}) {
        const AttentionArgs args = with_outliers(outliers);
        const at::Tensor want = in_float64(args).out;
        for (const Kernel& kernel : kInt8Kernels) {
            if (!kernels::has(kernel.isa)) continue;
            const double error = relative_error(kernel.run(args).out, want);
            RecordProperty(kernel.name() + (outliers ? " outliers" : " normal"),
                           std::to_string(error));
            EXPECT_LT(error, outliers ? 0.035 : 0.02) << kernel.name();
        }
    }
}

// NaN and infinity stand exactly where the formula has them, and finite values stay right.
TEST(AttentionCpu, NaNAndInfinityBehaveLikeTheFormula) {
    const c10::InferenceMode inference;
    at::manual_seed(3);
    struct Case {
        const char* name;
        void (*spoil)(AttentionArgs&);
    };
    const Case cases[] = {
        {"NaN in a query",
         [](auto& a) {
             a.q.index_put_({0, 40, 1, 7}, kNaN);
         }},
        {"NaN in a key",
         [](auto& a) {
             a.k.index_put_({0, 290, 0, 7}, kNaN);
         }},
        {"NaN in the first key",
         [](auto& a) {
             a.k.index_put_({0, 0, 0, 7}, kNaN);
         }},
        {"NaN in a value",
         [](auto& a) {
             a.v.index_put_({0, 299, 1, 5}, kNaN);
         }},
        {"infinite value",
         [](auto& a) {
             a.v.index_put_({0, 3, 1, 5}, -kInfinity);
         }},
        {"infinite query",
         [](auto& a) {
             a.q.index_put_({1, 48, 0, 7}, kInfinity);
         }},
        {"a whole block of logits of -inf, then finite ones",
         [](auto& a) {
             a.q.select(3, 0).fill_(1.0F);
             a.k.select(3, 0).narrow(1, 0, 280).fill_(-kInfinity);
         }},
        {"every logit -inf",
         [](auto& a) {
             a.q.select(3, 0).fill_(1.0F);
             a.k.select(3, 0).fill_(-kInfinity);
         }},
    };
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        for (const Case& one : cases) {
            AttentionArgs args = random_views(65, 300, 64, dtype, 0);
            args.q = args.q.clone();
            one.spoil(args);
            const Expected want = in_float64(args);
            const double infinite = std::numeric_limits<double>::infinity();
            for (const Kernel& kernel : kernels_for(dtype)) {
                const at::Tensor out = kernel.run(args).out;
                const auto context = [&] { return std::string(one.name) + ", " + kernel.name(); };
                EXPECT_TRUE(at::isnan(out).equal(at::isnan(want.out))) << context();
                EXPECT_TRUE((out == infinite).equal(want.out == infinite)) << context();
                EXPECT_TRUE((out == -infinite).equal(want.out == -infinite)) << context();
                const at::Tensor finite = want.out.isfinite();
                EXPECT_TRUE(at::allclose(out.to(at::kDouble).masked_select(finite),
                                         want.out.masked_select(finite), 0.01,
                                         dtype == at::kFloat ? 1e-6 : 0.01))
                    << context();
            }
        }
    }
}

TEST(AttentionCpu, DoesNotDependOnTheNumberOfThreads) {
    const c10::InferenceMode inference;
    at::manual_seed(9);
    const int before = threads();
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        AttentionArgs args = random_views(500, 700, 128, dtype, 2);
        args.log_sum_exp = true;
        for (const Kernel& kernel : kernels_for(dtype)) {
            at::set_num_threads(1);
            const AttentionResult one = kernel.run(args);
            at::set_num_threads(2);
            const AttentionResult two = kernel.run(args);
            EXPECT_TRUE(one.out.equal(two.out)) << kernel.name();
            EXPECT_TRUE(one.log_sum_exp.equal(two.log_sum_exp)) << kernel.name();
        }
    }
    at::set_num_threads(before);
}

// bf16 tensors are computed in float32 by the kernels that have no bf16: no worse than one
// rounding.
TEST(AttentionCpu, ConvertsWhereThereAreNoProductsOfBf16) {
    const c10::InferenceMode inference;
    at::manual_seed(10);
    const AttentionArgs args = random_views(64, 300, 96, at::kBFloat16, 0);
    const AttentionArgs wide{
        .q = args.q.to(at::kFloat), .k = args.k.to(at::kFloat), .v = args.v.to(at::kFloat)};
    for (const Kernel kernel : {Kernel{Isa::ref}, Kernel{Isa::avx2}, Kernel{Isa::avx512}}) {
        if (!kernels::has(kernel.isa)) continue;
        const at::Tensor want = kernel.run(wide).out.to(at::kBFloat16);
        EXPECT_TRUE(kernel.run(args).out.equal(want)) << kernel.name();
    }
}

TEST(AttentionCpu, TakesWhatItsKernelsDoAndCountsTheRest) {
    const c10::InferenceMode inference;
    const auto takes = [](std::int64_t head_size, at::ScalarType dtype) {
        const at::Tensor x = at::zeros({1, 4, 1, head_size}, dtype);
        return attention_cpu_takes({.q = x, .k = x, .v = x}, kernels::isa());
    };
    EXPECT_TRUE(takes(64, at::kFloat) && takes(80, at::kBFloat16) && takes(128, at::kBFloat16));
    EXPECT_FALSE(takes(48, at::kFloat) || takes(72, at::kFloat) || takes(144, at::kFloat));
    EXPECT_FALSE(takes(64, at::kHalf) || takes(64, at::kDouble));

    const at::Tensor x = at::randn({1, 32, 2, 64}), small = at::randn({1, 32, 2, 24});
    AttentionArgs args{.q = x, .k = x, .v = x};
    const Collection collection;
    attention(args);  // small, ATen's by choice
    EXPECT_TRUE(collection.fallbacks().empty());
    attention({.q = small, .k = small, .v = small});
    args.bias = at::zeros({1, 2, 32, 32});
    attention(args);
    const std::map<std::string, std::int64_t> want = {
        {"attention Float [1, 32, 2, 24], 32 keys: no kernel", 1},
        {"attention Float [1, 32, 2, 64], 32 keys, bias: no kernel", 1}};
    EXPECT_EQ(collection.fallbacks(), want);
}

TEST(AttentionCpu, CountsWhatInt8AndFp16CannotHold) {
    const c10::InferenceMode inference;
    const at::Tensor x = at::randn({1, 512, 1, 64});
    Collection collection;
    attention({.q = x, .k = x, .v = x, .int8 = true});
    const bool has = kernels::has(Isa::avx512vnni) && kernels::isa() >= Isa::avx512vnni;
    const std::map<std::string, std::int64_t> none = {
        {"attention Float [1, 512, 1, 64], 512 keys, int8: no kernel", 1}};
    EXPECT_EQ(collection.fallbacks(), has ? decltype(none){} : none);
    collection.clear();
    attention_cpu({.q = x * kInfinity, .k = x, .v = x, .int8 = true}, Isa::ref);
    EXPECT_EQ(collection.fallbacks().count(
                  "attention Float [1, 512, 1, 64], 512 keys: beyond the range of ref"),
              1);
}

TEST(AttentionCpu, StatesItsWorkspace) {
    if (!kernels::has(Isa::avx512bf16)) GTEST_SKIP() << "the figures are those of avx512bf16";
    // 32,760 keys of 128 channels in bf16: 2 x 8.4 MB a head, so 4 heads at once.
    const AttentionSizes video{.heads = 12, .keys = 32'760, .head_size = 128, .threads = 2};
    const std::int64_t packed = std::int64_t{4} * 2 * 32'760 * 128 * 2;
    const std::int64_t blocks = attention_cpu_workspace(video, Isa::avx512bf16) - packed;
    EXPECT_GT(blocks, 0);
    EXPECT_LT(blocks, 2 * 300'000);
    AttentionSizes one_head = video;
    one_head.heads = 1;
    EXPECT_EQ(attention_cpu_workspace(one_head, Isa::avx512bf16), packed / 4 + blocks);
    // Each fp16 twice, int8 once; but they may have to do with float32.
    const std::int64_t one_float32 = attention_cpu_workspace(one_head, Isa::avx512);
    EXPECT_GT(one_float32, packed / 2);
    if (kernels::has(Isa::avx512fp16)) {
        EXPECT_LT(attention_cpu_workspace(one_head, Isa::avx512fp16), one_float32 / 20 * 21);
    }
    AttentionSizes int8 = one_head;
    int8.int8 = true;
    EXPECT_GE(attention_cpu_workspace(int8, Isa::avx512bf16), one_float32);
    AttentionSizes converted = one_head;
    EXPECT_GT(attention_cpu_workspace(converted, Isa::avx2), packed / 2);
}

}  // namespace
}  // namespace zoetrope::ops
