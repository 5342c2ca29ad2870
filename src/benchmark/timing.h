// What the benches share: a clock and a median.
#pragma once

#include <functional>
#include <vector>

namespace zoetrope::benchmark {

// Seconds of one call.
double seconds_of(const std::function<void()>& run);

// The middle one, the upper of two; of one value at least.
double median(std::vector<double> values);

}  // namespace zoetrope::benchmark
