#include "kernels/conv_avx512.h"

namespace zoetrope::kernels {
namespace {

struct Bf16Words {
    static constexpr int kElements = 2;
    static void store_words(std::uint32_t* at, const __m512 (&v)[2], __mmask16 mask) {
        _mm512_mask_storeu_epi32(at, mask, (__m512i)_mm512_cvtne2ps_pbh(v[1], v[0]));
    }
};

}  // namespace

ConvKernel conv_avx512bf16() { return {pack_avx512<Bf16Words>, finish_pixels, nullptr}; }

}  // namespace zoetrope::kernels
