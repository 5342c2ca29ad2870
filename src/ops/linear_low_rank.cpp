#include "ops/linear_low_rank.h"

#include "ops/share_out.h"

#include <algorithm>

namespace zoetrope::ops {
namespace {

using kernels::GemmKernel;
using kernels::GemmSource;

// Between rows of packed words, so that they do not fall into the same sets of the first cache.
constexpr std::int64_t kRowPadding = 16;
constexpr std::int64_t kCacheLine = 64;

std::int64_t whole_lines(std::int64_t bytes) { return ceil_div(bytes, kCacheLine) * kCacheLine; }

GemmSource source_of(const at::Tensor& x) {
    return x.scalar_type() == at::kFloat ? GemmSource::fp32 : GemmSource::bf16;
}

// Element `index` of the first dimension.
const void* row_of(const at::Tensor& x, std::int64_t index) {
    return static_cast<const char*>(x.const_data_ptr()) + index * x.stride(0) * x.element_size();
}

}  // namespace

MergedLowRank::MergedLowRank(const GemmKernel& kernel, const LowRank& low)
    : kernel_(kernel),
      up_(low.up),
      down_(low.down.t().contiguous()),
      rank_(low.up.size(1)),
      per_part_(ceil_div(kMergedNumbers, kernel.layout.columns)),
      panels_(ceil_div(low.down.size(1), kMergedNumbers) * per_part_),
      panel_bytes_(gemm_panel_bytes(kernel.layout, rank_)),
      row_stride_(rank_ + kRowPadding) {}

std::int64_t MergedLowRank::bytes() const {
    return whole_lines(panels_ * panel_bytes_) + 4 * panels_ + 4 * up_.size(0) * (row_stride_ + 1);
}

void MergedLowRank::prepare(std::uint8_t* memory, int workers) {
    panels_at_ = memory;
    panel_factors_ = reinterpret_cast<float*>(memory + whole_lines(panels_ * panel_bytes_));
    up_factors_ = panel_factors_ + panels_;
    up_words_ = reinterpret_cast<std::uint32_t*>(up_factors_ + up_.size(0));
    const std::int64_t columns = kernel_.layout.columns;
    share_out(panels_, workers, [&](std::int64_t item, auto) {
        const std::int64_t part = item / per_part_ * kMergedNumbers,
                           within = item % per_part_ * columns;
        const std::int64_t count =
            std::min({columns, kMergedNumbers - within, down_.size(0) - part - within});
        if (count <= 0) return;
        kernel_.pack_columns({.source = row_of(down_, part + within),
                              .type = source_of(down_),
                              .stride = rank_,
                              .columns = static_cast<int>(count),
                              .elements = static_cast<int>(rank_),
                              .panel = panels_at_ + item * panel_bytes_,
                              .factor = panel_factors_ + item});
    });
    share_out(ceil_div(up_.size(0), columns), workers, [&](std::int64_t item, auto) {
        const std::int64_t first = item * columns;
        kernel_.pack_rows({.source = row_of(up_, first),
                           .type = source_of(up_),
                           .stride = up_.stride(0),
                           .rows = static_cast<int>(std::min(columns, up_.size(0) - first)),
                           .elements = static_cast<int>(rank_),
                           .words = up_words_ + first * row_stride_,
                           .words_stride = row_stride_,
                           .factors = up_factors_ + first});
    });
}

const float* MergedLowRank::rows(std::int64_t panel, std::int64_t part, float* room) const {
    const std::int64_t columns = kernel_.layout.columns, first = panel * columns;
    const std::uint32_t* words = up_words_ + first * row_stride_;
    for (std::int64_t i = 0; i < per_part_; ++i) {
        const std::int64_t within = i * columns;
        const std::int64_t count = std::min(
            {columns, kMergedNumbers - within, down_.size(0) - part * kMergedNumbers - within});
        if (count <= 0) break;
        const std::int64_t item = part * per_part_ + i;
        kernel_.multiply({.rows = &words,
                          .row_stride = row_stride_,
                          .panel = panels_at_ + item * panel_bytes_,
                          .depth = static_cast<int>(rank_),
                          .count = static_cast<int>(std::min(columns, up_.size(0) - first)),
                          .sums = room + within,
                          .sums_stride = stride(),
                          .columns = static_cast<int>(count),
                          .row_factors = up_factors_ + first,
                          .factor = panel_factors_[item]});
    }
    return room;
}

LowRankBeside::LowRankBeside(const GemmKernel& product, const GemmKernel& beside,
                             const LowRank& low, bool int8)
    : product_(product),
      beside_(beside),
      up_(low.up),
      down_(int8 ? quantise_int8(low.down) : Matrix{.data = low.down}),
      rank_(low.up.size(1)),
      down_panels_(ceil_div(rank_, product.layout.columns)),
      up_panels_(ceil_div(low.up.size(0), beside.layout.columns)),
      up_bytes_(gemm_panel_bytes(beside.layout, gemm_words(beside.layout, rank_))),
      row_stride_(gemm_words(beside.layout, rank_) + kRowPadding) {}

std::int64_t LowRankBeside::bytes() const { return up_panels_ * (up_bytes_ + 4); }

void LowRankBeside::prepare(std::uint8_t* memory, int workers) {
    up_panels_at_ = memory;
    up_factors_ = reinterpret_cast<float*>(memory + up_panels_ * up_bytes_);
    share_out(up_panels_, workers, [&](std::int64_t item, auto) {
        const std::int64_t columns = beside_.layout.columns, first = item * columns;
        up_factors_[item] = 1;
        beside_.pack_columns({.source = row_of(up_, first),
                              .type = source_of(up_),
                              .stride = up_.stride(0),
                              .columns = static_cast<int>(std::min(columns, up_.size(0) - first)),
                              .elements = static_cast<int>(rank_),
                              .panel = up_panels_at_ + item * up_bytes_,
                              .factor = up_factors_ + item});
    });
}

std::int64_t LowRankBeside::addend_stride(std::int64_t columns) const {
    return ceil_div(columns, beside_.layout.columns) * beside_.layout.columns;
}

std::int64_t LowRankBeside::scratch_words(std::int64_t block_rows,
                                          std::int64_t group_columns) const {
    return block_rows * (hidden_stride() + row_stride_ + 1) + kRows * addend_stride(group_columns);
}

LowRankBeside::Scratch LowRankBeside::scratch_at(void* memory, std::int64_t block_rows) const {
    auto* hidden = static_cast<float*>(memory);
    auto* words = reinterpret_cast<std::uint32_t*>(hidden + block_rows * hidden_stride());
    auto* factors = reinterpret_cast<float*>(words + block_rows * row_stride_);
    return {hidden, words, factors, factors + block_rows};
}

void LowRankBeside::pack_hidden(int count, const float* row_factors, const Scratch& scratch) const {
    if (down_.layout == MatrixLayout::int8) {  // sums become numbers where they are
        product_.finish({.sums = scratch.hidden,
                         .sums_stride = hidden_stride(),
                         .rows = count,
                         .columns = static_cast<int>(rank_),
                         .out = scratch.hidden,
                         .type = GemmSource::fp32,
                         .out_stride = hidden_stride(),
                         .column_factors = down_.factors.const_data_ptr<float>(),
                         .row_factors = row_factors,
                         .column_sums = down_.sums.const_data_ptr<std::int32_t>()});
    }
    beside_.pack_rows({.source = scratch.hidden,
                       .type = GemmSource::fp32,
                       .stride = hidden_stride(),
                       .rows = count,
                       .elements = static_cast<int>(rank_),
                       .words = scratch.words,
                       .words_stride = row_stride_,
                       .factors = scratch.factors});
}

const float* LowRankBeside::addend(int row, int count, std::int64_t column, std::int64_t columns,
                                   const Scratch& scratch) const {
    const std::int64_t width = beside_.layout.columns, stride = addend_stride(columns);
    const std::uint32_t* words = scratch.words + row * row_stride_;
    for (std::int64_t done = 0; done < columns; done += width) {
        const std::int64_t panel = (column + done) / width;
        beside_.multiply({.rows = &words,
                          .row_stride = row_stride_,
                          .panel = up_panels_at_ + panel * up_bytes_,
                          .depth = static_cast<int>(gemm_words(beside_.layout, rank_)),
                          .count = count,
                          .sums = scratch.addend + done,
                          .sums_stride = stride,
                          .columns = static_cast<int>(std::min(width, columns - done)),
                          .row_factors = scratch.factors + row,
                          .factor = up_factors_[panel]});
    }
    return scratch.addend;
}

}  // namespace zoetrope::ops
