// The element-wise work between matrix products, one pass over memory each: the contract of its
// kernels.
//
// Numbers are float32 or bf16 in memory and float32 in registers; a result is rounded once, to
// nearest even. Sums over a row have a fixed order, which depends on the instruction set alone. NaN
// and infinity behave as in the formulas. Kernels allocate nothing, start no threads and may run in
// many threads at once.
#pragma once

#include <cstdint>

namespace zoetrope::kernels {

enum class Element { fp32, bf16 };

// Rows of a matrix: of one type, `stride` elements apart, the elements of a row side by side.
struct Rows {
    void* data = nullptr;
    std::int64_t stride = 0;
    Element type = Element::fp32;
};
struct ConstRows {
    const void* data = nullptr;
    std::int64_t stride = 0;
    Element type = Element::fp32;
};

// With offset, LayerNorm: (x - mean) / sqrt(variance + eps) * factor + offset.
// Without, RMSNorm: x / sqrt(mean(x^2) + eps) * factor; then, with cos and sin, the
// rotation of neighbouring pairs, head by head:
//   out[2p] = x[2p] cos[p] - x[2p + 1] sin[p]
//   out[2p + 1] = x[2p] sin[p] + x[2p + 1] cos[p]
struct NormCall {
    ConstRows x;
    Rows out;  // may be x
    std::int64_t rows = 0;
    std::int64_t channels = 0;      // at least 1
    const float* factor = nullptr;  // [channels]
    const float* offset = nullptr;  // [channels]
    float eps = 0;                  // of the root
    const float* cos = nullptr;     // [rows][pairs]
    const float* sin = nullptr;     // [rows][pairs]
    std::int64_t pairs = 0;         // half of a head's channels, which are a divisor of `channels`
};

// sum += x * gate; without a gate, sum += x. sum is float32.
struct AddCall {
    Rows sum;
    ConstRows x;
    std::int64_t rows = 0;
    std::int64_t channels = 0;
    const float* gate = nullptr;  // [channels]
};

enum class Activation {
    gelu_tanh,  // x / (1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3))), which is the form with tanh
    silu,       // x / (1 + exp(-x))
};

struct ActivationCall {
    ConstRows x;
    Rows out;  // may be x, where both have one type
    std::int64_t rows = 0;
    std::int64_t channels = 0;
    Activation which = Activation::gelu_tanh;
};

struct NormKernels {
    void (*normalize)(const NormCall& call);
    void (*add)(const AddCall& call);
    void (*activate)(const ActivationCall& call);
};

extern const NormKernels norm_ref;
extern const NormKernels norm_avx2;
extern const NormKernels norm_avx512;

}  // namespace zoetrope::kernels
