// What surrounds the products of a convolution (gemm.h): pixels to words, sums to pixels.
//
// Pixels are float32, channels side by side. A frame's words are those of gemm.h, pixel by pixel,
// with zeros around the frame, so that the rows under each tap are the words of neighbouring
// pixels. Kernels allocate nothing, start no threads and may run in many threads at once.
#pragma once

#include <cstdint>

namespace zoetrope::kernels {

struct ConvPack {
    const float* pixels = nullptr;
    std::int64_t stride = 0;  // floats from one pixel to the next
    std::int64_t count = 0;   // pixels
    int channels = 0;
    // [channels], times sqrt(channels): x / max(|x|, 1e-12) * gamma over channels; null: x itself
    const float* gamma = nullptr;
    bool silu = false;               // then x * sigmoid(x)
    float factor = 1;                // then times this
    std::uint32_t* words = nullptr;  // [count][words of `channels` numbers]
};

struct ConvFinish {
    const float* sums = nullptr;
    std::int64_t sums_stride = 0;
    std::int64_t count = 0;  // pixels
    int channels = 0;
    const float* bias = nullptr;      // [channels] or null
    const float* residual = nullptr;  // as `out`, added; null: nothing; may be `out`
    float* out = nullptr;             // may be `sums`
    std::int64_t out_stride = 0;      // floats, of the residual too
};

struct ConvKernel {
    void (*pack)(const ConvPack&);
    void (*finish)(const ConvFinish&);
    // The largest magnitude; NaN is passed over. For kernels that scale words to at most 1
    // (fp16); null: there is no need.
    float (*largest)(const float* numbers, std::int64_t count);
};

// Words for gemm_ref(), gemm_avx512(), gemm_avx512bf16() and gemm_avx512fp16().
ConvKernel conv_ref();
ConvKernel conv_avx512();
ConvKernel conv_avx512bf16();
ConvKernel conv_avx512fp16();

}  // namespace zoetrope::kernels
