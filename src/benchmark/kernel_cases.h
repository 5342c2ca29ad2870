// The kernels that `zoetrope bench kernels` times: what to run, on which sizes, beside what.
//
// Inside of benchmark/. A case owns its tensors; it is made when its turn comes and dropped after.
#pragma once

#include "kernels/cpu.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace zoetrope::benchmark {

struct KernelVariant {
    kernels::Isa isa;
    std::string dtype;  // of the tensors
    std::function<void()> run;
};

struct KernelCase {
    std::string name;
    double flop = 0;   // of one run, or
    double bytes = 0;  // read and written by one that passes over memory
    std::vector<KernelVariant> variants;
    std::function<void()> aten_bf16, aten_fp32;
};

// Sizes are those of the 1.3B model with that many tokens, and of its VAE. only: the one
// instruction set whose kernels are wanted, amx and amxint8 also where brgemm has no tiles; else
// all that the CPU has.
std::vector<std::function<KernelCase()>> kernel_cases(std::int64_t tokens,
                                                      std::optional<kernels::Isa> only);

}  // namespace zoetrope::benchmark
