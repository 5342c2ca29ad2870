// Linear layers on the CPU by our own kernels: cuts the product into blocks, shares them out to the
// operator threads and picks the kernel.
//
// Every sum over the depth has a fixed order, whatever the number of rows or threads. Any thread;
// holds up to linear_workspace_bytes() beside the result while it runs.
#pragma once

#include "kernels/cpu.h"
#include "ops/linear.h"

namespace zoetrope::ops {

// Whether a kernel takes the call: bf16 on a CPU with AVX-512, or an int8 weight where the CPU has
// VNNI; with a low-rank addition of float32 or bf16 (ops/linear_low_rank.h).
bool linear_cpu_takes(const LinearArgs& args, kernels::Isa isa);

at::Tensor linear_cpu(const LinearArgs& args, kernels::Isa isa);

// Up to which instruction set kernels are to be used for a weight: what is fastest, of AMX and the
// others. (What AMX stands for runs on CPUs without it too, where a call names it.)
kernels::Isa linear_cpu_isa(const Matrix& weight);

}  // namespace zoetrope::ops
