#include "kernels/peak.h"

#include <immintrin.h>

namespace zoetrope::kernels {

double peak_int8_avx512vnni(std::int64_t iterations, float* sink) {
    constexpr int kChains = 24;  // two units of latency 5 need 10; 32 registers less the operands
    __m512i sums[kChains];
#pragma GCC unroll 24
    for (int c = 0; c < kChains; ++c)  // no two alike, lest they be computed once
        sums[c] = _mm512_set1_epi32(c);
    const __m512i a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(-1);
    for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 24
        for (__m512i& sum : sums) {
            // By hand: the compiler would multiply the constants once for all rounds.
            __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
        }
    }
#pragma GCC unroll 24
    for (int c = 1; c < kChains; ++c) sums[0] = _mm512_add_epi32(sums[0], sums[c]);
    std::int32_t lanes[16];
    _mm512_storeu_si512(lanes, sums[0]);
    *sink += static_cast<float>(lanes[0] + lanes[15]);
    return 2.0 * 4 * 16 * kChains * static_cast<double>(iterations);
}

}  // namespace zoetrope::kernels
