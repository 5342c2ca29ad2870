// Scaled dot-product attention for one head and one block of queries: the contract of its kernels.
//
// A kernel reads rows of Q as they are and K and V packed as below, keeps a running maximum and sum
// over blocks of keys, in a fixed order, and writes rows of the result. With float32 and bf16
// numbers NaN and infinity behave as in the formula, and a row with a logit of +inf is NaN; the
// others need finite numbers, and logits within attention_limit(). Kernels allocate nothing, start
// no threads and may run in many threads at once, each with its own scratch.
//
// Packed K and V consist of 32-bit words of E = layout.per_word() numbers, the first one in the
// lowest bits. With L keys, P = layout.panel and B = layout.key_block:
//   keys    [ceil(L / P)][head_size / E][P], a word being E channels of a key; any behind key L
//   values  per B keys (N of them, less in the last block): [head_size / P][ceil(N / E)][P], a word
//           being E keys of a channel; zero behind key L. With layout.rows(), instead:
//           [ceil(N / P) * P / E][head_size]
#pragma once

#include <cstdint>

namespace zoetrope::kernels {

constexpr int kAttentionPanel = 8;

// The numbers of packed K and V. Rows of Q and O are bf16 where these are, else float32. A key is
// key_scales[its block] times an fp16 or int8 number, a value value_means[d] + value_scales[d]
// times it.
enum class AttentionNumbers {
    float32,
    bf16,
    fp16,  // each twice in its word; all key_scales are the same
    int8,  // keys plus 128, as u8
};

struct AttentionLayout {
    AttentionNumbers numbers;
    int queries;    // at most, per call
    int key_block;  // keys between two looks at the maximum; S, P and this much of K and V stay in
                    // the second-level cache
    int panel = kAttentionPanel;

    // Whether a product's values lie beside each other, and its logits in rows.
    constexpr bool rows() const { return panel != kAttentionPanel; }
    // From one query's logits to the next, where they are rows: not into the same sets of a cache.
    constexpr int logit_stride() const { return key_block + (rows() ? 16 : 0); }
    constexpr int per_word() const {
        constexpr int kCounts[] = {1, 2, 1, 4};
        return kCounts[static_cast<int>(numbers)];
    }
    // Whether K and V are to be scaled.
    constexpr bool scaled() const { return numbers >= AttentionNumbers::fp16; }
};

constexpr AttentionLayout kAttentionRef{AttentionNumbers::float32, 16, 256};
constexpr AttentionLayout kAttentionAvx2{AttentionNumbers::float32, 96, 128};
constexpr AttentionLayout kAttentionAvx512{AttentionNumbers::float32, 96, 128};
constexpr AttentionLayout kAttentionAvx512Bf16{AttentionNumbers::bf16, 96, 256};
constexpr AttentionLayout kAttentionAvx512Fp16{AttentionNumbers::fp16, 96, 256};
// Products of 192 rows by 64 columns: 3 MFLOP in some 2 us of a core with AMX.
constexpr AttentionLayout kAttentionAmx{AttentionNumbers::bf16, 192, 512, 64};
constexpr AttentionLayout kAttentionInt8Ref{AttentionNumbers::int8, 16, 128};
constexpr AttentionLayout kAttentionAvx512Vnni{AttentionNumbers::int8, 96, 128};

struct AttentionCall {
    const void* q = nullptr;    // rows of head_size elements
    bool bf16_rows = false;     // Q and O: bf16, as always with bf16 numbers and never with float32
    std::int64_t q_stride = 0;  // elements from one row to the next
    const void* keys = nullptr;  // packed
    const void* values = nullptr;
    const float* key_scales = nullptr;    // [ceil(L / B)]; these three for fp16 and int8
    const float* value_scales = nullptr;  // [head_size]
    const float* value_means = nullptr;   // [head_size]
    void* out = nullptr;                  // rows of head_size elements
    std::int64_t out_stride = 0;
    int queries = 0;             // 1 to layout.queries
    int head_size = 0;           // a multiple of 16
    std::int64_t kv_length = 0;  // L, at least 1
    float scale = 0;             // of the logits, times log2(e); positive
    // Optional, [queries]: the log-sum-exp of a row is ln 2 * (maximum + log2(sum)).
    float* row_maximum = nullptr;
    float* row_sum = nullptr;
    float* scratch = nullptr;  // attention_scratch(layout, head_size) floats, on a cache line
};

// Floats of scratch: Q and O with queries in lanes, the logits, two numbers per query.
constexpr std::int64_t attention_scratch(const AttentionLayout& layout, int head_size) {
    return std::int64_t{layout.queries} * (2 * head_size + layout.logit_stride() + 2);
}

// What |q_d| * key_scales[i] * scale may be at most: then fp16 sums over 128 channels are finite.
constexpr float attention_limit(const AttentionLayout& layout) {
    return layout.numbers == AttentionNumbers::fp16 ? 256.0F : 1e30F;
}

void attention_ref(const AttentionCall& call);     // float32
void attention_avx2(const AttentionCall& call);    // float32
void attention_avx512(const AttentionCall& call);  // float32
// bf16; sums are float32, probabilities bf16.
void attention_avx512bf16(const AttentionCall& call);
// fp16, 32 queries a register; sums of 32 products and their sums over a block of keys too.
void attention_avx512fp16(const AttentionCall& call);

// int8, as in "SageAttention" (arXiv:2410.02367) and its 8-bit sums of values: a query is int8
// times a scale of its own, P is u8, 255 being the largest of its block of keys; sums over a block
// are exact, sums over blocks float32.
void attention_int8_ref(const AttentionCall& call);
void attention_avx512vnni(const AttentionCall& call);

}  // namespace zoetrope::kernels
