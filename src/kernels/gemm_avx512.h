// What the AVX-512 product kernels share: packing, and results from sums. M is one of their
// register files (gemm_block.h), which offers as well: kElements of a word, store_columns(panel, v)
// and store_words(at, v, mask) for kElements vectors of 16 numbers that follow each other in depth,
// and to_bf16(x). Internal linkage: each file that includes this has its own copy.
#pragma once

// GCC 12 takes the undefined vectors of its own intrinsics for uninitialised ones (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"

#include "kernels/attention_avx512.h"
#include "kernels/gemm_block.h"

#include <cstring>

namespace zoetrope::kernels {
namespace {

struct GemmAvx512 {
    using Vector = __m512;
    static constexpr int kElements = 1;  // of depth per word
    static constexpr int kChunk = 0;
    static constexpr bool kScales = false;  // whether rows and panels are scaled by powers of two

    static __m256i to_bf16(Vector x) {  // to nearest even, NaN stays NaN
        const __m512i bits = _mm512_castps_si512(x);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        const __m512i rounded =
            _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
        const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
        const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
        return _mm512_cvtepi32_epi16(
            _mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16));
    }
};

inline __m512 widen(__m256i bf16) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16));
}

// Numbers [first, first + 16) of a row, zeros behind `elements`.
inline __m512 load_numbers(const void* row, GemmSource type, int first, int elements) {
    const __mmask16 mask = first_lanes(elements - first);
    if (type == GemmSource::fp32)
        return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(row) + first);
    if (type == GemmSource::int8)
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(
            _mm_maskz_loadu_epi8(mask, static_cast<const std::int8_t*>(row) + first)));
    return widen(_mm256_maskz_loadu_epi16(mask, static_cast<const std::uint16_t*>(row) + first));
}

inline const void* row_at(const void* source, GemmSource type, std::int64_t element) {
    const int bytes = type == GemmSource::fp32 ? 4 : type == GemmSource::bf16 ? 2 : 1;
    return static_cast<const char*>(source) + element * bytes;
}

// Largest magnitude lane by lane of what `load(k)` gives 16 at a time; NaN is passed over.
template <class Load>
__m512 max_magnitudes(const Load& load, int elements, __m512 so_far) {
    for (int k = 0; k < elements; k += 16) so_far = _mm512_max_ps(_mm512_abs_ps(load(k)), so_far);
    return so_far;
}

// The power of two above `largest`; 1 for nothing and for infinity.
inline float power_above(float largest) {
    std::uint32_t bits;
    std::memcpy(&bits, &largest, sizeof bits);
    const std::uint32_t exponent = bits >> 23;
    bits = exponent == 0 || exponent >= 253 ? 127U << 23 : (exponent + 1) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return power;
}

template <class M>
void pack_rows_avx512(const GemmRows& call) {
    for (int i = 0; i < call.rows; ++i) {
        const void* row = row_at(call.source, call.type, i * call.stride);
        std::uint32_t* words = call.words + i * call.words_stride;
        float inverse = 1;
        if constexpr (M::kScales) {
            const __m512 largest = max_magnitudes(
                [&](int k) { return load_numbers(row, call.type, k, call.elements); },
                call.elements, _mm512_setzero_ps());
            call.factors[i] = power_above(_mm512_reduce_max_ps(largest));
            inverse = 1 / call.factors[i];
        }
        const __m512 scale = _mm512_set1_ps(inverse);
        for (int k = 0; k < call.elements; k += 16 * M::kElements) {
            __m512 v[M::kElements];
            for (int e = 0; e < M::kElements; ++e)
                v[e] =
                    _mm512_mul_ps(load_numbers(row, call.type, k + 16 * e, call.elements), scale);
            const int left = (call.elements - k + M::kElements - 1) / M::kElements;
            M::store_words(words + k / M::kElements, v, first_lanes(left));
        }
    }
}

// Numbers [k, k + 16) of column j, with its scale and addend.
inline __m512 load_column(const GemmColumns& call, int j, int k) {
    __m512 x =
        load_numbers(row_at(call.source, call.type, j * call.stride), call.type, k, call.elements);
    if (call.scales != nullptr) x = _mm512_mul_ps(x, _mm512_set1_ps(call.scales[j]));
    if (call.addend == nullptr) return x;
    const __mmask16 mask = first_lanes(call.elements - k);
    return _mm512_add_ps(x, _mm512_maskz_loadu_ps(mask, call.addend + j * call.addend_stride + k));
}

template <class M>
void pack_columns_avx512(const GemmColumns& call) {
    constexpr int kPanel = GemmBlock<M>::kColumns;
    __m512 scale = _mm512_set1_ps(1.0F);
    if constexpr (M::kScales) {
        __m512 largest = _mm512_setzero_ps();
        for (int j = 0; j < call.columns; ++j)
            largest = max_magnitudes([&](int k) { return load_column(call, j, k); }, call.elements,
                                     largest);
        *call.factor = power_above(_mm512_reduce_max_ps(largest));
        scale = _mm512_set1_ps(1 / *call.factor);
    }
    for (int j = 0; j < kPanel; j += 16) {
        for (int k = 0; k < call.elements; k += 16) {
            __m512 tile[16];
#pragma GCC unroll 16
            for (int i = 0; i < 16; ++i) {
                tile[i] = j + i < call.columns ? load_column(call, j + i, k) : _mm512_setzero_ps();
            }
            Avx512::transpose(tile);
            char* at = static_cast<char*>(call.panel) + j * M::kColumnBytes;
            constexpr int kStep = kPanel * M::kColumnBytes;
            for (int e = 0; e < 16 && k + e < call.elements; e += M::kElements) {
                __m512 v[M::kElements];
                for (int p = 0; p < M::kElements; ++p) v[p] = _mm512_mul_ps(tile[e + p], scale);
                M::store_columns(at + static_cast<std::ptrdiff_t>((k + e) / M::kElements) * kStep,
                                 v);
            }
        }
    }
}

// x / (1 + 2^(-z log2 e)) with a relative error of about 1e-6.
inline __m512 times_sigmoid(__m512 x, __m512 z) {
    constexpr float kCoefficients[] = {0.6931471805599453F,    0.2402265069591007F,
                                       0.05550410866482158F,   0.009618129107628477F,
                                       0.0013333558146428443F, 0.00015403530393381606F};
    const __m512 power =
        Avx512::exp2(_mm512_mul_ps(z, _mm512_set1_ps(-1.4426950408889634F)), kCoefficients);
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0F), power));
}

inline __m512 activate(__m512 x, GemmActivation activation) {
    if (activation == GemmActivation::silu) return times_sigmoid(x, x);
    if (activation == GemmActivation::gelu_tanh) {
        // 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3)
        const __m512 cube =
            _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(2 * 0.7978845608F * 0.044715F),
                            _mm512_set1_ps(2 * 0.7978845608F));
        return times_sigmoid(x, _mm512_mul_ps(cube, x));
    }
    return x;
}

// `load(row, column, mask)` gives 16 sums as numbers.
template <class M, class Load>
void finish_avx512(const GemmFinish& call, const Load& load) {
    for (int i = 0; i < call.rows; ++i) {
        for (int j = 0; j < call.columns; j += 16) {
            const __mmask16 mask = first_lanes(call.columns - j);
            __m512 x = load(i, j, mask);
            if (call.addend != nullptr)
                x = _mm512_add_ps(
                    x, _mm512_maskz_loadu_ps(mask, call.addend + i * call.addend_stride + j));
            if (call.bias != nullptr)
                x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(mask, call.bias + j));
            x = activate(x, call.activation);
            const std::int64_t at = i * call.out_stride + j;
            if (call.type == GemmSource::fp32) {
                _mm512_mask_storeu_ps(static_cast<float*>(call.out) + at, mask, x);
            } else {
                _mm256_mask_storeu_epi16(static_cast<std::uint16_t*>(call.out) + at, mask,
                                         M::to_bf16(x));
            }
        }
    }
}

template <class M>
void finish_floats(const GemmFinish& call) {
    finish_avx512<M>(call, [&](int i, int j, __mmask16 mask) {
        const __m512 x = _mm512_maskz_loadu_ps(mask, call.sums + i * call.sums_stride + j);
        return call.column_factors == nullptr
                   ? x
                   : _mm512_mul_ps(x, _mm512_maskz_loadu_ps(mask, call.column_factors + j));
    });
}

}  // namespace
}  // namespace zoetrope::kernels
