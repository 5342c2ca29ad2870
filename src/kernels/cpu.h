// Which instruction sets this CPU has, and which of them the kernels use.
//
// Chosen once per process. The environment variable ZOETROPE_ISA forces one for tests; isa() then
// throws std::runtime_error where the CPU lacks it. Safe from any thread.
#pragma once

#include <string_view>
#include <vector>

namespace zoetrope::kernels {

// One value per file suffix of a kernel (x_avx512bf16.cpp), from the plainest to the best.
enum class Isa { ref, avx2, avx512, avx512vnni, avx512bf16, avx512fp16, amx, amxint8 };

std::string_view name_of(Isa isa);

// What the CPU and the system offer (for AMX the kernel's permission is asked for once).
const std::vector<Isa>& available();

bool has(Isa isa);

// The best of those available, or the one that ZOETROPE_ISA names.
Isa isa();

// Whether ZOETROPE_ISA names it.
bool isa_is_forced();

bool made_by_intel();

}  // namespace zoetrope::kernels
