#include "kernels/conv.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace zoetrope::kernels {
namespace {

void pack(const ConvPack& call) {
    std::uint32_t* words = call.words;
    for (std::int64_t i = 0; i < call.count; ++i) {
        const float* pixel = call.pixels + i * call.stride;
        float squares = 0;
        for (int c = 0; c < call.channels; ++c) squares += pixel[c] * pixel[c];
        const float inverse = 1 / std::max(std::sqrt(squares), 1e-12F);
        for (int c = 0; c < call.channels; ++c) {
            float x = pixel[c];
            if (call.gamma != nullptr) x *= inverse * call.gamma[c];
            if (call.silu) x /= 1 + std::exp(-x);
            x *= call.factor;
            std::memcpy(words++, &x, sizeof x);
        }
    }
}

void finish(const ConvFinish& call) {
    for (std::int64_t i = 0; i < call.count; ++i) {
        for (int c = 0; c < call.channels; ++c) {
            float x = call.sums[i * call.sums_stride + c];
            if (call.bias != nullptr) x += call.bias[c];
            if (call.residual != nullptr) x += call.residual[i * call.out_stride + c];
            call.out[i * call.out_stride + c] = x;
        }
    }
}

}  // namespace

ConvKernel conv_ref() { return {pack, finish, nullptr}; }

}  // namespace zoetrope::kernels
