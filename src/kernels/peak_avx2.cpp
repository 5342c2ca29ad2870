#include "kernels/peak.h"

#include <immintrin.h>

namespace zoetrope::kernels {

double peak_fp32_avx2(std::int64_t iterations, float* sink) {
    constexpr int kChains = 12;  // two units of latency 4 need 8; 16 registers less the operands
    __m256 sums[kChains];
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c)  // no two alike, lest they be computed once
        sums[c] = _mm256_set1_ps(static_cast<float>(c));
    const __m256 a = _mm256_set1_ps(1.0000001F), b = _mm256_set1_ps(1e-9F);
    for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
        for (__m256& sum : sums) sum = _mm256_fmadd_ps(sum, a, b);
    }
#pragma GCC unroll 12
    for (int c = 1; c < kChains; ++c) sums[0] = _mm256_add_ps(sums[0], sums[c]);
    float lanes[8];
    _mm256_storeu_ps(lanes, sums[0]);
    *sink += lanes[0] + lanes[7];
    return 2.0 * 8 * kChains * static_cast<double>(iterations);
}

}  // namespace zoetrope::kernels
