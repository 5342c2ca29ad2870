// Tensors of 8-bit numbers (8-bit floats, or integers with a scale) expanded to what is computed
// with.
//
// Pure function, any thread; uses the operator threads.
#pragma once

#include <ATen/core/Tensor.h>

namespace zoetrope {

// tensor: float8_e4m3fn, float8_e5m2 or int8, any shape, contiguous, on the CPU. scale: undefined,
// one number, or one for each row [rows] of the first dimension; fp32. -> the same shape in `dtype`
// (float32, bf16, fp16, float64): value * scale rounded to float32, then to dtype. Without a scale
// float32 and bf16 hold every value exactly, and so does fp16. Errors: internal for another dtype.
at::Tensor expand_bytes(const at::Tensor& tensor, const at::Tensor& scale, at::ScalarType dtype);

}  // namespace zoetrope
