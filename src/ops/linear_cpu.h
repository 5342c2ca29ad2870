// Linear layers on the CPU by our own kernels: cuts the product into blocks, shares them out to the
// operator threads and picks the kernel.
//
// Every sum over the depth has a fixed order, whatever the number of rows or threads. Any thread;
// holds up to linear_workspace_bytes() beside the result while it runs.
#pragma once

#include "kernels/cpu.h"
#include "ops/linear.h"

namespace zoetrope::ops {

// Whether a kernel takes the call: bf16 on a CPU with AVX-512 and without AMX (where LibTorch's
// oneDNN is as good), or an int8 weight where the CPU has VNNI. A low-rank addition is one more
// part of the depth, of at most 256 words, to a bf16 weight.
bool linear_cpu_takes(const LinearArgs& args, kernels::Isa isa);

at::Tensor linear_cpu(const LinearArgs& args, kernels::Isa isa);

// Up to which instruction set kernels are to be used for bf16: fastest_bf16_products(), or isa()
// where that is AMX.
kernels::Isa linear_cpu_isa();

}  // namespace zoetrope::ops
