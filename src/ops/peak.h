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
// second and takes the quickest of several rounds. bf16 is what the CPU does best with such
// numbers: products of bf16 pairs, of fp16 or of float32. Char: u8 by s8. CPU only.
Peak measured_peak(at::ScalarType dtype);

// The same with that instruction set's own products: of float32, or of the bf16, fp16 or int8 that
// it is named for. amx and amxint8: products of blocks by brgemm, also where that has no tiles.
// 0 where the CPU has none.
Peak product_peak(kernels::Isa isa);

// With whose products bf16 numbers are multiplied soonest, but for AMX: the first that the CPU has
// and ZOETROPE_ISA allows of avx512fp16, avx512bf16 and the best of float32. A rule, not a
// measurement, so that the same machine always gives the same bytes. (Emerald Rapids: fp16 2.2 and
// bf16 0.5 times float32; Zen 5, which has no fp16: bf16 1.8 times.) Any thread.
kernels::Isa fastest_bf16_products();

// Whether the CPU has AMX, for bf16 or for int8, and ZOETROPE_ISA allows it.
bool amx_is_fastest();
bool amxint8_is_fastest();

}  // namespace zoetrope::ops
