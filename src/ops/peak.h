// What this machine can compute at most, measured: the yardstick of every benchmark figure.
#pragma once

#include "kernels/cpu.h"

#include <ATen/core/Tensor.h>

#include <string>

namespace zoetrope::ops {

struct Peak {
    double flops = 0;          // operations per second over all operator threads
    std::string instructions;  // what they were measured with: "avx512bf16"
};

// Runs register-only loops (with AMX, products by brgemm) on all operator threads for about half a
// second and takes the quickest
// of several rounds. bf16 is what the CPU does best with such numbers: products of bf16 pairs, of
// fp16 or of float32. Char: u8 by s8. CPU only.
Peak measured_peak(at::ScalarType dtype);

// The same with that instruction set's own products: of float32, or of the bf16, fp16 or int8 that
// it is named for. amx and amxint8: products of blocks by brgemm, also where that has no tiles.
// 0 where the CPU has none.
Peak product_peak(kernels::Isa isa);

// With whose products bf16 numbers are multiplied soonest: avx512bf16, avx512fp16 or the best of
// float32, by a measurement of a few milliseconds, once per process; the one that ZOETROPE_ISA
// names, where it does. (Emerald Rapids: fp16 2.2 and bf16 0.5 times float32; Zen 5: bf16 1.8
// times.) Any thread.
kernels::Isa fastest_bf16_products();

// Whether AMX multiplies bf16, or int8, sooner than all of these: on CPUs that have it, by a
// measurement likewise, or because ZOETROPE_ISA names it.
bool amx_is_fastest();
bool amxint8_is_fastest();

}  // namespace zoetrope::ops
