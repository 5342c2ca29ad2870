#include <immintrin.h>

#include "kernels/norm_rows.h"

namespace zoetrope::kernels {
namespace {

struct Avx2 {
    using Vector = __m256;
    static constexpr int kLanes = 8;

    static Vector set(float x) { return _mm256_set1_ps(x); }
    static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
    static Vector sub(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
    static Vector mul(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
    static Vector div(Vector a, Vector b) { return _mm256_div_ps(a, b); }
    static Vector min(Vector a, Vector b) { return _mm256_min_ps(a, b); }
    static Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
    static Vector root(Vector x) { return _mm256_sqrt_ps(x); }
    static Vector round(Vector x) {
        return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    // In two steps, since n may lie beyond one float's exponents: -150 to 128 is met.
    static Vector scale(Vector x, Vector n) {
        const __m256i whole = _mm256_cvtps_epi32(n);
        const __m256i half = _mm256_srai_epi32(whole, 1);
        return mul(mul(x, power_of_two(half)), power_of_two(_mm256_sub_epi32(whole, half)));
    }
    static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
    static float sum(Vector x) {
        __m128 part = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        part = _mm_add_ps(part, _mm_movehl_ps(part, part));
        return _mm_cvtss_f32(_mm_add_ss(part, _mm_movehdup_ps(part)));
    }

    static Vector rotate(Vector x, Vector cos, Vector sin) {
        const Vector neighbours = _mm256_permute_ps(x, 0xB1);
        return _mm256_fmaddsub_ps(x, cos, _mm256_mul_ps(neighbours, sin));
    }

    static __m256i first(int count) {
        const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane);
    }
    static Vector mask(Vector x, int count) {
        return _mm256_and_ps(x, _mm256_castsi256_ps(first(count)));
    }
    static Vector load(const float* at, int count) {
        return count >= kLanes ? _mm256_loadu_ps(at) : _mm256_maskload_ps(at, first(count));
    }
    static void store(float* at, Vector x, int count) {
        count >= kLanes ? _mm256_storeu_ps(at, x) : _mm256_maskstore_ps(at, first(count), x);
    }
    static Vector spread(const float* at, int count) {
        const __m256i from = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
        return _mm256_permutevar8x32_ps(_mm256_maskload_ps(at, first(count)), from);
    }

    // A number is the upper half of a word.
    static void widen(const Bf16* at, Vector& low, Vector& high) {
        const auto* halves = reinterpret_cast<const __m128i*>(at);
        const __m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128(halves));
        const __m256i b = _mm256_cvtepu16_epi32(_mm_loadu_si128(halves + 1));
        low = _mm256_castsi256_ps(_mm256_slli_epi32(a, 16));
        high = _mm256_castsi256_ps(_mm256_slli_epi32(b, 16));
    }
    static void narrow(Bf16* at, Vector low, Vector high) {
        const __m256i mixed = _mm256_packus_epi32(rounded(low), rounded(high));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), _mm256_permute4x64_epi64(mixed, 0xD8));
    }
    // x to nearest even in the lower halves; NaN keeps its bits, lest the sum wrap round.
    static __m256i rounded(Vector x) {
        const __m256i bits = _mm256_castps_si256(x);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        const __m256i bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
        const __m256i number = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_ORD_Q));
        const __m256i sum = _mm256_add_epi32(bits, _mm256_and_si256(bias, number));
        return _mm256_srli_epi32(sum, 16);
    }
    static Vector power_of_two(__m256i n) {
        const __m256i biased = _mm256_add_epi32(n, _mm256_set1_epi32(127));
        return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
    }
};

}  // namespace

constinit const NormKernels norm_avx2 = NormTable<Pair<Avx2>>::kKernels;

}  // namespace zoetrope::kernels
