#include "ops/peak.h"

#include "kernels/peak.h"
#include "ops/brgemm.h"
#include "ops/device.h"
#include "ops/share_out.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <iterator>

namespace zoetrope::ops {
namespace {

using kernels::Isa;

struct Loop {
    Isa isa;
    at::ScalarType products;
    double (*run)(std::int64_t iterations, float* sink);
};

// The quickest first, of those that serve the same numbers.
constexpr Loop kLoops[] = {
    {Isa::amxint8, at::kChar, peak_int8_amx},
    {Isa::amx, at::kBFloat16, peak_bf16_amx},
    {Isa::avx512fp16, at::kHalf, kernels::peak_fp16_avx512fp16},
    {Isa::avx512bf16, at::kBFloat16, kernels::peak_bf16_avx512bf16},
    {Isa::avx512vnni, at::kChar, kernels::peak_int8_avx512vnni},
    {Isa::avx512, at::kFloat, kernels::peak_fp32_avx512},
    {Isa::avx2, at::kFloat, kernels::peak_fp32_avx2},
    {Isa::ref, at::kFloat, kernels::peak_fp32_ref},
};

const Loop& loop_of(Isa isa) {
    return *std::find_if(std::begin(kLoops), std::end(kLoops),
                         [isa](const Loop& loop) { return loop.isa == isa; });
}

// Whether numbers of that dtype can be multiplied by this loop's products.
bool serves(const Loop& loop, at::ScalarType dtype) {
    if (dtype == at::kBFloat16) return loop.products != at::kChar;
    return loop.products == dtype || loop.products == at::kFloat;
}

// Whether kernels of that instruction set may be taken.
bool allowed(Isa isa) { return kernels::has(isa) && isa <= kernels::isa(); }

Peak measure(const Loop& loop) {
    constexpr int kRounds = 8;
    constexpr std::int64_t kIterations = 4'000'000;  // about 20 to 70 ms a round
    const int workers = threads();
    std::atomic<float> sink{0};
    Peak peak{.flops = 0, .instructions = std::string(kernels::name_of(loop.isa))};
    for (int round = 0; round < kRounds; ++round) {
        std::atomic<double> operations{0};
        const auto begin = std::chrono::steady_clock::now();
        parallel_for(0, workers, 1, [&](std::int64_t first, std::int64_t last) {
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
        if (!kernels::has(loop.isa) || !serves(loop, dtype)) continue;
        const Peak peak = measure(loop);
        if (peak.flops > best.flops) best = peak;
        if (loop.products == at::kFloat) break;
    }
    return best;
}

Peak product_peak(Isa isa) {
    return kernels::has(isa) || brgemm_runs(isa) ? measure(loop_of(isa)) : Peak{};
}

Isa fastest_bf16_products() {
    for (const Loop& loop : kLoops) {
        if (loop.isa < Isa::amx && serves(loop, at::kBFloat16) && allowed(loop.isa))
            return loop.isa;
    }
    return Isa::ref;
}

bool amx_is_fastest() { return allowed(Isa::amx); }

bool amxint8_is_fastest() { return allowed(Isa::amxint8); }

}  // namespace zoetrope::ops
