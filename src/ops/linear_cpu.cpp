#include "ops/linear_cpu.h"

#include "base/error.h"
#include "kernels/gemm.h"
#include "ops/brgemm.h"
#include "ops/device.h"
#include "ops/linear_low_rank.h"
#include "ops/peak.h"
#include "ops/share_out.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/sum.h>
#include <c10/core/InferenceMode.h>

#include <optional>
#include <vector>

namespace zoetrope::ops {
namespace {

using kernels::GemmKernel;
using kernels::GemmSource;
using kernels::Isa;

// A block of packed rows (kBlockRows x kBlockWords words, 393 KiB), a panel and the sums of a group
// of columns share a second-level cache of 1 to 2 MiB. Many rows make packing panels cheap.
constexpr std::int64_t kBlockRows = 384;
constexpr std::int64_t kBlockWords = 256;
constexpr std::int64_t kGroupColumns = 576;
// Between rows of packed words, so that they do not fall into the same sets of the first cache.
constexpr std::int64_t kRowPadding = 16;
// Packed panels, which all threads share, and packed rows of one thread.
constexpr std::int64_t kPanelLimit = std::int64_t{64} << 20;  // bytes
constexpr std::int64_t kRowsLimit = std::int64_t{6} << 20;    // bytes
constexpr float kInt8Range = 127;
// Elements of a weight that a thread quantises at a time: 512 KiB in float32, in its second cache.
constexpr std::int64_t kQuantisedElements = std::int64_t{1} << 17;
constexpr float kLeastMagnitude = 1e-30F;  // of a row of weights: one of zeros is divided by it

struct Row {
    Isa isa;
    bool int8;
    GemmKernel (*make)();
};

// Best first.
constexpr Row kKernels[] = {
    {Isa::amxint8, true, gemm_amxint8},
    {Isa::amx, false, gemm_amx},
    {Isa::avx512fp16, false, kernels::gemm_avx512fp16},
    {Isa::avx512bf16, false, kernels::gemm_avx512bf16},
    {Isa::avx512vnni, true, kernels::gemm_avx512vnni},
    {Isa::avx512, false, kernels::gemm_avx512},
};

const Row* find_kernel(bool int8, Isa isa) {
    for (const Row& row : kKernels) {
        if (row.int8 == int8 && row.isa <= isa && (kernels::has(row.isa) || brgemm_runs(row.isa)))
            return &row;
    }
    return nullptr;
}

Isa int8_isa() {
    return amxint8_is_fastest() ? Isa::amxint8 : std::min(kernels::isa(), Isa::avx512fp16);
}

GemmSource source_of(at::ScalarType dtype) {
    return dtype == at::kFloat  ? GemmSource::fp32
           : dtype == at::kChar ? GemmSource::int8
                                : GemmSource::bf16;
}

// One product x [rows, in] W^T with W [out, in].
class Product {
public:
    Product(const GemmKernel& kernel, const at::Tensor& x, const Matrix& weight,
            const at::Tensor& bias, kernels::GemmActivation activation, const at::Tensor& out)
        : kernel_(kernel),
          packed_weight_(weight.layout == MatrixLayout::int8),
          x_(x),
          weight_(weight),
          bias_(bias),
          activation_(activation),
          out_(out),
          words_(gemm_words(kernel.layout, x.size(1))),
          parts_(ceil_div(words_, kBlockWords)),
          panels_(ceil_div(out.size(1), kernel.layout.columns)),
          panel_bytes_(gemm_panel_bytes(kernel.layout, words_)) {
        if (!weight.low_rank.defined()) return;
        if (kernel.layout.elements == 1) {
            static_assert(kMergedNumbers == kBlockWords);
            merged_.emplace(kernel, weight.low_rank);
        } else {
            const GemmKernel floats =
                packed_weight_ ? find_kernel(false, fastest_bf16_products())->make() : kernel;
            beside_.emplace(kernel, floats, weight.low_rank, packed_weight_);
        }
    }

    void run() {
        const int workers = threads();
        plan(workers);
        // With one block of rows nobody shares a panel: each is packed where it is used.
        const std::int64_t blocks = ceil_div(x_.size(0), block_rows_);
        shares_panels_ = !packed_weight_ && blocks > 1;
        const std::int64_t chunk =
            shares_panels_
                ? std::min<std::int64_t>(std::max<std::int64_t>(kPanelLimit / panel_bytes_, group_),
                                         panels_)
                : panels_;
        const std::int64_t shared = shares_panels_ ? chunk * (panel_bytes_ + 4 * parts_) : 0;
        const std::int64_t down = packs_down() ? beside_->down_panels() * panel_bytes_ : 0;
        const std::int64_t added = merged_ ? merged_->bytes() : beside_ ? beside_->bytes() : 0;
        workspace_ = at::empty({thread_bytes_ * workers + shared + down + added}, at::kByte);
        panel_factors_ = reinterpret_cast<float*>(base() + thread_bytes_ * workers);
        shared_panels_ = reinterpret_cast<std::uint8_t*>(panel_factors_ + chunk * parts_);
        down_ = base() + thread_bytes_ * workers + shared;
        if (merged_) merged_->prepare(down_ + down, workers);
        if (beside_) beside_->prepare(down_ + down, workers);
        if (packs_down()) {
            share_out(beside_->down_panels() * parts_, workers, [&](std::int64_t item, auto) {
                const std::int64_t panel = item / parts_, part = item % parts_;
                kernel_.pack_columns(columns_of(beside_->down().data, panel, part,
                                                down_ + panel * panel_bytes_ + offset_of(part)));
            });
        }
        for (first_panel_ = 0; first_panel_ < panels_; first_panel_ += chunk) {
            const std::int64_t count = std::min(chunk, panels_ - first_panel_);
            if (shares_panels_) {
                share_out(count * parts_, workers, [&](std::int64_t item, std::int64_t worker) {
                    const std::int64_t panel = item / parts_, part = item % parts_;
                    panel_factors_[item] = pack_panel(
                        panel, part, shared_panels_ + panel * panel_bytes_ + offset_of(part),
                        scratch_of(worker));
                });
            }
            const std::int64_t groups = ceil_div(count, group_);
            const std::int64_t splits =
                std::clamp<std::int64_t>(ceil_div(2 * workers, blocks), 1, groups);
            share_out(blocks * splits, workers, [&](std::int64_t item, std::int64_t worker) {
                const std::int64_t split = item % splits;
                multiply_block(item / splits, groups * split / splits,
                               groups * (split + 1) / splits, count, worker);
            });
        }
    }

private:
    static constexpr std::int64_t kStride = kBlockWords + kRowPadding;

    void plan(int workers) {
        // Blocks for all threads, but rows enough in each that packing a panel pays.
        const std::int64_t share = ceil_div(ceil_div(x_.size(0), workers), 8) * 8;
        block_rows_ =
            std::clamp<std::int64_t>(share, std::min<std::int64_t>(96, x_.size(0)), kBlockRows);
        group_ = std::max<std::int64_t>(1, kGroupColumns / kernel_.layout.columns);
        keeps_rows_ = packed_weight_ || 4 * block_rows_ * kStride * parts_ <= kRowsLimit;
        const std::int64_t slots = keeps_rows_ ? parts_ : 1;
        rows_words_ = block_rows_ * kStride * slots;
        sums_words_ = block_rows_ * sums_stride();
        strip_words_ = gemm_panel_bytes(kernel_.layout, std::min(words_, kBlockWords)) / 4;
        factor_words_ = block_rows_ * slots;
        const std::int64_t added = merged_   ? merged_->room_words()
                                   : beside_ ? beside_->scratch_words(block_rows_, sums_stride())
                                             : 0;
        thread_bytes_ =
            ceil_div(4 * (rows_words_ + sums_words_ + strip_words_ + factor_words_ + added), 64) *
            64;
    }

    std::uint8_t* base() { return static_cast<std::uint8_t*>(workspace_.mutable_data_ptr()); }

    // One thread's part of the workspace.
    struct Scratch {
        std::uint32_t* rows;
        float* sums;
        std::uint32_t* strip;
        float* factors;
        float* added;  // what a low-rank addition asks for
    };
    Scratch scratch_of(std::int64_t worker) {
        auto* rows = reinterpret_cast<std::uint32_t*>(base() + worker * thread_bytes_);
        auto* sums = reinterpret_cast<float*>(rows + rows_words_);
        auto* strip = rows + rows_words_ + sums_words_;
        auto* factors = reinterpret_cast<float*>(strip + strip_words_);
        return {rows, sums, strip, factors, factors + factor_words_};
    }

    // Floats from one row of sums to the next.
    std::int64_t sums_stride() const { return group_ * kernel_.layout.columns; }

    std::int64_t depth_of(std::int64_t part) const {
        return std::min(kBlockWords, words_ - part * kBlockWords);
    }

    // Where a part begins in a panel, bytes.
    std::int64_t offset_of(std::int64_t part) const {
        return gemm_panel_bytes(kernel_.layout, part * kBlockWords);
    }

    std::uint32_t* rows_of(std::int64_t part, const Scratch& scratch) const {
        return scratch.rows + (keeps_rows_ ? part * block_rows_ * kStride : 0);
    }
    float* factors_of(std::int64_t part, const Scratch& scratch) const {
        return scratch.factors + (keeps_rows_ && !packed_weight_ ? part * block_rows_ : 0);
    }

    // Elements of a part of a depth; the last may end inside a word.
    int elements_of(std::int64_t depth, std::int64_t part) const {
        const std::int64_t most = kBlockWords * kernel_.layout.elements;
        return static_cast<int>(std::min(depth - part * most, most));
    }

    // A panel of w [columns, depth] and a part of its depth.
    kernels::GemmColumns columns_of(const at::Tensor& w, std::int64_t panel, std::int64_t part,
                                    void* to) const {
        const std::int64_t column = panel * kernel_.layout.columns;
        return {.source = static_cast<const char*>(w.const_data_ptr()) +
                          (column * w.stride(0) + part * kBlockWords * kernel_.layout.elements) *
                              w.element_size(),
                .type = source_of(w.scalar_type()),
                .stride = w.stride(0),
                .columns = static_cast<int>(
                    std::min<std::int64_t>(kernel_.layout.columns, w.size(0) - column)),
                .elements = elements_of(w.size(1), part),
                .panel = to};
    }

    // Of a panel counted from first_panel_. -> what its numbers were divided by
    float pack_panel(std::int64_t panel, std::int64_t part, void* to,
                     const Scratch& scratch) const {
        panel += first_panel_;
        kernels::GemmColumns call = columns_of(weight_.data, panel, part, to);
        if (merged_) {
            call.addend = merged_->rows(panel, part, scratch.added);
            call.addend_stride = merged_->stride();
            if (weight_.factors.defined())
                call.scales =
                    weight_.factors.const_data_ptr<float>() + panel * kernel_.layout.columns;
        }
        float factor = 1;
        call.factor = &factor;
        kernel_.pack_columns(call);
        return factor;
    }

    struct Strip {
        const void* panel;
        float factor;
    };
    Strip strip_of(std::int64_t panel, std::int64_t part, const Scratch& scratch) const {
        const std::int64_t offset = offset_of(part);
        if (packed_weight_) return {packed_panel(weight_, panel) + offset, 1};
        if (shares_panels_)
            return {shared_panels_ + panel * panel_bytes_ + offset,
                    panel_factors_[panel * parts_ + part]};
        return {scratch.strip, pack_panel(panel, part, scratch.strip, scratch)};
    }

    const std::uint8_t* packed_panel(const Matrix& matrix, std::int64_t panel) const {
        return static_cast<const std::uint8_t*>(matrix.data.const_data_ptr()) +
               panel * panel_bytes_;
    }

    void pack_rows(std::int64_t first, int count, std::int64_t part, const Scratch& scratch) const {
        kernel_.pack_rows(
            {.source = static_cast<const char*>(x_.const_data_ptr()) +
                       (first * x_.stride(0) + part * kBlockWords * kernel_.layout.elements) *
                           x_.element_size(),
             .type = source_of(x_.scalar_type()),
             .stride = x_.stride(0),
             .rows = count,
             .elements = elements_of(x_.size(1), part),
             .words = rows_of(part, scratch),
             .words_stride = kStride,
             .factors = factors_of(part, scratch)});
    }

    // Whether `down` is yet to be packed into panels of the product.
    bool packs_down() const { return beside_ && !packed_weight_; }

    LowRankBeside::Scratch beside_scratch(const Scratch& scratch) const {
        return beside_->scratch_at(scratch.added, block_rows_);
    }

    // A part of the rows times `down`, added to the hidden sums.
    void multiply_down(std::int64_t part, int count, const Scratch& scratch) const {
        const LowRankBeside::Scratch room = beside_scratch(scratch);
        for (std::int64_t panel = 0; panel < beside_->down_panels(); ++panel) {
            const std::uint8_t* at =
                packs_down() ? down_ + panel * panel_bytes_ : packed_panel(beside_->down(), panel);
            const std::int64_t column = panel * kernel_.layout.columns;
            multiply({at + offset_of(part), 1}, part, count, scratch,
                     {.at = room.hidden + column,
                      .stride = beside_->hidden_stride(),
                      .columns = static_cast<int>(std::min<std::int64_t>(beside_->rank() - column,
                                                                         kernel_.layout.columns))});
        }
    }

    // Rows of a block by the groups [begin, end) of the current panels.
    void multiply_block(std::int64_t block, std::int64_t begin, std::int64_t end,
                        std::int64_t panels, std::int64_t worker) {
        const Scratch scratch = scratch_of(worker);
        const std::int64_t first = block * block_rows_;
        const int count = static_cast<int>(std::min(block_rows_, x_.size(0) - first));
        if (packed_weight_) measure_rows(first, count, scratch);
        for (std::int64_t part = 0; keeps_rows_ && part < parts_; ++part)
            pack_rows(first, count, part, scratch);
        for (std::int64_t group = begin; group < end; ++group) {
            const std::int64_t low = group * group_, high = std::min(panels, low + group_);
            for (std::int64_t part = 0; part < parts_; ++part) {
                if (!keeps_rows_) pack_rows(first, count, part, scratch);
                if (beside_ && group == begin) multiply_down(part, count, scratch);
                for (std::int64_t panel = low; panel < high; ++panel)
                    multiply(strip_of(panel, part, scratch), part, count, scratch,
                             {.at = scratch.sums + (panel - low) * kernel_.layout.columns,
                              .stride = sums_stride()});
            }
            if (beside_ && group == begin)
                beside_->pack_hidden(count, scratch.factors, beside_scratch(scratch));
            finish(first, count, first_panel_ + low, first_panel_ + high, scratch);
        }
        if (kernel_.release != nullptr) kernel_.release();
    }

    struct Sums {
        float* at;
        std::int64_t stride;
        int columns = 0;  // of the panel; 0: all
    };
    void multiply(const Strip& strip, std::int64_t part, int count, const Scratch& scratch,
                  const Sums& sums) const {
        const std::uint32_t* rows = rows_of(part, scratch);
        kernel_.multiply({.rows = &rows,
                          .row_stride = kStride,
                          .panel = strip.panel,
                          .depth = static_cast<int>(depth_of(part)),
                          .count = count,
                          .sums = sums.at,
                          .sums_stride = sums.stride,
                          .add = part > 0,
                          .columns = sums.columns,
                          .row_factors = factors_of(part, scratch),
                          .factor = strip.factor});
    }

    // What the rows of a block are to be divided by, for int8.
    void measure_rows(std::int64_t first, int count, const Scratch& scratch) const {
        kernel_.measure_rows({.source = static_cast<const char*>(x_.const_data_ptr()) +
                                        first * x_.stride(0) * x_.element_size(),
                              .type = source_of(x_.scalar_type()),
                              .stride = x_.stride(0),
                              .rows = count,
                              .elements = static_cast<int>(x_.size(1)),
                              .factors = scratch.factors});
    }

    // The sums of panels [low, high) become results, what is added beside with them.
    void finish(std::int64_t first, int count, std::int64_t low, std::int64_t high,
                const Scratch& scratch) const {
        const std::int64_t column = low * kernel_.layout.columns;
        const std::int64_t columns = std::min(high * kernel_.layout.columns, out_.size(1)) - column;
        const auto behind = [column](const at::Tensor& x) {
            return x.defined() ? x.const_data_ptr<float>() + column : nullptr;
        };
        kernels::GemmFinish call{
            .sums_stride = sums_stride(),
            .columns = static_cast<int>(columns),
            .bias = behind(bias_),
            .activation = activation_,
            .type = source_of(out_.scalar_type()),
            .out_stride = out_.stride(0),
            .column_factors = merged_ ? nullptr : behind(weight_.factors),
            .column_sums =
                packed_weight_ ? weight_.sums.const_data_ptr<std::int32_t>() + column : nullptr};
        const int step = beside_ ? LowRankBeside::kRows : count;
        for (int row = 0; row < count; row += step) {
            call.rows = std::min(step, count - row);
            call.sums = scratch.sums + row * sums_stride();
            call.row_factors = scratch.factors + row;
            call.out = static_cast<char*>(out_.mutable_data_ptr()) +
                       ((first + row) * out_.stride(0) + column) * out_.element_size();
            if (beside_) {
                call.addend =
                    beside_->addend(row, call.rows, column, columns, beside_scratch(scratch));
                call.addend_stride = beside_->addend_stride(columns);
            }
            kernel_.finish(call);
        }
    }

    const GemmKernel kernel_;
    const bool packed_weight_;
    const at::Tensor x_;  // [rows, in], channels side by side
    const Matrix& weight_;
    const at::Tensor bias_;  // fp32
    const kernels::GemmActivation activation_;
    const at::Tensor out_;      // [rows, out]
    const std::int64_t words_;  // of the depth
    const std::int64_t parts_;  // of the depth
    const std::int64_t panels_;
    const std::int64_t panel_bytes_;
    std::optional<MergedLowRank> merged_;  // where the weight has an addition, one of these two
    std::optional<LowRankBeside> beside_;
    std::int64_t block_rows_ = 0;
    std::int64_t group_ = 0;   // panels
    bool keeps_rows_ = false;  // those of the whole depth stay packed while a block is worked on
    bool shares_panels_ = false;
    std::int64_t rows_words_ = 0, sums_words_ = 0, strip_words_ = 0, factor_words_ = 0;
    std::int64_t thread_bytes_ = 0;
    at::Tensor workspace_;
    std::int64_t first_panel_ = 0;    // of those that are packed now
    float* panel_factors_ = nullptr;  // [panels at once][parts_]
    std::uint8_t* shared_panels_ = nullptr;
    std::uint8_t* down_ = nullptr;  // of a low-rank addition beside: [down_panels()][panel_bytes_]
};

// Whether a low-rank addition can be part of the product.
bool adds_low_rank(const LowRank& low) {
    const auto takes = [](const at::Tensor& x) {
        return x.is_cpu() && x.stride(1) == 1 &&
               (x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kFloat);
    };
    return takes(low.up) && takes(low.down);
}

}  // namespace

Isa linear_cpu_isa(const Matrix& weight) {
    if (weight.layout == MatrixLayout::int8) return int8_isa();
    return amx_is_fastest() ? Isa::amx : fastest_bf16_products();
}

bool linear_cpu_takes(const LinearArgs& args, Isa isa) {
    const bool int8 = args.weight.layout == MatrixLayout::int8;
    const at::ScalarType dtype = args.x.scalar_type();
    if (args.weight.low_rank.defined() && !adds_low_rank(args.weight.low_rank)) return false;
    if (!args.x.is_cpu() || args.x.numel() == 0 || find_kernel(int8, isa) == nullptr) return false;
    if (int8) return dtype == at::kBFloat16 || dtype == at::kFloat;
    return dtype == at::kBFloat16 && args.weight.data.stride(1) == 1;
}

at::Tensor linear_cpu(const LinearArgs& args, Isa isa) {
    const bool int8 = args.weight.layout == MatrixLayout::int8;
    const Row* row = find_kernel(int8, isa);
    ZT_CHECK(row != nullptr, internal, "linear: no kernel takes this call");
    at::Tensor x = args.x.reshape({-1, args.x.size(-1)});
    if (x.stride(1) != 1) x = x.contiguous();
    const std::int64_t columns = args.weight.out_features();
    std::vector<std::int64_t> shape = args.x.sizes().vec();
    shape.back() = columns;
    at::Tensor result = args.out.defined() ? args.out : at::empty(shape, x.options());
    const at::Tensor out = result.view({x.size(0), columns});
    const at::Tensor bias =
        args.bias.defined() ? args.bias.to(at::kFloat).contiguous() : at::Tensor();
    using kernels::GemmActivation;
    const GemmActivation activation = args.epilogue == Epilogue::gelu_tanh
                                          ? GemmActivation::gelu_tanh
                                      : args.epilogue == Epilogue::silu ? GemmActivation::silu
                                                                        : GemmActivation::none;
    Product(row->make(), x, args.weight, bias, activation, out).run();
    if (args.epilogue == Epilogue::gelu_erf) at::gelu_(result, "none");
    return result;
}

std::int64_t linear_workspace_bytes(int threads) {
    const std::int64_t sums = 4 * kBlockRows * (kGroupColumns + 96);
    return kPanelLimit + threads * (2 * kRowsLimit + sums);
}

bool takes_int8(at::Device device, at::ScalarType dtype) {
    return device.is_cpu() && find_kernel(true, int8_isa()) != nullptr &&
           (dtype == at::kBFloat16 || dtype == at::kFloat);
}

namespace {

// Rows of 8-bit numbers, their factors and their sums.
Matrix quantise_rows(const at::Tensor& weight) {
    const std::int64_t rows = weight.size(0);
    Matrix matrix{.data = at::empty(weight.sizes(), weight.options().dtype(at::kChar)),
                  .layout = MatrixLayout::int8_rows,
                  .factors = at::empty({rows}, weight.options().dtype(at::kFloat)),
                  .sums = at::empty({rows}, weight.options().dtype(at::kInt))};
    const std::int64_t step = std::max<std::int64_t>(1, kQuantisedElements / weight.size(1));
    share_out(ceil_div(rows, step), threads(), [&](std::int64_t chunk, auto) {
        const c10::InferenceMode inference;  // each thread has its own
        const std::int64_t first = chunk * step;
        const std::int64_t count = std::min(step, rows - first);
        const at::Tensor numbers = weight.narrow(0, first, count).to(at::kFloat, false, true);
        const at::Tensor factors =
            at::amax(at::abs(numbers), {1}).clamp_min_(kLeastMagnitude).div_(kInt8Range);
        numbers.div_(factors.unsqueeze(1)).round_();
        matrix.data.narrow(0, first, count).copy_(numbers);
        matrix.factors.narrow(0, first, count).copy_(factors);
        // Exact: whole numbers below 2^24 (127 times up to 132,000 of them).
        matrix.sums.narrow(0, first, count).copy_(at::sum(numbers, {1}));
    });
    return matrix;
}

}  // namespace

Matrix quantise_int8_rows(const at::Tensor& weight) {
    Matrix matrix = quantise_rows(weight);
    matrix.sums.reset();  // linear() does without
    return matrix;
}

Matrix quantise_int8(const at::Tensor& weight) {
    ZT_CHECK(takes_int8(weight.device(), at::kFloat), internal, "quantise_int8: no kernel for it");
    const GemmKernel kernel = find_kernel(true, int8_isa())->make();
    const Matrix rows = quantise_rows(weight);
    const std::int64_t columns = weight.size(0), in = weight.size(1);
    const std::int64_t bytes = gemm_panel_bytes(kernel.layout, gemm_words(kernel.layout, in));
    const std::int64_t panels = ceil_div(columns, kernel.layout.columns);
    Matrix matrix{.data = at::empty({panels, bytes}, at::kByte),
                  .layout = MatrixLayout::int8,
                  .factors = rows.factors,
                  .sums = rows.sums,
                  .features = {columns, in}};
    share_out(panels, threads(), [&](std::int64_t panel, auto) {
        const std::int64_t first = panel * kernel.layout.columns;
        kernel.pack_columns(
            {.source = rows.data.const_data_ptr<std::int8_t>() + first * in,
             .type = GemmSource::int8,
             .stride = in,
             .columns =
                 static_cast<int>(std::min<std::int64_t>(kernel.layout.columns, columns - first)),
             .elements = static_cast<int>(in),
             .panel = static_cast<std::uint8_t*>(matrix.data.mutable_data_ptr()) + panel * bytes});
    });
    return matrix;
}

}  // namespace zoetrope::ops
