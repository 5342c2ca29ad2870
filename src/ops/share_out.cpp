#include "ops/share_out.h"

#include <ATen/Parallel.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <atomic>

#if !defined(_OPENMP) && !defined(__clang__)
#error "compile this file with OpenMP: LibTorch's parallel_for is serial without"
#endif

namespace zoetrope::ops {

void share_out(std::int64_t items, int threads,
               const std::function<void(std::int64_t item, std::int64_t worker)>& work) {
    std::atomic<std::int64_t> next{0};
    at::parallel_for(0, std::min<std::int64_t>(items, threads), 1,
                     [&](std::int64_t begin, std::int64_t end) {
                         for (std::int64_t worker = begin; worker < end; ++worker) {
                             for (std::int64_t item = next++; item < items; item = next++)
                                 work(item, worker);
                         }
                     });
}

void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain,
                  const std::function<void(std::int64_t begin, std::int64_t end)>& work) {
    at::parallel_for(begin, end, grain, work);
}

void use_one_thread() {
    at::internal::lazy_init_num_threads();  // once per thread, which sets the number itself
#ifdef _OPENMP
    omp_set_num_threads(1);
#endif
}

}  // namespace zoetrope::ops
