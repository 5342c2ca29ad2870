// Work for the operator threads.
//
// The one place where our own code runs in parallel: its source alone is compiled with OpenMP, with
// which LibTorch's threads are started; without, at::parallel_for runs everything on one thread.
#pragma once

#include <cstdint>
#include <functional>

namespace zoetrope::ops {

// Pieces of b at most that a is cut into.
constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Calls work(item, worker) for every item below `items`, each thread taking the next item when it
// has done its last; a worker, below `threads`, is one thread.
void share_out(std::int64_t items, int threads,
               const std::function<void(std::int64_t item, std::int64_t worker)>& work);

// Calls work(begin, end) for equal parts of [begin, end), of `grain` at least, one per thread.
void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain,
                  const std::function<void(std::int64_t begin, std::int64_t end)>& work);

// Operators and the functions above run on the calling thread alone from now on, where it calls
// them: for threads that work beside the model's.
void use_one_thread();

}  // namespace zoetrope::ops
