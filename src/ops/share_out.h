// Work for the operator threads in pieces that each thread takes when it has done its last.
#pragma once

#include <cstdint>
#include <functional>

namespace zoetrope::ops {

// Calls work(item, worker) for every item below `items`; a worker, below `threads`, is one thread.
void share_out(std::int64_t items, int threads,
               const std::function<void(std::int64_t item, std::int64_t worker)>& work);

}  // namespace zoetrope::ops
