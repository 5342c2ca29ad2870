// Work for the operator threads in pieces that each thread takes when it has done its last.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace zoetrope::ops {

// Calls work(item, worker) for every item; worker, below `threads`, belongs to one thread at a
// time.
template <class Work>
void share_out(std::int64_t items, int threads, const Work& work) {
    std::atomic<std::int64_t> next{0};
    at::parallel_for(0, std::min<std::int64_t>(items, threads), 1,
                     [&](std::int64_t begin, std::int64_t end) {
                         for (std::int64_t worker = begin; worker < end; ++worker) {
                             for (std::int64_t item = next++; item < items; item = next++)
                                 work(item, worker);
                         }
                     });
}

}  // namespace zoetrope::ops
