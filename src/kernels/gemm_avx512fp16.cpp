#include "kernels/gemm_avx512.h"

namespace zoetrope::kernels {
namespace {

struct Fp16 : GemmAvx512 {
    using Sum = __m512h;
    using Column = __m512h;
    static constexpr int kLanes = 32, kColumnBytes = 2, kChunk = kGemmFp16Chunk;
    static constexpr bool kScales = true;

    static __m256i to_bf16(Vector x) { return (__m256i)_mm512_cvtneps_pbh(x); }
    static Sum zero() { return _mm512_setzero_ph(); }
    // A word holds its number twice: broadcasting 32 bits costs no arithmetic port, 16 bits do.
    static __m512h word(const std::uint32_t* at) {
        return _mm512_castsi512_ph(_mm512_set1_epi32(static_cast<int>(*at)));
    }
    static Column column(const char* at) { return _mm512_loadu_ph(at); }
    static Sum dot(__m512h word, Column column, Sum sum) {
        return _mm512_fmadd_ph(word, column, sum);
    }
    static void flush(float* at, Sum sum, bool add, float factor) {
        const __m512i bits = _mm512_castph_si512(sum);
        const __m512 parts[2] = {
            _mm512_cvtxph_ps(_mm256_castsi256_ph(_mm512_castsi512_si256(bits))),
            _mm512_cvtxph_ps(_mm256_castsi256_ph(_mm512_extracti64x4_epi64(bits, 1)))};
        const __m512 scale = _mm512_set1_ps(factor);
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
            _mm512_storeu_ps(at + 16 * i,
                             add ? _mm512_fmadd_ps(parts[i], scale, _mm512_loadu_ps(at + 16 * i))
                                 : _mm512_mul_ps(parts[i], scale));
        }
    }
    static __m256i half(Vector v) {
        return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    static void store_columns(char* at, const Vector (&v)[1]) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), half(v[0]));
    }
    static void store_words(std::uint32_t* at, const Vector (&v)[1], __mmask16 mask) {
        const __m512i once = _mm512_cvtepu16_epi32(half(v[0]));
        _mm512_mask_storeu_epi32(at, mask, _mm512_or_si512(once, _mm512_slli_epi32(once, 16)));
    }
};

}  // namespace

GemmKernel gemm_avx512fp16() {
    return {kGemmAvx512Fp16,           nullptr,
            pack_rows_avx512<Fp16>,    pack_columns_avx512<Fp16>,
            GemmBlock<Fp16>::multiply, finish_floats<Fp16>};
}

}  // namespace zoetrope::kernels
