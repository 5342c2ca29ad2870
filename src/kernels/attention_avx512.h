// What the AVX-512 attention kernels share; attention_block.h says what it asks of registers.
// Internal linkage: each file that includes this has its own copy.
#pragma once

// GCC 12 takes the undefined vector that its own intrinsics pass on for an uninitialised variable
// (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include "kernels/attention.h"

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

namespace zoetrope::kernels {
namespace {

// None where the count is 0 or less: behind a row's end.
inline __mmask16 first_lanes(int count) {
    const int lanes = std::clamp(count, 0, 16);
    return static_cast<__mmask16>((1U << lanes) - 1);
}

struct Avx512 {
    using Vector = __m512;
    static constexpr int kLanes = 16, kWords = 16;
    static constexpr int kVectors = 3, kRows = 8;  // 24 of the 32 registers hold sums

    static Vector zero() { return _mm512_setzero_ps(); }
    static Vector set(float x) { return _mm512_set1_ps(x); }
    static Vector load(const float* at) { return _mm512_loadu_ps(at); }
    static void store(float* at, Vector x) { _mm512_storeu_ps(at, x); }
    static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
    static Vector sub(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
    static Vector mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
    static Vector div(Vector a, Vector b) { return _mm512_div_ps(a, b); }
    static Vector max(Vector a, Vector b) { return _mm512_max_ps(a, b); }  // b where one is NaN
    static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
    static Vector multiply_subtract(Vector a, Vector b, Vector c) {
        return _mm512_fmsub_ps(a, b, c);
    }

    // 2^x = 2^floor(x) (1 + f c[0] + f^2 c[1] + ...) with f = x - floor(x). The coefficients
    // minimise the largest relative error on [0, 1] (Remez), that at 0 being none.
    template <int degree>
    static Vector exp2(Vector x, const float (&c)[degree]) {
        const Vector f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
        Vector sum = set(c[degree - 1]);
#pragma GCC unroll 8
        for (int i = degree - 2; i >= 0; --i) sum = multiply_add(sum, f, set(c[i]));
        return _mm512_scalef_ps(multiply_add(sum, f, set(1.0F)), x);
    }

    // 16 x 16 words: first within 128 bits, then the 128-bit parts.
    static void transpose(Vector (&rows)[16]) {
        Vector part[16];
#pragma GCC unroll 4
        for (int i = 0; i < 16; i += 4) {
            const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(rows[i], rows[i + 1]));
            const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(rows[i], rows[i + 1]));
            const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(rows[i + 2], rows[i + 3]));
            const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(rows[i + 2], rows[i + 3]));
            part[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
            part[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
            part[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
            part[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            const Vector a = _mm512_shuffle_f32x4(part[i], part[i + 4], 0x44);
            const Vector b = _mm512_shuffle_f32x4(part[i + 8], part[i + 12], 0x44);
            const Vector c = _mm512_shuffle_f32x4(part[i], part[i + 4], 0xEE);
            const Vector d = _mm512_shuffle_f32x4(part[i + 8], part[i + 12], 0xEE);
            rows[i] = _mm512_shuffle_f32x4(a, b, 0x88);
            rows[i + 4] = _mm512_shuffle_f32x4(a, b, 0xDD);
            rows[i + 8] = _mm512_shuffle_f32x4(c, d, 0x88);
            rows[i + 12] = _mm512_shuffle_f32x4(c, d, 0xDD);
        }
    }

    // `count` words from the given one on, zeros behind them.
    static Vector load_words(const void* row, std::int64_t word, int count) {
        const auto mask = static_cast<__mmask16>((1U << count) - 1);
        return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(row) + word);
    }
};

// For the kernels with scaled numbers, whose rows may be bf16 or float32.

// 16 channels of a query from d on.
[[maybe_unused]] __m512 load_query(const AttentionCall& call, int row, int d) {
    const std::int64_t at = row * call.q_stride + d;
    if (!call.bf16_rows) return _mm512_loadu_ps(static_cast<const float*>(call.q) + at);
    const void* halves = static_cast<const std::uint16_t*>(call.q) + at;
    const __m256i bits = _mm256_loadu_si256(static_cast<const __m256i*>(halves));
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
}

// 16 channels of a result, finite, from d on.
[[maybe_unused]] void store_result(const AttentionCall& call, int row, int d, __m512 x) {
    const std::int64_t at = row * call.out_stride + d;
    if (!call.bf16_rows) {
        _mm512_storeu_ps(static_cast<float*>(call.out) + at, x);
        return;
    }
    const __m512i bits = (__m512i)x;  // to nearest even
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    void* halves = static_cast<std::uint16_t*>(call.out) + at;
    _mm256_storeu_si256(static_cast<__m256i*>(halves),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}

// Up to 16 rows of the result from lanes: o [head_size][stride] times `inverse` times the scales of
// V, plus its means.
[[maybe_unused]] void write_scaled_rows(const AttentionCall& call, int row, const float* o,
                                        int stride, __m512 inverse) {
    const int count = call.queries - row < 16 ? call.queries - row : 16;
    for (int d = 0; d < call.head_size; d += 16) {
        __m512 tile[16];
        for (int i = 0; i < 16; ++i) {
            const __m512 scale = _mm512_mul_ps(inverse, _mm512_set1_ps(call.value_scales[d + i]));
            tile[i] = _mm512_fmadd_ps(_mm512_loadu_ps(o + (d + i) * stride), scale,
                                      _mm512_set1_ps(call.value_means[d + i]));
        }
        Avx512::transpose(tile);
        for (int i = 0; i < count; ++i) store_result(call, row + i, d, tile[i]);
    }
}

}  // namespace
}  // namespace zoetrope::kernels
