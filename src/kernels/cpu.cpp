#include "kernels/cpu.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace zoetrope::kernels {
namespace {

constexpr std::array<std::string_view, 8> kNames = {
    "ref", "avx2", "avx512", "avx512vnni", "avx512bf16", "avx512fp16", "amx", "amxint8"};

// Linux keeps the AMX tile registers off until a process asks for them (arch_prctl, Linux 5.16).
bool request_tile_registers() {
    constexpr long kArchReqXcompPerm = 0x1023;
    constexpr long kXfeatureXtiledata = 18;
    return ::syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureXtiledata) == 0;
}

// CPUID leaf 7: AMX-BF16, AVX512-FP16, AMX-TILE and AMX-INT8 are these bits of EDX.
constexpr int kAmxBf16 = 22, kAvx512Fp16 = 23, kAmxTile = 24, kAmxInt8 = 25;
bool cpuid_bit(int bit) {
    unsigned eax = 7, ebx = 0, ecx = 0, edx = 0;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    return ((edx >> bit) & 1) != 0;
}

std::vector<Isa> detect() {
    std::vector<Isa> found = {Isa::ref};
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512dq");
    if (avx2) found.push_back(Isa::avx2);
    if (avx512) found.push_back(Isa::avx512);
    if (avx512 && __builtin_cpu_supports("avx512vnni")) found.push_back(Isa::avx512vnni);
    const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
    if (bf16) found.push_back(Isa::avx512bf16);
    if (bf16 && cpuid_bit(kAvx512Fp16)) found.push_back(Isa::avx512fp16);
    const bool amx_bf16 = avx512 && cpuid_bit(kAmxTile) && cpuid_bit(kAmxBf16);
    const bool amx_int8 = avx512 && cpuid_bit(kAmxTile) && cpuid_bit(kAmxInt8);
    if ((amx_bf16 || amx_int8) && request_tile_registers()) {
        if (amx_bf16) found.push_back(Isa::amx);
        if (amx_int8) found.push_back(Isa::amxint8);
    }
    return found;
}

Isa choose() {
    if (!isa_is_forced()) return available().back();
    const char* forced = std::getenv("ZOETROPE_ISA");
    const auto* known = std::find(kNames.begin(), kNames.end(), forced);
    std::string names;
    for (const Isa isa : available())
        names += (names.empty() ? "" : ", ") + std::string(name_of(isa));
    if (known == kNames.end() || !has(static_cast<Isa>(known - kNames.begin()))) {
        throw std::runtime_error("ZOETROPE_ISA is '" + std::string(forced) +
                                 "', which this CPU does not have; it has " + names);
    }
    return static_cast<Isa>(known - kNames.begin());
}

}  // namespace

std::string_view name_of(Isa isa) { return kNames[static_cast<std::size_t>(isa)]; }

const std::vector<Isa>& available() {
    static const std::vector<Isa> found = detect();
    return found;
}

bool has(Isa isa) {
    const auto& found = available();
    return std::find(found.begin(), found.end(), isa) != found.end();
}

bool isa_is_forced() {
    const char* forced = std::getenv("ZOETROPE_ISA");
    return forced != nullptr && *forced != '\0';
}

Isa isa() {
    static const Isa chosen = choose();
    return chosen;
}

bool made_by_intel() {
    __builtin_cpu_init();
    return __builtin_cpu_is("intel") != 0;
}

}  // namespace zoetrope::kernels
