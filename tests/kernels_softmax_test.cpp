// The softmax of rows of logits: AVX512-BF16 beside the reference, and the reference beside the
// formula.
#include "kernels/cpu.h"
#include "kernels/softmax.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace zoetrope::kernels {
namespace {

constexpr int kRows = 5, kStride = 144, kChannels = 48;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

float widened(std::uint16_t bf16) {
    const std::uint32_t bits = std::uint32_t{bf16} << 16;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// Two blocks of keys, the second after the first.
struct Rows {
    std::vector<float> logits = std::vector<float>(kRows * kStride);
    std::vector<float> maximum = std::vector<float>(kRows), sum = std::vector<float>(kRows);
    std::vector<float> out = std::vector<float>(kRows * kChannels, 1.0F);

    void fill(unsigned seed, float size) {
        std::mt19937 random(seed);
        std::normal_distribution<float> normal(0, size);
        std::generate(logits.begin(), logits.end(), [&] { return normal(random); });
    }
    void run(void (*kernel)(const SoftmaxRows&), int keys, int padded, bool first) {
        kernel({.logits = logits.data(),
                .stride = kStride,
                .rows = kRows,
                .keys = keys,
                .padded = padded,
                .scale = 0.5F,
                .first = first,
                .maximum = maximum.data(),
                .sum = sum.data(),
                .out = out.data(),
                .channels = kChannels});
    }
    std::vector<float> probabilities(int row, int count) const {
        std::vector<std::uint16_t> bits(static_cast<std::size_t>(count));
        std::memcpy(bits.data(), logits.data() + row * kStride, bits.size() * sizeof bits[0]);
        std::vector<float> wide(bits.size());
        std::transform(bits.begin(), bits.end(), wide.begin(), widened);
        return wide;
    }
};

TEST(Softmax, ReferenceEqualsTheFormula) {
    Rows rows;
    rows.fill(1, 3);
    const std::vector<float> logits = rows.logits;
    rows.run(softmax_rows_ref, 100, 128, true);
    for (int row = 0; row < kRows; ++row) {
        const float* at = logits.data() + row * kStride;
        const float top = 0.5F * *std::max_element(at, at + 100);
        EXPECT_FLOAT_EQ(rows.maximum[static_cast<std::size_t>(row)], top);
        const std::vector<float> p = rows.probabilities(row, 128);
        double sum = 0;
        for (std::size_t key = 0; key < 128; ++key) {
            const double want =
                key < 100 ? std::exp2(0.5 * static_cast<double>(at[key]) - static_cast<double>(top))
                          : 0;
            EXPECT_NEAR(static_cast<double>(p[key]), want, want / 256);
            sum += static_cast<double>(p[key]);
        }
        EXPECT_NEAR(static_cast<double>(rows.sum[static_cast<std::size_t>(row)]), sum, 1e-5 * sum);
    }
}

TEST(Softmax, Avx512Bf16EqualsTheReference) {
    if (!has(Isa::avx512bf16)) GTEST_SKIP() << "no AVX512-BF16";
    for (const int keys : {1, 15, 16, 17, 31, 33, 64, 127, 128}) {
        Rows fast, slow;
        const int padded = (keys + 63) / 64 * 64;
        for (const bool first : {true, false}) {
            // Second logits are larger, so that what was before is brought down.
            fast.fill(first ? 2 : 3, first ? 1 : 4);
            std::copy(fast.logits.begin(), fast.logits.end(), slow.logits.begin());
            fast.run(softmax_rows_avx512bf16, keys, padded, first);
            slow.run(softmax_rows_ref, keys, padded, first);
            for (int row = 0; row < kRows; ++row) {
                const auto at = static_cast<std::size_t>(row);
                EXPECT_EQ(fast.maximum[at], slow.maximum[at]);
                // A probability next to the middle of two bf16 may go to either.
                EXPECT_NEAR(fast.sum[at], slow.sum[at], 3e-4F * slow.sum[at]) << keys;
                const auto p = fast.probabilities(row, padded), q = slow.probabilities(row, padded);
                for (std::size_t key = 0; key < p.size(); ++key)
                    EXPECT_NEAR(p[key], q[key], q[key] / 128);
                for (int d = 0; d < kChannels; ++d) {
                    const float want = slow.out[at * kChannels + static_cast<std::size_t>(d)];
                    EXPECT_NEAR(fast.out[at * kChannels + static_cast<std::size_t>(d)], want,
                                1e-5F * want);
                }
            }
        }
        std::vector<std::uint16_t> rounded(kRows * kChannels), want(kRows * kChannels);
        SoftmaxFinish finish{.out = slow.out.data(),
                             .sum = slow.sum.data(),
                             .rows = kRows,
                             .channels = kChannels,
                             .bf16 = rounded.data(),
                             .bf16_stride = kChannels};
        softmax_finish_avx512bf16(finish);
        finish.bf16 = want.data();
        softmax_finish_ref(finish);
        for (std::size_t i = 0; i < want.size(); ++i)
            EXPECT_NEAR(widened(rounded[i]), widened(want[i]), widened(want[i]) / 128);
    }
}

TEST(Softmax, NaNAndInfinityBehaveLikeTheFormula) {
    for (const auto kernel : {softmax_rows_ref, softmax_rows_avx512bf16}) {
        if (kernel == softmax_rows_avx512bf16 && !has(Isa::avx512bf16)) continue;
        Rows rows;
        rows.fill(4, 1);
        rows.logits[0 * kStride + 40] = std::numeric_limits<float>::quiet_NaN();
        rows.logits[1 * kStride + 3] = kInfinity;
        rows.logits[2 * kStride + 3] = -kInfinity;
        std::fill_n(rows.logits.begin() + 3 * kStride, 64, -kInfinity);
        rows.run(kernel, 64, 64, true);
        EXPECT_TRUE(std::isnan(rows.sum[0]) && std::isnan(rows.sum[1]));
        EXPECT_EQ(rows.probabilities(2, 64)[3], 0);
        EXPECT_GT(rows.sum[2], 1);
        EXPECT_EQ(rows.sum[3], 0);  // and 0 / 0 is NaN
        rows.fill(5, 1);            // finite logits after none
        rows.run(kernel, 64, 64, false);
        EXPECT_GT(rows.sum[3], 1);
        EXPECT_EQ(rows.out[3 * kChannels], 0);
    }
}

}  // namespace
}  // namespace zoetrope::kernels
