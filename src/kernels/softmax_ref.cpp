#include "kernels/softmax.h"

#include <cfloat>
#include <cmath>
#include <cstring>

namespace zoetrope::kernels {
namespace {

std::uint16_t to_bf16(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const std::uint32_t rounded = (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16;
    return static_cast<std::uint16_t>(std::isnan(x) ? bits >> 16 | 0x40U : rounded);
}

float from_bf16(std::uint16_t x) {
    const std::uint32_t bits = std::uint32_t{x} << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}

}  // namespace

void softmax_rows_ref(const SoftmaxRows& call) {
    for (int i = 0; i < call.rows; ++i) {
        float* row = call.logits + i * call.stride;
        const float before = call.first ? -FLT_MAX : call.maximum[i];
        float top = before;
        for (int key = 0; key < call.keys; ++key)
            top = row[key] * call.scale > top ? row[key] * call.scale : top;
        const float decay = std::exp2(before - top);
        float sum = 0;
        for (int key = 0; key < call.padded; ++key) {
            const std::uint16_t p = key < call.keys
                                        ? to_bf16(std::exp2(row[key] * call.scale - top))
                                        : std::uint16_t{0};
            sum += from_bf16(p);
            // Behind what has been read.
            std::memcpy(reinterpret_cast<char*>(row) + 2 * key, &p, sizeof p);
        }
        call.sum[i] = call.first ? sum : call.sum[i] * decay + sum;
        call.maximum[i] = top;
        for (int d = 0; d < call.channels && !call.first; ++d)
            call.out[i * call.channels + d] *= decay;
    }
}

void softmax_finish_ref(const SoftmaxFinish& call) {
    for (int i = 0; i < call.rows; ++i) {
        for (int d = 0; d < call.channels; ++d)
            call.bf16[i * call.bf16_stride + d] =
                to_bf16(call.out[i * call.channels + d] / call.sum[i]);
    }
}

}  // namespace zoetrope::kernels
