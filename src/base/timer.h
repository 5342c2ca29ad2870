// Seconds since a moment, on the clock that never goes back.
//
// A value; any thread.
#pragma once

#include <chrono>

namespace zoetrope {

class Timer {
public:
    // Since its construction.
    double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

private:
    using Clock = std::chrono::steady_clock;
    Clock::time_point start_ = Clock::now();
};

}  // namespace zoetrope
