#include "kernels/attention_avx512.h"

#include "kernels/attention_block.h"

namespace zoetrope::kernels {
namespace {

struct BFloat16 : Avx512 {
    static constexpr AttentionLayout kLayout = kAttentionAvx512Bf16;

    // Relative error 3e-6: a thousandth of what rounding P to bf16 costs.
    static Vector exp2(Vector x) {
        constexpr float kCoefficients[] = {0.6930448412895203F, 0.2412802129983902F,
                                           0.0522424578666687F, 0.013426692225039005F};
        return Avx512::exp2(x, kCoefficients);
    }
    static __m512bh broadcast(const float* word) { return (__m512bh)_mm512_set1_ps(*word); }
    static Vector dot(__m512bh word, Vector column, Vector sum) {
        return _mm512_dpbf16_ps(sum, word, (__m512bh)column);
    }
    // Lane by lane (p0, p1), rounded to nearest even. The conversion gives the 16 of p0, then those
    // of p1.
    static Vector pair(Vector p0, Vector p1) {
        const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(p1, p0);
        const __m512i low = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        const __m512i high = _mm512_slli_epi32(_mm512_add_epi32(low, _mm512_set1_epi32(16)), 16);
        return (Vector)_mm512_permutexvar_epi16(_mm512_or_si512(low, high), halves);
    }
    // The sum is that of the rounded probabilities, those which weigh the values.
    static Vector add_pair(Vector sum, Vector p) {
        return _mm512_dpbf16_ps(sum, (__m512bh)p, (__m512bh)_mm512_set1_epi32(0x3f803f80));
    }
    static const void* row(const void* q, std::int64_t elements) {
        return static_cast<const std::uint16_t*>(q) + elements;
    }
    static void store_row(void* out, std::int64_t elements, Vector x) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<std::uint16_t*>(out) + elements),
                            (__m256i)_mm512_cvtneps_pbh(x));
    }
};

}  // namespace

void attention_avx512bf16(const AttentionCall& call) { AttentionBlock<BFloat16>(call).run(); }

}  // namespace zoetrope::kernels
