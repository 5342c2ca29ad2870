// Linear layers with their epilogue, over plain or packed weights.
//
// Pure functions, any thread; they use the operator threads. Errors: internal for a layout tag that
// the device's operator does not take.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>

namespace zoetrope::ops {

// How a matrix lies in memory. Operators check the tag: a mismatch is an error, never garbage.
enum class MatrixLayout {
    plain,      // [out, in], row-major
    int8,       // panels of 8-bit numbers, packed for this CPU by quantise_int8()
    int8_rows,  // [out, in], row-major 8-bit numbers: quantise_int8_rows()
};

// A small addition to a matrix, kept as its factors: data + up down. Adapters are that (LoRA, Hu et
// al. 2021). Both in the dtype that is computed in; undefined: none.
struct LowRank {
    at::Tensor down;  // [rank, in]
    at::Tensor up;    // [out, rank], whatever scales the addition multiplied into it

    bool defined() const { return up.defined(); }
};

struct Matrix {
    at::Tensor data;
    MatrixLayout layout = MatrixLayout::plain;
    // Of 8-bit numbers: what a row of the matrix was divided by.
    at::Tensor factors;  // [out] fp32
    // int8 only: the sum of a row's 8-bit numbers, and the matrix' size.
    at::Tensor sums;  // [out] int32
    std::array<std::int64_t, 2> features = {};
    LowRank low_rank;  // what linear() adds, whatever the layout

    std::int64_t out_features() const {
        return layout == MatrixLayout::int8 ? features[0] : data.size(0);
    }
    std::int64_t in_features() const {
        return layout == MatrixLayout::int8 ? features[1] : data.size(1);
    }
    std::int64_t bytes() const;  // without low_rank
};

enum class Epilogue { none, gelu_tanh, gelu_erf, silu };

struct LinearArgs {
    at::Tensor x;     // [..., in], dtype of the weight
    Matrix weight;    // [out, in]
    at::Tensor bias;  // [out], same dtype; undefined: none
    Epilogue epilogue = Epilogue::none;
    at::Tensor out;  // optional [rows, out], contiguous: where the result is to be written
};

// -> [..., out], dtype of x; `out` itself where it is given
at::Tensor linear(const LinearArgs& args);

// The same in float32 over weights of a lower precision, for the few rows where rounding would be
// felt in every token (modulation) or in the latents themselves (patches in and out). The weight is
// widened part by part. x: [..., in] fp32; weight: [out, in], plain; bias: [out] -> [..., out] fp32
at::Tensor linear_fp32(const at::Tensor& x, const Matrix& weight, const at::Tensor& bias);

// Rows of a weight [out, in] (float32, bf16 or fp16) quantised to 8 bits, each by its largest
// magnitude. The first is for a linear() that quantises every row of x by its own and multiplies in
// int8; where the CPU has no instructions for that, takes_int8() is false. The second only saves
// memory: linear() multiplies in the dtype of x.
Matrix quantise_int8(const at::Tensor& weight);
Matrix quantise_int8_rows(const at::Tensor& weight);
// What linear() holds beside its arguments and result on the CPU, at most; a low-rank addition's
// packed factors come to it.
std::int64_t linear_workspace_bytes(int threads);
bool takes_int8(at::Device device, at::ScalarType dtype);

}  // namespace zoetrope::ops
