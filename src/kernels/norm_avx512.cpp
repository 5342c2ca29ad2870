// GCC 12 takes the undefined vector that its own intrinsics pass on for an uninitialised variable
// (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include <immintrin.h>

#include "kernels/norm_rows.h"

namespace zoetrope::kernels {
namespace {

struct Avx512 {
    using Vector = __m512;
    static constexpr int kLanes = 16;

    static Vector set(float x) { return _mm512_set1_ps(x); }
    static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
    static Vector sub(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
    static Vector mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
    static Vector div(Vector a, Vector b) { return _mm512_div_ps(a, b); }
    static Vector min(Vector a, Vector b) { return _mm512_min_ps(a, b); }
    static Vector max(Vector a, Vector b) { return _mm512_max_ps(a, b); }
    static Vector root(Vector x) { return _mm512_sqrt_ps(x); }
    static Vector round(Vector x) {
        return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    static Vector scale(Vector x, Vector n) { return _mm512_scalef_ps(x, n); }
    static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
    static float sum(Vector x) { return _mm512_reduce_add_ps(x); }

    static Vector rotate(Vector x, Vector cos, Vector sin) {
        const Vector neighbours = _mm512_permute_ps(x, 0xB1);
        return _mm512_fmaddsub_ps(x, cos, _mm512_mul_ps(neighbours, sin));
    }

    static __mmask16 first(int count) {
        return static_cast<__mmask16>(count >= kLanes ? 0xFFFF : count <= 0 ? 0 : (1 << count) - 1);
    }
    static Vector mask(Vector x, int count) { return _mm512_maskz_mov_ps(first(count), x); }
    static Vector load(const float* at, int count) {
        return count >= kLanes ? _mm512_loadu_ps(at) : _mm512_maskz_loadu_ps(first(count), at);
    }
    static void store(float* at, Vector x, int count) {
        count >= kLanes ? _mm512_storeu_ps(at, x) : _mm512_mask_storeu_ps(at, first(count), x);
    }
    static Vector spread(const float* at, int count) {
        const __m512i from = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        return _mm512_permutexvar_ps(from, _mm512_maskz_loadu_ps(first(count), at));
    }

    // A number is the upper half of a word.
    static void widen(const Bf16* at, Vector& low, Vector& high) {
        const __m512i all = _mm512_loadu_si512(at);
        const __m512i from = _mm512_set_epi16(15, 0, 14, 0, 13, 0, 12, 0, 11, 0, 10, 0, 9, 0, 8, 0,
                                              7, 0, 6, 0, 5, 0, 4, 0, 3, 0, 2, 0, 1, 0, 0, 0);
        const __m512i behind = _mm512_add_epi16(from, _mm512_set1_epi16(16));
        low = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, from, all));
        high = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, behind, all));
    }
    static void narrow(Bf16* at, Vector low, Vector high) {
        const __m512i from =
            _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29,
                             27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
        _mm512_storeu_si512(at, _mm512_permutex2var_epi16(rounded(low), from, rounded(high)));
    }
    // The upper halves are x to nearest even; NaN becomes the usual one, lest the sum wrap round.
    // (The instruction of AVX512-BF16 would make zeros of subnormal numbers.)
    static __m512i rounded(Vector x) {
        const __m512i usual_nan = _mm512_set1_epi32(0x33);
        const __m512i bits = _mm512_castps_si512(_mm512_fixupimm_ps(x, x, usual_nan, 0));
        const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
        const __m512i sum = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
        return _mm512_mask_add_epi32(sum, odd, sum, _mm512_set1_epi32(1));
    }
};

}  // namespace

constinit const NormKernels norm_avx512 = NormTable<Pair<Avx512>>::kKernels;

}  // namespace zoetrope::kernels
