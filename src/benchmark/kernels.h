// Every kernel of this CPU on sizes of the 1.3B model, beside LibTorch's operator and the measured
// peak of the same run.
#pragma once

#include "base/progress.h"

#include <nlohmann/json.hpp>

#include <string>

namespace zoetrope::benchmark {

struct KernelBenchOptions {
    // Of the kernels to time; empty: every one that this CPU has. amx and amxint8 may be named
    // where brgemm computes the same without tiles.
    std::string isa;
    int repeats = 3;  // timed runs after one warm-up, ours and LibTorch's by turns
    int threads = 0;  // 0: the usable cores
    int tokens = 4096;
};

// Errors: bad_request for an instruction set that is unknown or missing, with those found.
nlohmann::ordered_json bench_kernels(const KernelBenchOptions& options, const RunControl& control);

}  // namespace zoetrope::benchmark
