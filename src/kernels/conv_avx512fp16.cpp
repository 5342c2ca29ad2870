#include "kernels/conv_avx512.h"

namespace zoetrope::kernels {
namespace {

struct Fp16Words {
    static constexpr int kElements = 1;
    static void store_words(std::uint32_t* at, const __m512 (&v)[1], __mmask16 mask) {
        const __m512i once = _mm512_cvtepu16_epi32(
            _mm512_cvtps_ph(v[0], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        _mm512_mask_storeu_epi32(at, mask, _mm512_or_si512(once, _mm512_slli_epi32(once, 16)));
    }
};

float largest(const float* numbers, std::int64_t count) {
    __m512 found = _mm512_setzero_ps();
    for (std::int64_t i = 0; i < count; i += 16) {
        const auto left = static_cast<int>(count - i < 16 ? count - i : 16);
        // The second operand is the result where one is NaN.
        found = _mm512_max_ps(_mm512_abs_ps(_mm512_maskz_loadu_ps(first_lanes(left), numbers + i)),
                              found);
    }
    return _mm512_reduce_max_ps(found);
}

}  // namespace

ConvKernel conv_avx512fp16() { return {pack_avx512<Fp16Words>, finish_pixels, largest}; }

}  // namespace zoetrope::kernels
