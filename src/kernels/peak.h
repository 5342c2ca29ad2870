// Loops that do nothing but multiply and add in registers: what a core can reach at most, for each
// precision.
//
// Each runs `iterations` rounds on the calling thread and gives the number of operations (a
// multiply and an add are two) and, in `sink`, a value that depends on all of them, so that nothing
// is optimised away. Only for CPUs that have the instruction set.
#pragma once

#include <cstdint>

namespace zoetrope::kernels {

double peak_fp32_ref(std::int64_t iterations, float* sink);
double peak_fp32_avx2(std::int64_t iterations, float* sink);
double peak_fp32_avx512(std::int64_t iterations, float* sink);
double peak_bf16_avx512bf16(std::int64_t iterations, float* sink);
double peak_fp16_avx512fp16(std::int64_t iterations, float* sink);  // sums in fp16 too
double peak_int8_avx512vnni(std::int64_t iterations, float* sink);  // u8 by s8

}  // namespace zoetrope::kernels
