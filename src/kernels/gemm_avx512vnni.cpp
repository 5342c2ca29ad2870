#include "kernels/gemm_avx512.h"

namespace zoetrope::kernels {
namespace {

struct Int8 : GemmAvx512 {
    using Sum = __m512i;
    using Column = __m512i;
    static constexpr int kLanes = 16, kColumnBytes = 4, kElements = 4;

    static Sum zero() { return _mm512_setzero_si512(); }
    static __m512i word(const std::uint32_t* at) {
        return _mm512_set1_epi32(static_cast<int>(*at));
    }
    static Column column(const char* at) { return _mm512_loadu_si512(at); }
    static Sum dot(__m512i word, Column column, Sum sum) {
        return _mm512_dpbusd_epi32(sum, word, column);
    }
    static void flush(float* at, Sum sum, bool add, float) {
        _mm512_storeu_si512(at, add ? _mm512_add_epi32(_mm512_loadu_si512(at), sum) : sum);
    }
};

// To nearest, within +-127; the conversion makes NaN the lowest int, hence -127.
__m512i quantise(__m512 x, __m512 inverse) {
    const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
    return _mm512_max_epi32(_mm512_min_epi32(rounded, _mm512_set1_epi32(127)),
                            _mm512_set1_epi32(-127));
}

void measure_rows(const GemmRows& call) {
    for (int i = 0; i < call.rows; ++i) {
        const void* row = row_at(call.source, call.type, i * call.stride);
        __m512 largest = _mm512_setzero_ps(), unordered = _mm512_setzero_ps();
        for (int k = 0; k < call.elements; k += 16) {
            const __m512 x = load_numbers(row, call.type, k, call.elements);
            largest = _mm512_max_ps(_mm512_abs_ps(x), largest);
            unordered = _mm512_mask_mov_ps(unordered, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
        }
        const float factor = _mm512_reduce_max_ps(largest) / 127;
        // NaN stays what it was in the row; other rows add nothing.
        call.factors[i] = factor + _mm512_reduce_add_ps(unordered);
    }
}

void pack_rows(const GemmRows& call) {
    for (int i = 0; i < call.rows; ++i) {
        const void* row = row_at(call.source, call.type, i * call.stride);
        auto* bytes = reinterpret_cast<std::int8_t*>(call.words + i * call.words_stride);
        const __m512 inverse = _mm512_set1_ps(1 / call.factors[i]);
        const int filled = (call.elements + 3) / 4 * 4;
        for (int k = 0; k < filled; k += 16) {
            const __m512i x = quantise(load_numbers(row, call.type, k, call.elements), inverse);
            _mm_mask_storeu_epi8(bytes + k, first_lanes(filled - k),
                                 _mm512_cvtepi32_epi8(_mm512_add_epi32(x, _mm512_set1_epi32(128))));
        }
    }
}

// Words of four depths, column by column; the source is int8 already.
void pack_columns(const GemmColumns& call) {
    constexpr int kPanel = kGemmAvx512Vnni.columns;
    auto* words = static_cast<std::uint32_t*>(call.panel);
    const auto* source = static_cast<const std::int8_t*>(call.source);
    for (int k = 0; k < call.elements; k += 4) {
        const auto count = static_cast<std::size_t>(call.elements - k < 4 ? call.elements - k : 4);
        for (int j = 0; j < kPanel; ++j) {
            std::uint32_t word = 0;
            if (j < call.columns) std::memcpy(&word, source + j * call.stride + k, count);
            *words++ = word;
        }
    }
}

void finish(const GemmFinish& call) {
    finish_avx512<Int8>(call, [&](int i, int j, __mmask16 mask) {
        const __m512i sums = _mm512_maskz_loadu_epi32(mask, call.sums + i * call.sums_stride + j);
        const __m512i shift =
            _mm512_slli_epi32(_mm512_maskz_loadu_epi32(mask, call.column_sums + j), 7);
        const __m512 x = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, shift));
        return _mm512_mul_ps(_mm512_mul_ps(x, _mm512_maskz_loadu_ps(mask, call.column_factors + j)),
                             _mm512_set1_ps(call.row_factors[i]));
    });
}

}  // namespace

GemmKernel gemm_avx512vnni() {
    return {kGemmAvx512Vnni,           measure_rows, pack_rows, pack_columns,
            GemmBlock<Int8>::multiply, finish};
}

}  // namespace zoetrope::kernels
