// A block of rows by a panel of columns, written once over a register file M.
//
// Columns sit in lanes, three vectors wide; words of eight rows are broadcast. So 24 registers hold
// sums, and a step of depth costs 11 loads for 24 multiplications.
//
// M offers: Sum (a register of sums), kLanes (32-bit lanes, or 16-bit ones for fp16), kChunk (steps
// after which sums are stored; 0: only at the end); zero(), word(address), column(address),
// dot(word, column, sum), and flush(at, sum, add, factor), which stores kLanes float32 or int32.
#pragma once

#include "kernels/gemm.h"

#include <cstddef>

namespace zoetrope::kernels {
namespace {

template <class M>
struct GemmBlock {
    static constexpr int kVectors = 3, kRows = 8;
    static constexpr int kColumns = kVectors * M::kLanes;
    static constexpr int kVectorBytes = 64;

    static void multiply(const GemmTile& tile) {
        const int columns = tile.columns == 0 ? kColumns : tile.columns;
        if (columns <= M::kLanes)
            multiply_vectors<1>(tile);
        else if (columns <= 2 * M::kLanes)
            multiply_vectors<2>(tile);
        else
            multiply_vectors<3>(tile);
    }

    template <int vectors>
    static void multiply_vectors(const GemmTile& tile) {
        int row = 0;
        for (; row + kRows <= tile.count; row += kRows) multiply_rows<kRows, vectors>(tile, row);
        if (tile.count - row >= 4) multiply_rows<4, vectors>(tile, row), row += 4;
        if (tile.count - row >= 2) multiply_rows<2, vectors>(tile, row), row += 2;
        if (tile.count - row >= 1) multiply_rows<1, vectors>(tile, row);
    }

    template <int rows, int vectors>
    static void multiply_rows(const GemmTile& tile, int first) {
        const char* panel = static_cast<const char*>(tile.panel);
        float* sums = tile.sums + first * tile.sums_stride;
        if constexpr (M::kChunk == 0) {
            typename M::Sum sum[rows][vectors];
            clear(sum);
            for (int tap = 0; tap < tile.taps; ++tap) {
                add_steps(tile.rows[tap] + first * tile.row_stride, tile.row_stride, panel,
                          tile.depth, sum);
                panel += static_cast<std::ptrdiff_t>(tile.depth) * kVectors * kVectorBytes;
            }
            flush(sum, sums, tile.sums_stride, tile.add, nullptr);
        } else {
            float factors[rows];
            for (int i = 0; i < rows; ++i)
                factors[i] = tile.factor * (tile.row_factors ? tile.row_factors[first + i] : 1.0F);
            bool add = tile.add;
            for (int tap = 0; tap < tile.taps; ++tap) {
                const std::uint32_t* words = tile.rows[tap] + first * tile.row_stride;
                const int chunks = (tile.depth + M::kChunk - 1) / M::kChunk;
                const int chunk = (tile.depth + chunks - 1) / chunks;
                for (int done = 0; done < tile.depth; done += chunk) {
                    const int depth = tile.depth - done < chunk ? tile.depth - done : chunk;
                    typename M::Sum sum[rows][vectors];
                    clear(sum);
                    add_steps(words + done, tile.row_stride, panel, depth, sum);
                    flush(sum, sums, tile.sums_stride, add, factors);
                    panel += static_cast<std::ptrdiff_t>(depth) * kVectors * kVectorBytes;
                    add = true;
                }
            }
        }
    }

    template <int rows, int vectors>
    static void clear(typename M::Sum (&sum)[rows][vectors]) {
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 3
            for (int j = 0; j < vectors; ++j) sum[i][j] = M::zero();
        }
    }

    template <int rows, int vectors>
    static void add_steps(const std::uint32_t* words, std::ptrdiff_t stride, const char* panel,
                          int depth, typename M::Sum (&sum)[rows][vectors]) {
        // Addresses of eight rows from three registers: base + {0, 1, 2, 4} * stride.
        const std::uint32_t* const at[3] = {words, words + 3 * stride, words + 6 * stride};
        constexpr int kBase[8] = {0, 0, 0, 1, 0, 1, 2, 1};
        constexpr int kStep[8] = {0, 1, 2, 0, 4, 2, 0, 4};
        for (int step = 0; step < depth; ++step) {
            typename M::Column column[vectors];
#pragma GCC unroll 3
            for (int j = 0; j < vectors; ++j) column[j] = M::column(panel + j * kVectorBytes);
#pragma GCC unroll 8
            for (int i = 0; i < rows; ++i) {
                const auto word = M::word(at[kBase[i]] + kStep[i] * stride + step);
#pragma GCC unroll 3
                for (int j = 0; j < vectors; ++j) sum[i][j] = M::dot(word, column[j], sum[i][j]);
            }
            panel += kVectors * kVectorBytes;
        }
    }

    template <int rows, int vectors>
    static void flush(typename M::Sum (&sum)[rows][vectors], float* at, std::int64_t stride,
                      bool add, const float* factors) {
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 3
            for (int j = 0; j < vectors; ++j)
                M::flush(at + i * stride + j * M::kLanes, sum[i][j], add,
                         factors == nullptr ? 1.0F : factors[i]);
        }
    }
};

}  // namespace
}  // namespace zoetrope::kernels
