#include "kernels/peak.h"

#include <immintrin.h>

namespace zoetrope::kernels {

double peak_fp16_avx512fp16(std::int64_t iterations, float* sink) {
    constexpr int kChains = 24;  // two units of latency 4 need 8; 32 registers less the operands
    __m512h sums[kChains];
#pragma GCC unroll 24
    for (int c = 0; c < kChains; ++c)  // no two alike, lest they be computed once
        sums[c] = _mm512_set1_ph(static_cast<_Float16>(c));
    const __m512h a = _mm512_set1_ph(static_cast<_Float16>(1)),
                  b = _mm512_set1_ph(static_cast<_Float16>(0.001));
    for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 24
        for (__m512h& sum : sums) sum = _mm512_fmadd_ph(sum, a, b);
    }
#pragma GCC unroll 24
    for (int c = 1; c < kChains; ++c) sums[0] = _mm512_add_ph(sums[0], sums[c]);
    _Float16 lanes[32];
    _mm512_storeu_ph(lanes, sums[0]);
    *sink += static_cast<float>(lanes[0]) + static_cast<float>(lanes[31]);
    return 2.0 * 32 * kChains * static_cast<double>(iterations);
}

}  // namespace zoetrope::kernels
