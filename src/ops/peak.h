// What this machine can compute at most, measured: the yardstick of every benchmark figure.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace zoetrope::ops {

struct Peak {
    double flops = 0;          // operations per second over all operator threads
    std::string instructions;  // what they were measured with: "avx512bf16"
};

// Runs register-only loops of the best instruction set for that precision on all operator threads
// for about half a second, and takes the quickest of several rounds. A precision without
// instructions of its own is measured as fp32, which it is computed in. CPU only.
Peak measured_peak(at::ScalarType dtype);

}  // namespace zoetrope::ops
