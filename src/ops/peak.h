// What this machine can compute at most, measured: the yardstick of every benchmark figure.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace zoetrope::ops {

struct Peak {
    double flops = 0;          // operations per second over all operator threads
    std::string instructions;  // what they were measured with: "avx512bf16"
};

// Runs register-only loops of the best instruction set on all operator threads for about half a
// second, and takes the quickest of several rounds. bf16 is what the CPU does best: products of
// bf16 pairs or, where they are slower or missing, float32. CPU only.
Peak measured_peak(at::ScalarType dtype);

}  // namespace zoetrope::ops
