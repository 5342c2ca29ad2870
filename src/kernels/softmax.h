// The softmax between the two products of attention, on rows of logits: the contract of its
// kernels.
//
// For products that give whole rows (ops/brgemm.h). NaN and infinity behave as in the formula: a
// row with a logit of +inf or NaN, or of -inf alone, is NaN. Kernels allocate nothing, start no
// threads and may run in many threads at once.
#pragma once

#include <cstdint>

namespace zoetrope::kernels {

// One block of keys: rows of logits become probabilities relative to the largest logit so far.
struct SoftmaxRows {
    // [rows][stride]; of each row the first `keys` are read, and bf16 probabilities are written
    // over them from the row's beginning, zeros from `keys` to `padded`.
    float* logits = nullptr;
    std::int64_t stride = 0;
    int rows = 0, keys = 0;
    int padded = 0;            // a multiple of 32
    float scale = 0;           // of the logits, times log2(e); positive
    bool first = true;         // no keys before these
    float* maximum = nullptr;  // [rows] of the scaled logits; read unless first, and written
    float* sum = nullptr;      // [rows] of the rounded probabilities; likewise
    // [rows][channels]: what the keys before these gave, brought to the new maximum; unless first
    float* out = nullptr;
    int channels = 0;  // a multiple of 16
};

// Rows over their sums, to bf16.
struct SoftmaxFinish {
    const float* out = nullptr;  // [rows][channels]
    const float* sum = nullptr;  // [rows]
    int rows = 0, channels = 0;
    std::uint16_t* bf16 = nullptr;  // [rows][bf16_stride]
    std::int64_t bf16_stride = 0;
};

void softmax_rows_ref(const SoftmaxRows& call);
void softmax_rows_avx512bf16(const SoftmaxRows& call);
void softmax_finish_ref(const SoftmaxFinish& call);
void softmax_finish_avx512bf16(const SoftmaxFinish& call);

}  // namespace zoetrope::kernels
