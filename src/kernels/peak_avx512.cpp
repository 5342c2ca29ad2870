#include "kernels/peak.h"

#include <immintrin.h>

namespace zoetrope::kernels {

double peak_fp32_avx512(std::int64_t iterations, float* sink) {
    constexpr int kChains = 24;  // two units of latency 4 need 8; 32 registers less the operands
    __m512 sums[kChains];
#pragma GCC unroll 24
    for (int c = 0; c < kChains; ++c)  // no two alike, lest they be computed once
        sums[c] = _mm512_set1_ps(static_cast<float>(c));
    const __m512 a = _mm512_set1_ps(1.0000001F), b = _mm512_set1_ps(1e-9F);
    for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 24
        for (__m512& sum : sums) sum = _mm512_fmadd_ps(sum, a, b);
    }
#pragma GCC unroll 24
    for (int c = 1; c < kChains; ++c) sums[0] = _mm512_add_ps(sums[0], sums[c]);
    float lanes[16];
    _mm512_storeu_ps(lanes, sums[0]);
    *sink += lanes[0] + lanes[15];
    return 2.0 * 16 * kChains * static_cast<double>(iterations);
}

}  // namespace zoetrope::kernels
