#include "kernels/softmax.h"

#include "kernels/attention_avx512.h"

#include <cstddef>

namespace zoetrope::kernels {
namespace {

constexpr float kLowest = -3.4028234663852886e38F;  // finite: -inf less it is -inf

// Relative error 3e-6: a thousandth of what rounding to bf16 costs.
__m512 exp2(__m512 x) {
    constexpr float kCoefficients[] = {0.6930448412895203F, 0.2412802129983902F,
                                       0.0522424578666687F, 0.013426692225039005F};
    return Avx512::exp2(x, kCoefficients);
}

// The largest logit; NaN is passed over and comes back through its own exponential.
float largest(const float* row, int keys) {
    const __m512 none = _mm512_set1_ps(-__builtin_inff());
    __m512 top = none;
    for (int key = 0; key < keys; key += 16)
        top = _mm512_max_ps(_mm512_mask_loadu_ps(none, first_lanes(keys - key), row + key), top);
    return _mm512_reduce_max_ps(top);
}

}  // namespace

void softmax_rows_avx512bf16(const SoftmaxRows& call) {
    const __m512bh ones = (__m512bh)_mm512_set1_epi32(0x3f803f80);
    for (int i = 0; i < call.rows; ++i) {
        float* row = call.logits + i * call.stride;
        const float before = call.first ? kLowest : call.maximum[i];
        const float scaled = largest(row, call.keys) * call.scale;
        const __m512 top = _mm512_set1_ps(scaled > before ? scaled : before);
        const __m512 scale = _mm512_set1_ps(call.scale);
        const auto exponentials = [&](int key) {
            const __mmask16 mask = first_lanes(call.keys - key);
            const __m512 x = _mm512_maskz_loadu_ps(mask, row + key);
            return _mm512_maskz_mov_ps(mask, exp2(_mm512_fmsub_ps(x, scale, top)));
        };
        __m512 sum = _mm512_setzero_ps();
        for (int key = 0; key < call.padded; key += 32) {
            const __m512 p0 = exponentials(key), p1 = exponentials(key + 16);
            const __m512bh p = _mm512_cvtne2ps_pbh(p1, p0);
            sum = _mm512_dpbf16_ps(sum, p, ones);
            // Behind what has been read.
            _mm512_storeu_si512(reinterpret_cast<char*>(row) + 2 * key, (__m512i)p);
        }
        const __m512 decay = exp2(_mm512_sub_ps(_mm512_set1_ps(before), top));
        const float factor = _mm512_cvtss_f32(decay);
        const float total = _mm512_reduce_add_ps(sum);
        call.sum[i] = call.first ? total : call.sum[i] * factor + total;
        call.maximum[i] = _mm512_cvtss_f32(top);
        if (call.first || factor == 1) continue;
        float* out = call.out + static_cast<std::ptrdiff_t>(i) * call.channels;
        for (int d = 0; d < call.channels; d += 16)
            _mm512_storeu_ps(out + d, _mm512_mul_ps(_mm512_loadu_ps(out + d), decay));
    }
}

void softmax_finish_avx512bf16(const SoftmaxFinish& call) {
    for (int i = 0; i < call.rows; ++i) {
        const __m512 inverse = _mm512_set1_ps(1 / call.sum[i]);
        const float* out = call.out + static_cast<std::ptrdiff_t>(i) * call.channels;
        std::uint16_t* bf16 = call.bf16 + i * call.bf16_stride;
        for (int d = 0; d < call.channels; d += 16) {
            const __m512 x = _mm512_mul_ps(_mm512_loadu_ps(out + d), inverse);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(bf16 + d),
                                (__m256i)_mm512_cvtneps_pbh(x));
        }
    }
}

}  // namespace zoetrope::kernels
