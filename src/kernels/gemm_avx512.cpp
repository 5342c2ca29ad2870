#include "kernels/gemm_avx512.h"

namespace zoetrope::kernels {
namespace {

struct Fp32 : GemmAvx512 {
    using Sum = __m512;
    using Column = __m512;
    static constexpr int kLanes = 16, kColumnBytes = 4;

    static Sum zero() { return _mm512_setzero_ps(); }
    static __m512 word(const std::uint32_t* at) {
        return _mm512_set1_ps(*reinterpret_cast<const float*>(at));
    }
    static Column column(const char* at) { return _mm512_loadu_ps(at); }
    static Sum dot(__m512 word, Column column, Sum sum) {
        return _mm512_fmadd_ps(word, column, sum);
    }
    static void flush(float* at, Sum sum, bool add, float) {
        _mm512_storeu_ps(at, add ? _mm512_add_ps(_mm512_loadu_ps(at), sum) : sum);
    }
    static void store_columns(char* at, const Vector (&v)[1]) { _mm512_storeu_ps(at, v[0]); }
    static void store_words(std::uint32_t* at, const Vector (&v)[1], __mmask16 mask) {
        _mm512_mask_storeu_ps(at, mask, v[0]);
    }
};

}  // namespace

GemmKernel gemm_avx512() {
    return {kGemmAvx512,
            nullptr,
            pack_rows_avx512<Fp32>,
            pack_columns_avx512<Fp32>,
            GemmBlock<Fp32>::multiply,
            finish_floats<Fp32>};
}

}  // namespace zoetrope::kernels
