// Golden files of the tests: what Diffusers and Transformers computed, written by tools/oracle.
#pragma once

#include "weights/source.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <filesystem>
#include <map>
#include <string>

namespace zoetrope {

inline std::filesystem::path golden_folder() {
    return std::filesystem::path(ZT_SOURCE_DIR) / "tests" / "golden";
}

// All tensors of a safetensors file by name.
inline std::map<std::string, at::Tensor> read_tensors(const std::filesystem::path& file) {
    const auto source = open_safetensors(file);
    std::map<std::string, at::Tensor> tensors;
    for (std::size_t i = 0; i < source->tensors().size(); ++i) {
        tensors[source->tensors()[i].name] = source->read(i);
    }
    return tensors;
}

// |a - b| / |b| in float64 (L2 norms).
inline double relative_error(const at::Tensor& a, const at::Tensor& b) {
    const at::Tensor wanted = b.to(at::kDouble);
    const at::Tensor difference = a.to(at::kDouble).sub(wanted);
    return at::linalg_vector_norm(difference).item<double>() /
           at::linalg_vector_norm(wanted).item<double>();
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
    return a.to(at::kDouble).sub(b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace zoetrope
