#include <immintrin.h>

#include "kernels/attention_block.h"

namespace zoetrope::kernels {
namespace {

struct Avx2 {
    using Vector = __m256;
    static constexpr int kLanes = 8, kWords = 8;
    static constexpr int kVectors = 3, kRows = 4;  // 12 of the 16 registers hold sums
    static constexpr AttentionLayout kLayout = kAttentionAvx2;

    static Vector zero() { return _mm256_setzero_ps(); }
    static Vector set(float x) { return _mm256_set1_ps(x); }
    static Vector load(const float* at) { return _mm256_loadu_ps(at); }
    static void store(float* at, Vector x) { _mm256_storeu_ps(at, x); }
    static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
    static Vector sub(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
    static Vector mul(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
    static Vector div(Vector a, Vector b) { return _mm256_div_ps(a, b); }
    static Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }  // b where one is NaN
    static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
    static Vector multiply_subtract(Vector a, Vector b, Vector c) {
        return _mm256_fmsub_ps(a, b, c);
    }
    static Vector broadcast(const float* word) { return _mm256_broadcast_ss(word); }
    static Vector dot(Vector word, Vector column, Vector sum) {
        return _mm256_fmadd_ps(word, column, sum);
    }

    // 2^x = 2^floor(x) (1 + f c[0] + f^2 c[1] + ...) with f = x - floor(x); zero below 2^-126. The
    // coefficients minimise the largest relative error on [0, 1] (Remez), that at 0 being none:
    // 7e-8, rounding included.
    static Vector exp2(Vector x) {
        constexpr float kCoefficients[] = {0.6931470632553101F,    0.2402293086051941F,
                                           0.055485282093286514F,  0.00967545248568058F,
                                           0.0012467842316254973F, 0.00021612925047520548F};
        x = max(set(-127.0F), x);  // NaN stays
        const Vector whole = _mm256_floor_ps(x);
        const Vector f = sub(x, whole);
        Vector sum = set(kCoefficients[5]);
#pragma GCC unroll 8
        for (int i = 4; i >= 0; --i) sum = multiply_add(sum, f, set(kCoefficients[i]));
        sum = multiply_add(sum, f, set(1.0F));
        const __m256i exponent =
            _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
        return mul(sum, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
    }

    // 8 x 8 words: first within 128 bits, then the halves.
    static void transpose(Vector (&rows)[8]) {
        Vector part[8];
#pragma GCC unroll 4
        for (int i = 0; i < 8; i += 4) {
            const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(rows[i], rows[i + 1]));
            const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(rows[i], rows[i + 1]));
            const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(rows[i + 2], rows[i + 3]));
            const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(rows[i + 2], rows[i + 3]));
            part[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
            part[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
            part[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
            part[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            rows[i] = _mm256_permute2f128_ps(part[i], part[i + 4], 0x20);
            rows[i + 4] = _mm256_permute2f128_ps(part[i], part[i + 4], 0x31);
        }
    }

    static const void* row(const void* q, std::int64_t elements) {
        return static_cast<const float*>(q) + elements;
    }
    // `count` is 8: head sizes are multiples of 16.
    static Vector load_words(const void* row, std::int64_t word, int /*count*/) {
        return _mm256_loadu_ps(static_cast<const float*>(row) + word);
    }
    static void store_row(void* out, std::int64_t elements, Vector x) {
        _mm256_storeu_ps(static_cast<float*>(out) + elements, x);
    }
};

}  // namespace

void attention_avx2(const AttentionCall& call) { AttentionBlock<Avx2>(call).run(); }

}  // namespace zoetrope::kernels
