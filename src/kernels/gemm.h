// Products of rows with packed columns: the contract of the kernels under linear layers and
// convolutions.
//
// A matrix product is cut into blocks of rows, panels of columns and parts of the depth, small
// enough that a block of packed rows and a panel stay in the second-level cache. A kernel packs
// both, multiplies a block by a panel and turns finished sums into results. A convolution is the
// same product with several taps: the rows under each tap begin at another address. Kernels
// allocate nothing, start no threads and may run in many threads at once; every sum has a fixed
// order.
//
// Rows and columns are packed into words of 32 bits, `elements` of the depth each (kind by kind):
//   fp32  one float; columns likewise
//   bf16  a pair, the first one in the low half; columns likewise
//   fp16  one fp16, twice; columns are 16-bit fp16
//   int8  four unsigned 8-bit numbers, rows being quantised x + 128; columns signed 8 bit
// Sums are float32; with fp16 those of at most kGemmFp16Chunk steps are fp16, with int8 all are
// int32 until finish().
#pragma once

#include <cstdint>

namespace zoetrope::kernels {

struct GemmLayout {
    int columns;       // of a panel
    int elements;      // of the depth per word
    int column_bytes;  // of one column in a panel per word of depth
};

constexpr GemmLayout kGemmRef{.columns = 16, .elements = 1, .column_bytes = 4};
constexpr GemmLayout kGemmAvx512{.columns = 48, .elements = 1, .column_bytes = 4};
constexpr GemmLayout kGemmAvx512Bf16{.columns = 48, .elements = 2, .column_bytes = 4};
constexpr GemmLayout kGemmAvx512Fp16{.columns = 96, .elements = 1, .column_bytes = 2};
constexpr GemmLayout kGemmAvx512Vnni{.columns = 48, .elements = 4, .column_bytes = 4};

// Steps whose products are summed in fp16: sums of 128 numbers below 1 are far from its range. A
// convolution's error is then 1.56e-3 of the result (1.2e-3 with 64 steps, at 5 to 9 % less speed);
// rounding the factors to bf16 costs 2.3e-3.
constexpr int kGemmFp16Chunk = 128;

constexpr std::int64_t gemm_words(const GemmLayout& layout, std::int64_t elements) {
    return (elements + layout.elements - 1) / layout.elements;
}

// Bytes of a panel of that many words of depth.
constexpr std::int64_t gemm_panel_bytes(const GemmLayout& layout, std::int64_t words) {
    return words * layout.columns * layout.column_bytes;
}

enum class GemmSource { fp32, bf16, int8 };  // int8: columns only

// Rows to be packed: words [rows][words_stride]; the depth is filled up with zeros to whole words.
struct GemmRows {
    const void* source = nullptr;
    GemmSource type = GemmSource::fp32;
    std::int64_t stride = 0;  // elements from one row to the next
    int rows = 0;
    int elements = 0;
    std::uint32_t* words = nullptr;
    std::int64_t words_stride = 0;
    // [rows]. fp16: written, the power of two that a row's numbers were divided by, so that they
    // are at most 1. int8: read, what they are to be divided by. Others: neither.
    float* factors = nullptr;
};

// Columns to be packed into one panel; those behind the last become zero.
struct GemmColumns {
    const void* source = nullptr;  // column j begins at j * stride
    GemmSource type = GemmSource::bf16;
    std::int64_t stride = 0;  // elements
    int columns = 0;          // 1 to layout.columns
    int elements = 0;
    void* panel = nullptr;
    float* factor = nullptr;  // fp16: written, the power of two that the panel was divided by
    // Not int8: the numbers times scales[j] (null: 1) and, of column j from j * addend_stride on,
    // plus the addend (null: nothing).
    const float* scales = nullptr;  // [columns]
    const float* addend = nullptr;
    std::int64_t addend_stride = 0;
};

struct GemmTile {
    const std::uint32_t* const* rows = nullptr;  // [taps]: the first row under each tap
    std::int64_t row_stride = 0;                 // words from one row to the next
    const void* panel = nullptr;                 // [taps][depth][columns]
    int taps = 1;
    int depth = 0;          // words
    int count = 0;          // rows
    float* sums = nullptr;  // [count][sums_stride]; int8: int32
    std::int64_t sums_stride = 0;
    bool add = false;  // to what is in sums
    int columns = 0;   // those wanted, from the first; sums of others may be left out. 0: all
    // fp16: products are multiplied by row_factors[row] * factor on their way into the sums.
    const float* row_factors = nullptr;  // null: 1
    float factor = 1;
};

enum class GemmActivation { none, gelu_tanh, silu };

struct GemmFinish {
    const float* sums = nullptr;  // int8: int32
    std::int64_t sums_stride = 0;
    int rows = 0;
    int columns = 0;
    const float* bias = nullptr;    // [columns] or null
    const float* addend = nullptr;  // [rows][addend_stride], added to what the sums give; or null
    std::int64_t addend_stride = 0;
    GemmActivation activation = GemmActivation::none;
    void* out = nullptr;
    GemmSource type = GemmSource::bf16;     // of out
    std::int64_t out_stride = 0;            // elements
    const float* column_factors = nullptr;  // [columns]: the sums are multiplied by them first
    // int8 only: result = (sum - 128 * column_sums) * row_factors * column_factors
    const float* row_factors = nullptr;         // [rows]
    const std::int32_t* column_sums = nullptr;  // [columns]
};

struct GemmKernel {
    GemmLayout layout;
    void (*measure_rows)(const GemmRows&);  // int8: writes the factors; else null
    void (*pack_rows)(const GemmRows&);
    void (*pack_columns)(const GemmColumns&);
    void (*multiply)(const GemmTile&);
    void (*finish)(const GemmFinish&);
    // Lets go of registers that multiply() has set up on this thread; null: there are none.
    void (*release)() = nullptr;
};

GemmKernel gemm_ref();
GemmKernel gemm_avx512();
GemmKernel gemm_avx512bf16();
GemmKernel gemm_avx512fp16();
GemmKernel gemm_avx512vnni();

}  // namespace zoetrope::kernels
