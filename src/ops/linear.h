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
    plain,  // [out, in], row-major
    int8,   // panels of 8-bit numbers, packed for this CPU by quantise_int8()
};

struct Matrix {
    at::Tensor data;
    MatrixLayout layout = MatrixLayout::plain;
    // int8 only: what a row of the matrix was divided by and the sum of its 8-bit numbers.
    at::Tensor factors;                         // [out] fp32
    at::Tensor sums;                            // [out] int32
    std::array<std::int64_t, 2> features = {};  // out, in

    std::int64_t out_features() const {
        return layout == MatrixLayout::plain ? data.size(0) : features[0];
    }
    std::int64_t in_features() const {
        return layout == MatrixLayout::plain ? data.size(1) : features[1];
    }
};

enum class Epilogue { none, gelu_tanh, gelu_erf, silu };

struct LinearArgs {
    at::Tensor x;     // [..., in], dtype of the weight
    Matrix weight;    // [out, in]
    at::Tensor bias;  // [out], same dtype; undefined: none
    Epilogue epilogue = Epilogue::none;
};

// -> [..., out], dtype of x
at::Tensor linear(const LinearArgs& args);

// The same in float32 over weights of a lower precision, for the few rows where rounding would be
// felt in every token (modulation) or in the latents themselves (patches in and out). The weight is
// widened part by part. x: [..., in] fp32; weight: [out, in], plain; bias: [out] -> [..., out] fp32
at::Tensor linear_fp32(const at::Tensor& x, const Matrix& weight, const at::Tensor& bias);

// Rows of a weight [out, in] (float32, bf16 or fp16) quantised to 8 bits, each by its largest
// magnitude, for a linear() that quantises every row of x by its own. Errors: unsupported where the
// CPU has no instructions for it.
Matrix quantise_int8(const at::Tensor& weight);

}  // namespace zoetrope::ops
