#include "kernels/attention.h"

#include <bit>
#include <cmath>

namespace zoetrope::kernels {
namespace {

constexpr AttentionLayout kLayout = kAttentionInt8Ref;
constexpr int kPerWord = kLayout.per_word();
constexpr float kLargestP = 255;

// Number d of a key, plus 128.
int key_number(const AttentionCall& call, std::int64_t key, int d) {
    const auto* bytes = static_cast<const std::uint8_t*>(call.keys) +
                        key / kAttentionPanel * kAttentionPanel * call.head_size;
    const int word = d / kPerWord * kAttentionPanel + static_cast<int>(key % kAttentionPanel);
    return bytes[word * kPerWord + d % kPerWord];
}

// Number d of key i of a block's values, which begin at `bytes`.
int value_number(const std::int8_t* bytes, int depth, int i, int d) {
    const int word = (d / kAttentionPanel * depth + i / kPerWord) * kAttentionPanel;
    return bytes[(word + d % kAttentionPanel) * kPerWord + i % kPerWord];
}

struct Query {
    int numbers[128];
    float scale;  // of the logits times log2(e), for a key scale of 1
    float maximum = 0, sum = 0;
};

float query_number(const AttentionCall& call, int row, int d) {
    const std::int64_t at = row * call.q_stride + d;
    if (!call.bf16_rows) return static_cast<const float*>(call.q)[at];
    const std::uint32_t bits = std::uint32_t{static_cast<const std::uint16_t*>(call.q)[at]} << 16;
    return std::bit_cast<float>(bits);
}

void store_result(const AttentionCall& call, int row, int d, float x) {
    const std::int64_t at = row * call.out_stride + d;
    const auto bits = std::bit_cast<std::uint32_t>(x);
    if (call.bf16_rows) {
        static_cast<std::uint16_t*>(call.out)[at] =
            static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
    } else {
        static_cast<float*>(call.out)[at] = x;
    }
}

Query quantised(const AttentionCall& call, int row) {
    Query query;
    float largest = 1e-30F;
    for (int d = 0; d < call.head_size; ++d)
        largest = std::fmax(largest, std::fabs(query_number(call, row, d)));
    const float unit = largest / 127;
    for (int d = 0; d < call.head_size; ++d)
        query.numbers[d] = static_cast<int>(std::nearbyint(query_number(call, row, d) / unit));
    query.scale = unit * call.scale;
    return query;
}

// One block of keys: its logits into s, then its values into out.
void add_keys(const AttentionCall& call, std::int64_t first, int keys, Query& query, float* s,
              float* out) {
    const float factor = query.scale * call.key_scales[first / kLayout.key_block];
    float top = 0;
    for (int i = 0; i < keys; ++i) {
        int dot = 0;
        for (int d = 0; d < call.head_size; ++d)
            dot += (key_number(call, first + i, d) - 128) * query.numbers[d];
        s[i] = static_cast<float>(dot) * factor;
        top = i == 0 ? s[0] : std::fmax(top, s[i]);
    }
    const float before = first == 0 ? top : query.maximum, raised = std::fmax(top, before);
    const float decay = std::exp2(before - raised), weight = std::exp2(top - raised);
    int total = 0;
    for (int i = 0; i < keys; ++i) {
        s[i] = std::nearbyint(std::exp2(s[i] - top) * kLargestP);
        total += static_cast<int>(s[i]);
    }
    query.sum = query.sum * decay + static_cast<float>(total) * weight;
    query.maximum = raised;
    const auto* values = static_cast<const std::int8_t*>(call.values) + first * call.head_size;
    const int depth = (keys + kPerWord - 1) / kPerWord;
    for (int d = 0; d < call.head_size; ++d) {
        int added = 0;
        for (int i = 0; i < keys; ++i)
            added += static_cast<int>(s[i]) * value_number(values, depth, i, d);
        out[d] = out[d] * decay + static_cast<float>(added) * weight;
    }
}

}  // namespace

// One query after the other.
void attention_int8_ref(const AttentionCall& call) {
    for (int row = 0; row < call.queries; ++row) {
        float out[128] = {};
        Query query = quantised(call, row);
        for (std::int64_t first = 0; first < call.kv_length; first += kLayout.key_block) {
            const std::int64_t left = call.kv_length - first;
            const int keys = static_cast<int>(left < kLayout.key_block ? left : kLayout.key_block);
            add_keys(call, first, keys, query, call.scratch, out);
        }
        for (int d = 0; d < call.head_size; ++d)
            store_result(call, row, d,
                         out[d] / query.sum * call.value_scales[d] + call.value_means[d]);
        if (call.row_maximum != nullptr) {
            call.row_maximum[row] = query.maximum;
            call.row_sum[row] = query.sum / kLargestP;
        }
    }
}

}  // namespace zoetrope::kernels
