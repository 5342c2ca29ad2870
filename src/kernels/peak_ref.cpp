#include "kernels/peak.h"

namespace zoetrope::kernels {

double peak_fp32_ref(std::int64_t iterations, float* sink) {
    constexpr int kChains =
        16;  // independent sums, so that the latency of one is hidden by the others
    float sums[kChains] = {};
    const float a = 1.0000001F, b = 1e-9F;
    for (std::int64_t i = 0; i < iterations; ++i) {
        for (float& sum : sums) sum = sum * a + b;
    }
    for (const float sum : sums) *sink += sum;
    return 2.0 * kChains * static_cast<double>(iterations);
}

}  // namespace zoetrope::kernels
