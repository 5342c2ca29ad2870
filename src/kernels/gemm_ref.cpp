#include "kernels/gemm.h"

#include <cmath>
#include <cstring>

namespace zoetrope::kernels {
namespace {

float number(const void* source, GemmSource type, std::int64_t at) {
    if (type == GemmSource::fp32) return static_cast<const float*>(source)[at];
    if (type == GemmSource::int8) return static_cast<const std::int8_t*>(source)[at];
    const std::uint32_t bits = std::uint32_t{static_cast<const std::uint16_t*>(source)[at]} << 16;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

void pack_rows(const GemmRows& call) {
    for (int i = 0; i < call.rows; ++i) {
        for (int k = 0; k < call.elements; ++k) {
            const float x = number(call.source, call.type, i * call.stride + k);
            std::memcpy(call.words + i * call.words_stride + k, &x, sizeof x);
        }
    }
}

void pack_columns(const GemmColumns& call) {
    auto* panel = static_cast<float*>(call.panel);
    for (int k = 0; k < call.elements; ++k) {
        for (int j = 0; j < kGemmRef.columns; ++j) {
            float x = j < call.columns ? number(call.source, call.type, j * call.stride + k) : 0.0F;
            if (j < call.columns && call.scales != nullptr) x *= call.scales[j];
            if (j < call.columns && call.addend != nullptr)
                x += call.addend[j * call.addend_stride + k];
            *panel++ = x;
        }
    }
}

void multiply(const GemmTile& tile) {
    for (int i = 0; i < tile.count; ++i) {
        const auto* column = static_cast<const float*>(tile.panel);
        float* sums = tile.sums + i * tile.sums_stride;
        for (int j = 0; j < kGemmRef.columns && !tile.add; ++j) sums[j] = 0;
        for (int tap = 0; tap < tile.taps; ++tap) {
            for (int k = 0; k < tile.depth; ++k) {
                float x;
                std::memcpy(&x, tile.rows[tap] + i * tile.row_stride + k, sizeof x);
                for (int j = 0; j < kGemmRef.columns; ++j) sums[j] += x * *column++;
            }
        }
    }
}

float activate(float x, GemmActivation activation) {
    if (activation == GemmActivation::silu) return x / (1 + std::exp(-x));
    if (activation == GemmActivation::gelu_tanh)
        return 0.5F * x * (1 + std::tanh(0.7978845608F * (x + 0.044715F * x * x * x)));
    return x;
}

std::uint16_t to_bf16(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const std::uint32_t rounded = (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16;
    return static_cast<std::uint16_t>(std::isnan(x) ? bits >> 16 | 0x40U : rounded);
}

void finish(const GemmFinish& call) {
    for (int i = 0; i < call.rows; ++i) {
        for (int j = 0; j < call.columns; ++j) {
            float x = call.sums[i * call.sums_stride + j];
            if (call.column_factors != nullptr) x *= call.column_factors[j];
            if (call.addend != nullptr) x += call.addend[i * call.addend_stride + j];
            if (call.bias != nullptr) x += call.bias[j];
            x = activate(x, call.activation);
            const std::int64_t at = i * call.out_stride + j;
            if (call.type == GemmSource::fp32) {
                static_cast<float*>(call.out)[at] = x;
            } else {
                static_cast<std::uint16_t*>(call.out)[at] = to_bf16(x);
            }
        }
    }
}

}  // namespace

GemmKernel gemm_ref() { return {kGemmRef, nullptr, pack_rows, pack_columns, multiply, finish}; }

}  // namespace zoetrope::kernels
