// Products by the brgemm that LibTorch exports (at::native::cpublas; oneDNN's micro-kernels), in
// the place of our own kernels: the way to AMX tiles.
//
// Packed rows and panels are those of kernels/gemm.h for pairs of bf16 and fours of int8, which is
// the layout that brgemm takes. CPUs without AMX compute the same by AVX512-BF16 and VNNI, so all
// of this runs and is tested there, where it is not chosen. Functions may run in many threads at
// once; tile registers belong to a thread and are released by attention_amx(), and by
// GemmKernel::release. Errors: c10::Error where oneDNN is switched off.
#pragma once

#include "kernels/attention.h"
#include "kernels/cpu.h"
#include "kernels/gemm.h"

namespace zoetrope::ops {

// Whether this CPU computes what `isa` (amx, amxint8) stands for, with tiles or without.
bool brgemm_runs(kernels::Isa isa);

kernels::GemmKernel gemm_amx();      // bf16
kernels::GemmKernel gemm_amxint8();  // u8 rows by s8 columns

// Takes kernels::kAttentionAmx: S by brgemm, the softmax of its rows by kernels/softmax.h in
// float32, and P, rounded to bf16, by brgemm into float32.
void attention_amx(const kernels::AttentionCall& call);

// Products of blocks in the second cache, as kernels/peak.h has loops of registers.
double peak_bf16_amx(std::int64_t iterations, float* sink);
double peak_int8_amx(std::int64_t iterations, float* sink);

}  // namespace zoetrope::ops
