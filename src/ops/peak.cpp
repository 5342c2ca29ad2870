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

// Best first among those of one kind.
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

// Operations per second of one thread, the best of a few rounds of some 0.1 ms.
double quick_speed(const Loop& loop) {
    constexpr int kRounds = 5;
    constexpr std::int64_t kIterations = 20'000;
    double best = 0;
    for (int round = 0; round < kRounds; ++round) {
        float sink = 0;
        const auto begin = std::chrono::steady_clock::now();
        const double operations = loop.run(kIterations, &sink);
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
        best = std::max(best, operations / seconds.count());
    }
    return best;
}

Isa choose_bf16_products() {
    Isa fastest = Isa::ref;
    double best = 0;
    for (const Loop& loop : kLoops) {
        if (!serves(loop, at::kBFloat16) || loop.isa >= Isa::amx || !kernels::has(loop.isa) ||
            loop.isa > kernels::isa())
            continue;
        if (kernels::isa_is_forced()) return loop.isa;
        const double speed = quick_speed(loop);
        if (speed > best) fastest = loop.isa;
        best = std::max(best, speed);
        if (loop.products == at::kFloat) break;
    }
    return fastest;
}

bool is_faster(Isa isa, Isa other) {
    if (!kernels::has(isa) || kernels::isa() < isa) return false;
    return kernels::isa_is_forced() || quick_speed(loop_of(isa)) > quick_speed(loop_of(other));
}

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
    static const Isa fastest = choose_bf16_products();
    return fastest;
}

bool amx_is_fastest() {
    static const bool fastest = is_faster(Isa::amx, fastest_bf16_products());
    return fastest;
}

bool amxint8_is_fastest() {
    static const bool fastest = is_faster(Isa::amxint8, Isa::avx512vnni);
    return fastest;
}

}  // namespace zoetrope::ops
