// Linear layers with their epilogue, over plain or packed weights.
//
// Pure functions, any thread; they use the operator threads. Errors: internal for a layout tag that
// the device's operator does not take.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace zoetrope::ops {

// How a matrix lies in memory. Operators check the tag: a mismatch is an error, never garbage.
enum class MatrixLayout {
    plain,   // [out, in], row-major
    onednn,  // opaque blocked layout of oneDNN, for the CPU's fused linear operators only
};

struct Matrix {
    at::Tensor data;
    MatrixLayout layout = MatrixLayout::plain;
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

// Packs a row-major matrix [out, in] for linear() on its device where that is quicker for its
// dtype; gives it back as it is where not.
Matrix pack(const at::Tensor& weight);

}  // namespace zoetrope::ops
