#include "kernels/conv_avx512.h"

namespace zoetrope::kernels {
namespace {

struct Fp32Words {
    static constexpr int kElements = 1;
    static void store_words(std::uint32_t* at, const __m512 (&v)[1], __mmask16 mask) {
        _mm512_mask_storeu_ps(at, mask, v[0]);
    }
};

}  // namespace

ConvKernel conv_avx512() { return {pack_avx512<Fp32Words>, finish_pixels, nullptr}; }

}  // namespace zoetrope::kernels
