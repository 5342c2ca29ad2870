// Scaled dot-product attention for one head and one block of queries: the contract of its kernels.
//
// A kernel reads rows of Q as they are and K and V packed as below, keeps the softmax in float32
// (running maximum and sum over blocks of keys, in a fixed order) and writes rows of the result.
// NaN and infinity behave as in the formula; a row with a logit of +inf is NaN. Kernels allocate
// nothing, start no threads and may run in many threads at once, each with its own scratch.
//
// Packed K and V consist of 32-bit words: a float, or a pair of bf16 (the first one in the low
// half). With L keys, P = kAttentionPanel, E = layout.pair and B = layout.key_block:
//   keys    [ceil(L / P)][head_size / E][P], a word being E channels of a key; zero behind key L
//   values  per B keys (N of them, less in the last block): [head_size / P][ceil(N / E)][P], a word
//           being E keys of a channel; zero behind key L
#pragma once

#include <cstdint>

namespace zoetrope::kernels {

constexpr int kAttentionPanel = 8;

struct AttentionLayout {
    int queries;    // at most, per call
    int key_block;  // keys between two looks at the maximum; S, P and this much of K and V stay in
                    // the second-level cache
    int pair;       // elements per word of K and V: 1 (float32) or 2 (bf16); Q and O are the same
};

constexpr AttentionLayout kAttentionRef{.queries = 16, .key_block = 256, .pair = 1};
constexpr AttentionLayout kAttentionAvx2{.queries = 96, .key_block = 128, .pair = 1};
constexpr AttentionLayout kAttentionAvx512{.queries = 96, .key_block = 128, .pair = 1};
constexpr AttentionLayout kAttentionAvx512Bf16{.queries = 96, .key_block = 256, .pair = 2};

struct AttentionCall {
    const void* q = nullptr;     // rows of head_size elements
    std::int64_t q_stride = 0;   // elements from one row to the next
    const void* keys = nullptr;  // packed
    const void* values = nullptr;
    void* out = nullptr;  // rows of head_size elements
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
    return std::int64_t{layout.queries} * (2 * head_size + layout.key_block + 2);
}

void attention_ref(const AttentionCall& call);         // float32
void attention_avx2(const AttentionCall& call);        // float32
void attention_avx512(const AttentionCall& call);      // float32
void attention_avx512bf16(const AttentionCall& call);  // bf16; sums float32, probabilities bf16

}  // namespace zoetrope::kernels
