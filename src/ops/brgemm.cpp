#include "ops/brgemm.h"

#include "kernels/softmax.h"

#include <ATen/native/CPUBlas.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <vector>

namespace zoetrope::ops {
namespace {

using kernels::AttentionCall;
using kernels::GemmTile;
using kernels::Isa;

constexpr int kTileRows = 16;  // of a tile register, and numbers of 32 bits in one of its rows

int round_up(int n, int step) { return (n + step - 1) / step * step; }

template <class A, class B, class Sum>
struct Operands {
    using Row = A;
    using Column = B;
    using Result = Sum;
    static constexpr int kPerWord = 4 / sizeof(A);
};
using Bf16 = Operands<c10::BFloat16, c10::BFloat16, float>;
using Int8 = Operands<unsigned char, signed char, std::int32_t>;

// Rows that overlap (a convolution's) are multiplied part by part: brgemm wants rows no longer than
// the way from one to the next.
template <class T>
void multiply(const GemmTile& tile) {
    constexpr int kWidth = kernels::kGemmAvx512Bf16.columns;
    static_assert(kWidth == kernels::kGemmAvx512Vnni.columns);
    const int columns = tile.columns == 0 ? kWidth : round_up(tile.columns, kTileRows);
    const auto* panel = static_cast<const std::uint32_t*>(tile.panel);
    bool add = tile.add;
    for (int tap = 0; tap < tile.taps; ++tap) {
        const std::uint32_t* rows = tile.rows[tap];
        for (std::int64_t done = 0; done < tile.depth; done += tile.row_stride) {
            const std::int64_t depth = std::min<std::int64_t>(tile.depth - done, tile.row_stride);
            at::native::cpublas::brgemm(
                tile.count, columns, depth * T::kPerWord, tile.row_stride * T::kPerWord, kWidth,
                tile.sums_stride, add, reinterpret_cast<const typename T::Row*>(rows + done),
                reinterpret_cast<const typename T::Column*>(panel + done * kWidth),
                reinterpret_cast<typename T::Result*>(tile.sums));
            add = true;
        }
        panel += static_cast<std::ptrdiff_t>(tile.depth) * kWidth;
    }
}

void release() { at::native::cpublas::brgemm_release(); }

// Blocks as large as attention's.
template <class T>
double peak(std::int64_t iterations, float* sink) {
    constexpr int kRows = 192, kColumns = 64, kDepth = 512;
    // An iteration of kernels/peak.h is some 1,500 operations.
    constexpr double kOperations = 2.0 * kRows * kColumns * kDepth;
    const auto products = std::max<std::int64_t>(
        1, static_cast<std::int64_t>(static_cast<double>(iterations) * 1536 / kOperations));
    const std::vector<typename T::Row> a(static_cast<std::size_t>(kRows * kDepth));
    const std::vector<typename T::Column> b(static_cast<std::size_t>(kDepth * kColumns));
    std::vector<typename T::Result> c(static_cast<std::size_t>(kRows * kColumns));
    for (std::int64_t i = 0; i < products; ++i)
        at::native::cpublas::brgemm(kRows, kColumns, kDepth, kDepth, kColumns, kColumns, i > 0,
                                    a.data(), b.data(), c.data());
    release();
    *sink += static_cast<float>(c.front() + c.back());
    return kOperations * static_cast<double>(products);
}

// One call's memory: AttentionCall::scratch.
struct Blocks {
    c10::BFloat16* q;  // [rows][head_size]
    float* out;        // [rows][head_size]
    float* logits;     // [rows][stride], probabilities in their place
    float* maximum;    // [rows]
    float* sum;        // [rows]

    explicit Blocks(const AttentionCall& call) {
        constexpr std::ptrdiff_t rows = kernels::kAttentionAmx.queries;
        out = call.scratch;
        q = reinterpret_cast<c10::BFloat16*>(out + rows * call.head_size);
        logits = out + 2 * rows * call.head_size;
        maximum = logits + rows * kernels::kAttentionAmx.logit_stride();
        sum = maximum + rows;
    }
};

}  // namespace

bool brgemm_runs(Isa isa) {
    return kernels::has(isa) || (isa == Isa::amx && kernels::has(Isa::avx512bf16)) ||
           (isa == Isa::amxint8 && kernels::has(Isa::avx512vnni));
}

kernels::GemmKernel gemm_amx() {
    kernels::GemmKernel kernel = kernels::gemm_avx512bf16();
    kernel.multiply = multiply<Bf16>;
    kernel.release = release;
    return kernel;
}

kernels::GemmKernel gemm_amxint8() {
    kernels::GemmKernel kernel = kernels::gemm_avx512vnni();
    kernel.multiply = multiply<Int8>;
    kernel.release = release;
    return kernel;
}

double peak_bf16_amx(std::int64_t iterations, float* sink) { return peak<Bf16>(iterations, sink); }
double peak_int8_amx(std::int64_t iterations, float* sink) { return peak<Int8>(iterations, sink); }

void attention_amx(const AttentionCall& call) {
    constexpr kernels::AttentionLayout kLayout = kernels::kAttentionAmx;
    constexpr std::int64_t kStride = kLayout.logit_stride();
    const Blocks blocks(call);
    const int channels = call.head_size;
    const int rows = round_up(call.queries, kTileRows);  // few sizes: each is a kernel of its own
    const auto* q = static_cast<const c10::BFloat16*>(call.q);
    for (int row = 0; row < call.queries; ++row)
        std::copy_n(q + row * call.q_stride, channels, blocks.q + row * channels);
    std::fill(blocks.q + call.queries * channels, blocks.q + rows * channels, c10::BFloat16(0.0F));
    for (std::int64_t first = 0; first < call.kv_length; first += kLayout.key_block) {
        const int keys =
            static_cast<int>(std::min<std::int64_t>(kLayout.key_block, call.kv_length - first));
        const int padded = round_up(keys, kLayout.panel);
        const auto* k = static_cast<const c10::BFloat16*>(call.keys) + first * channels;
        const auto* v = static_cast<const c10::BFloat16*>(call.values) + first * channels;
        for (int key = 0; key < padded; key += kLayout.panel)
            at::native::cpublas::brgemm(rows, kLayout.panel, channels, channels, kLayout.panel,
                                        kStride, false, blocks.q, k + key * channels,
                                        blocks.logits + key);
        kernels::softmax_rows_avx512bf16({.logits = blocks.logits,
                                          .stride = kStride,
                                          .rows = rows,
                                          .keys = keys,
                                          .padded = padded,
                                          .scale = call.scale,
                                          .first = first == 0,
                                          .maximum = blocks.maximum,
                                          .sum = blocks.sum,
                                          .out = blocks.out,
                                          .channels = channels});
        at::native::cpublas::brgemm(
            rows, channels, padded, 2 * kStride, channels, channels, first > 0,
            reinterpret_cast<const c10::BFloat16*>(blocks.logits), v, blocks.out);
    }
    release();
    kernels::softmax_finish_avx512bf16({.out = blocks.out,
                                        .sum = blocks.sum,
                                        .rows = call.queries,
                                        .channels = channels,
                                        .bf16 = static_cast<std::uint16_t*>(call.out),
                                        .bf16_stride = call.out_stride});
    if (call.row_maximum == nullptr) return;
    std::copy_n(blocks.maximum, call.queries, call.row_maximum);
    std::copy_n(blocks.sum, call.queries, call.row_sum);
}

}  // namespace zoetrope::ops
