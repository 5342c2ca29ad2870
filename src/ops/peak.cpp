#include "ops/peak.h"

#include "kernels/cpu.h"
#include "kernels/peak.h"
#include "ops/device.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <chrono>

namespace zoetrope::ops {
namespace {

using kernels::Isa;

struct Loop {
    Isa isa;
    bool bf16;
    double (*run)(std::int64_t iterations, float* sink);
};

// Best first.
constexpr Loop kLoops[] = {
    {Isa::avx512bf16, true, kernels::peak_bf16_avx512bf16},
    {Isa::avx512, false, kernels::peak_fp32_avx512},
    {Isa::avx2, false, kernels::peak_fp32_avx2},
    {Isa::ref, false, kernels::peak_fp32_ref},
};

Peak measure(const Loop& loop) {
    constexpr int kRounds = 8;
    constexpr std::int64_t kIterations = 4'000'000;  // about 20 to 70 ms a round
    const int workers = threads();
    std::atomic<float> sink{0};
    Peak peak{.flops = 0, .instructions = std::string(kernels::name_of(loop.isa))};
    for (int round = 0; round < kRounds; ++round) {
        std::atomic<double> operations{0};
        const auto begin = std::chrono::steady_clock::now();
        at::parallel_for(0, workers, 1, [&](std::int64_t first, std::int64_t last) {
            for (std::int64_t worker = first; worker < last; ++worker) {
                float value = 0;
                operations += loop.run(kIterations, &value);
                sink = sink + value;
            }
        });
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
        peak.flops = std::max(peak.flops, operations / seconds.count());
    }
    return peak;
}

}  // namespace

Peak measured_peak(at::ScalarType dtype) {
    Peak best;
    for (const Loop& loop : kLoops) {
        if (!kernels::has(loop.isa) || (loop.bf16 && dtype != at::kBFloat16)) continue;
        const Peak peak = measure(loop);
        if (peak.flops > best.flops) best = peak;
        if (!loop.bf16) break;
    }
    return best;
}

}  // namespace zoetrope::ops
