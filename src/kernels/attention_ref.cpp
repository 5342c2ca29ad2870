#include "kernels/attention.h"

#include <cfloat>
#include <cmath>

namespace zoetrope::kernels {
namespace {

constexpr AttentionLayout kLayout = kAttentionRef;

float logit(const AttentionCall& call, const float* q, std::int64_t key) {
    const float* k = static_cast<const float*>(call.keys) +
                     key / kAttentionPanel * kAttentionPanel * call.head_size +
                     key % kAttentionPanel;
    float sum = 0;
    for (int d = 0; d < call.head_size; ++d) sum += q[d] * k[d * kAttentionPanel];
    return sum * call.scale;
}

// out = out * decay + p * (value of that key)
void add_value(const AttentionCall& call, std::int64_t key, float p, float decay, float* out) {
    const std::int64_t block = key / kLayout.key_block * kLayout.key_block;
    const std::int64_t depth =
        call.kv_length - block < kLayout.key_block ? call.kv_length - block : kLayout.key_block;
    const float* v = static_cast<const float*>(call.values) + block * call.head_size;
    for (int d = 0; d < call.head_size; ++d) {
        const std::int64_t row = d / kAttentionPanel * depth + (key - block);
        out[d] = out[d] * decay + p * v[row * kAttentionPanel + d % kAttentionPanel];
    }
}

}  // namespace

// One query after the other, one key after the other.
void attention_ref(const AttentionCall& call) {
    for (int i = 0; i < call.queries; ++i) {
        const float* q = static_cast<const float*>(call.q) + i * call.q_stride;
        float* out = static_cast<float*>(call.out) + i * call.out_stride;
        for (int d = 0; d < call.head_size; ++d) out[d] = 0;
        float maximum = -FLT_MAX, sum = 0;
        for (std::int64_t key = 0; key < call.kv_length; ++key) {
            const float x = logit(call, q, key);
            const float raised = x > maximum ? x : maximum;
            const float decay = std::exp2(maximum - raised), p = std::exp2(x - raised);
            sum = sum * decay + p;
            add_value(call, key, p, decay, out);
            maximum = raised;
        }
        for (int d = 0; d < call.head_size; ++d) out[d] /= sum;
        if (call.row_maximum != nullptr) {
            call.row_maximum[i] = maximum;
            call.row_sum[i] = sum;
        }
    }
}

}  // namespace zoetrope::kernels
