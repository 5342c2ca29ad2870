// Tensors over a part of a mapped file, for the readers of weight files.
//
// Pure functions, any thread. A tensor keeps its file mapped.
#pragma once

#include "base/mapped_file.h"
#include "weights/safetensors_header.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

namespace zoetrope {

at::ScalarType scalar_type_of(safetensors::Dtype dtype);

// A view of the bytes from `begin` on, which must lie in the file; a copy where they are not
// aligned to the dtype. The pages of a big tensor are read ahead, and leave this process's memory
// with the tensor.
at::Tensor mapped_tensor(const std::shared_ptr<const MappedFile>& file, std::uint64_t begin,
                         at::IntArrayRef shape, at::ScalarType dtype);

}  // namespace zoetrope
