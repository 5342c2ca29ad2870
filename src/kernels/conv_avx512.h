// What the AVX-512 convolution kernels share. M offers kElements (of a word) and store_words(at, v,
// mask) for kElements vectors of 16 numbers that follow each other. Internal linkage: each file
// that includes this has its own copy.
#pragma once

#include "kernels/conv.h"
#include "kernels/gemm_avx512.h"

namespace zoetrope::kernels {
namespace {

constexpr float kLeastNorm = 1e-12F;  // eps of torch.nn.functional.normalize

inline float inverse_norm(const float* pixel, int channels) {
    __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int c = 0; c < channels; c += 32) {
        const __m512 a = _mm512_maskz_loadu_ps(first_lanes(channels - c), pixel + c);
        sum[0] = _mm512_fmadd_ps(a, a, sum[0]);
        if (c + 16 >= channels) break;
        const __m512 b = _mm512_maskz_loadu_ps(first_lanes(channels - c - 16), pixel + c + 16);
        sum[1] = _mm512_fmadd_ps(b, b, sum[1]);
    }
    const float squares = _mm512_reduce_add_ps(_mm512_add_ps(sum[0], sum[1]));
    const float norm = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(squares)));
    return 1 / (norm > kLeastNorm ? norm : kLeastNorm);
}

template <class M, bool normed, bool silu>
void pack_pixels(const ConvPack& call) {
    const std::int64_t words_of_pixel = (call.channels + M::kElements - 1) / M::kElements;
    const __m512 factor = _mm512_set1_ps(call.factor);
    for (std::int64_t i = 0; i < call.count; ++i) {
        const float* pixel = call.pixels + i * call.stride;
        std::uint32_t* words = call.words + i * words_of_pixel;
        __m512 inverse = _mm512_setzero_ps();
        if constexpr (normed) inverse = _mm512_set1_ps(inverse_norm(pixel, call.channels));
        for (int c = 0; c < call.channels; c += 16 * M::kElements) {
            __m512 v[M::kElements];
#pragma GCC unroll 2
            for (int e = 0; e < M::kElements; ++e) {
                const int first = c + 16 * e;
                const __mmask16 mask = first_lanes(call.channels - first);
                v[e] = _mm512_maskz_loadu_ps(mask, pixel + first);
                if constexpr (normed) {
                    const __m512 gamma = _mm512_maskz_loadu_ps(mask, call.gamma + first);
                    v[e] = _mm512_mul_ps(_mm512_mul_ps(v[e], inverse), gamma);
                }
                if constexpr (silu) v[e] = times_sigmoid(v[e], v[e]);
                v[e] = _mm512_mul_ps(v[e], factor);
            }
            const int left = (call.channels - c + M::kElements - 1) / M::kElements;
            M::store_words(words + c / M::kElements, v, first_lanes(left));
        }
    }
}

template <class M>
void pack_avx512(const ConvPack& call) {
    if (call.gamma == nullptr) {
        call.silu ? pack_pixels<M, false, true>(call) : pack_pixels<M, false, false>(call);
    } else {
        call.silu ? pack_pixels<M, true, true>(call) : pack_pixels<M, true, false>(call);
    }
}

inline void finish_pixels(const ConvFinish& call) {
    for (std::int64_t i = 0; i < call.count; ++i) {
        const float* sums = call.sums + i * call.sums_stride;
        float* out = call.out + i * call.out_stride;
        for (int c = 0; c < call.channels; c += 16) {
            const __mmask16 mask = first_lanes(call.channels - c);
            __m512 x = _mm512_maskz_loadu_ps(mask, sums + c);
            if (call.bias != nullptr)
                x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(mask, call.bias + c));
            if (call.residual != nullptr) {
                x = _mm512_add_ps(
                    x, _mm512_maskz_loadu_ps(mask, call.residual + i * call.out_stride + c));
            }
            _mm512_mask_storeu_ps(out + c, mask, x);
        }
    }
}

}  // namespace
}  // namespace zoetrope::kernels
