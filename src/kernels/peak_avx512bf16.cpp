#include "kernels/peak.h"

#include <immintrin.h>

namespace zoetrope::kernels {

double peak_bf16_avx512bf16(std::int64_t iterations, float* sink) {
    constexpr int kChains = 24;  // latency 6, one unit or two: 12 would do
    __m512 sums[kChains];
#pragma GCC unroll 24
    for (int c = 0; c < kChains; ++c)  // no two alike, lest they be computed once
        sums[c] = _mm512_set1_ps(static_cast<float>(c));
    const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f803f80);  // pairs of 1.0
    const __m512bh b = (__m512bh)_mm512_set1_epi32(0x30003000);  // pairs of 2^-31
    for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 24
        for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, a, b);
    }
#pragma GCC unroll 24
    for (int c = 1; c < kChains; ++c) sums[0] = _mm512_add_ps(sums[0], sums[c]);
    float lanes[16];
    _mm512_storeu_ps(lanes, sums[0]);
    *sink += lanes[0] + lanes[15];
    return 2.0 * 2 * 16 * kChains * static_cast<double>(iterations);
}

}  // namespace zoetrope::kernels
