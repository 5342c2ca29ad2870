// Low-rank additions inside of a linear product on the CPU, for linear_cpu.cpp.
//
// Where words hold one number, up down is added to the weight while its panels are packed: rank
// operations per number of the weight, whatever the rows, and no pass of its own (MergedLowRank).
// 8-bit numbers and pairs of bf16 would round that sum to the weight's own grid, so there x down^T
// is summed while the rows are packed anyway, and its product with `up` goes to the sums of a block
// while they are in the cache (LowRankBeside). Memory is the caller's; objects are read-only once
// prepared, with scratch of its own for each thread.
#pragma once

#include "kernels/gemm.h"
#include "ops/linear.h"

#include <cstdint>

namespace zoetrope::ops {

// Numbers of the depth in a part of a panel where words hold one.
constexpr std::int64_t kMergedNumbers = 256;

class MergedLowRank {
public:
    // layout.elements must be 1.
    MergedLowRank(const kernels::GemmKernel& kernel, const LowRank& low);

    std::int64_t bytes() const;  // of the memory that prepare() packs both factors into
    void prepare(std::uint8_t* memory, int workers);

    // What is added to a panel's columns in a part of the depth: [columns][stride()], in `room` of
    // room_words().
    const float* rows(std::int64_t panel, std::int64_t part, float* room) const;
    std::int64_t stride() const { return per_part_ * kernel_.layout.columns; }
    std::int64_t room_words() const { return kernel_.layout.columns * stride(); }

private:
    const kernels::GemmKernel kernel_;
    const at::Tensor up_;    // [out, rank]
    const at::Tensor down_;  // [in, rank]
    const std::int64_t rank_, per_part_, panels_, panel_bytes_, row_stride_;
    std::uint32_t* up_words_ = nullptr;  // [out][row_stride_]
    float* up_factors_ = nullptr;        // [out]
    std::uint8_t* panels_at_ = nullptr;  // [parts][per_part_]
    float* panel_factors_ = nullptr;
};

class LowRankBeside {
public:
    // product: the kernel of the whole product; beside: one of floats, for `up`.
    LowRankBeside(const kernels::GemmKernel& product, const kernels::GemmKernel& beside,
                  const LowRank& low, bool int8);

    // `down` as columns of the product: packed where the product is of int8, else a plain tensor.
    const Matrix& down() const { return down_; }
    std::int64_t rank() const { return rank_; }
    std::int64_t down_panels() const { return down_panels_; }

    std::int64_t bytes() const;
    void prepare(std::uint8_t* memory, int workers);

    // One thread's: sums of x down^T [block_rows][hidden_stride()], words of them, an addend.
    struct Scratch {
        float* hidden;
        std::uint32_t* words;
        float* factors;
        float* addend;
    };
    std::int64_t scratch_words(std::int64_t block_rows, std::int64_t group_columns) const;
    Scratch scratch_at(void* memory, std::int64_t block_rows) const;
    std::int64_t hidden_stride() const { return down_panels_ * product_.layout.columns; }

    // Once the hidden sums of a block are whole. row_factors: those of int8 rows.
    void pack_hidden(int count, const float* row_factors, const Scratch& scratch) const;

    // Rows of a block that are finished at a time: their addend stays in the second cache.
    static constexpr int kRows = 32;
    // The addition to rows [row, row + count) and columns [column, column + columns): `count` of
    // kRows at most; column a multiple of the panels' width -> [count][addend_stride(columns)]
    const float* addend(int row, int count, std::int64_t column, std::int64_t columns,
                        const Scratch& scratch) const;
    std::int64_t addend_stride(std::int64_t columns) const;

private:
    const kernels::GemmKernel product_, beside_;
    const at::Tensor up_;  // [out, rank]
    const Matrix down_;
    const std::int64_t rank_, down_panels_, up_panels_, up_bytes_, row_stride_;
    float* up_factors_ = nullptr;
    std::uint8_t* up_panels_at_ = nullptr;
};

}  // namespace zoetrope::ops
