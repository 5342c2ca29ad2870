#include "kernels/gemm_avx512.h"

namespace zoetrope::kernels {
namespace {

struct Bf16 : GemmAvx512 {
    using Sum = __m512;
    using Column = __m512bh;
    static constexpr int kLanes = 16, kColumnBytes = 4, kElements = 2;

    static __m256i to_bf16(Vector x) { return (__m256i)_mm512_cvtneps_pbh(x); }
    static Sum zero() { return _mm512_setzero_ps(); }
    static __m512bh word(const std::uint32_t* at) {
        return (__m512bh)_mm512_set1_epi32(static_cast<int>(*at));
    }
    static Column column(const char* at) { return (__m512bh)_mm512_loadu_ps(at); }
    static Sum dot(__m512bh word, Column column, Sum sum) {
        return _mm512_dpbf16_ps(sum, word, column);
    }
    static void flush(float* at, Sum sum, bool add, float) {
        _mm512_storeu_ps(at, add ? _mm512_add_ps(_mm512_loadu_ps(at), sum) : sum);
    }
    // Lane by lane (v0, v1).
    static void store_columns(char* at, const Vector (&v)[2]) {
        const __m512i low = _mm512_cvtepu16_epi32(to_bf16(v[0]));
        const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(to_bf16(v[1])), 16);
        _mm512_storeu_si512(at, _mm512_or_si512(low, high));
    }
    // 32 numbers in their order.
    static void store_words(std::uint32_t* at, const Vector (&v)[2], __mmask16 mask) {
        _mm512_mask_storeu_epi32(at, mask, (__m512i)_mm512_cvtne2ps_pbh(v[1], v[0]));
    }
};

}  // namespace

GemmKernel gemm_avx512bf16() {
    return {kGemmAvx512Bf16,           nullptr,
            pack_rows_avx512<Bf16>,    pack_columns_avx512<Bf16>,
            GemmBlock<Bf16>::multiply, finish_floats<Bf16>};
}

}  // namespace zoetrope::kernels
