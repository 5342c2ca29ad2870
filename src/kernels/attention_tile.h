// The register tile of the vector attention kernels: a panel of K or V times rows of queries or of
// P, over registers M. Internal linkage: each instruction-set file has its own copy.
//
// M offers: Vector, kWords (words in one), kVectors and kRows (a tile); zero, load,
// broadcast(word) and dot(word, column, sum).
#pragma once

#include "kernels/attention.h"

namespace zoetrope::kernels {
namespace {

// Words of K and V to be fetched ahead into the second-level cache: a page of memory, which the
// hardware's own prefetching stops at. (At 32,760 keys it makes 158 GFLOP/s of 135.)
constexpr int kAhead = 1024;

// sums [kRows][vectors] of panel [depth][kAttentionPanel] ^T columns [depth][kVectors * kWords];
// finish(row, vector, sum) gets each.
template <class M, int vectors, class Finish>
[[gnu::always_inline]] inline void multiply_tile(const float* panel, const float* columns,
                                                 int depth, const Finish& finish) {
    // Unrolled by order: an array whose index is not known at compile time is kept in memory.
    typename M::Vector sums[M::kRows][vectors];
#pragma GCC unroll 8
    for (int i = 0; i < M::kRows; ++i) {
#pragma GCC unroll 3
        for (int j = 0; j < vectors; ++j) sums[i][j] = M::zero();
    }
    for (int step = 0; step < depth; ++step) {
        typename M::Vector column[vectors];
#pragma GCC unroll 3
        for (int j = 0; j < vectors; ++j) column[j] = M::load(columns + j * M::kWords);
#pragma GCC unroll 8
        for (int i = 0; i < M::kRows; ++i) {
            const auto word = M::broadcast(panel + i);
#pragma GCC unroll 3
            for (int j = 0; j < vectors; ++j) sums[i][j] = M::dot(word, column[j], sums[i][j]);
        }
        __builtin_prefetch(panel + kAhead, 0, 2);
        panel += kAttentionPanel;
        columns += M::kVectors * M::kWords;
    }
#pragma GCC unroll 8
    for (int i = 0; i < M::kRows; ++i) {
#pragma GCC unroll 3
        for (int j = 0; j < vectors; ++j) finish(i, j, sums[i][j]);
    }
}

}  // namespace
}  // namespace zoetrope::kernels
