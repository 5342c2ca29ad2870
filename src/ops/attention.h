// Scaled dot-product attention, forward, not causal: one entry for every device and head size.
//
// Promises: softmax and sums in float32, or as exact as rounding q, k and v to bf16 is (int8: see
// below); the result has the dtype of q. The backend is chosen by
// device, dtype and shape from one table in attention.cpp. Pure function, any thread; uses the
// operator threads.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string_view>

namespace zoetrope::ops {

struct AttentionArgs {
    at::Tensor q;  // [B, Lq, H, D], any strides with D contiguous; fp32, bf16 or fp16
    at::Tensor k;  // [B or 1, Lk, H, D], same dtype
    at::Tensor v;  // [B or 1, Lk, H, D], same dtype
    std::int64_t kv_length = -1;  // keys and values behind this many are ignored; -1: all Lk
    at::Tensor bias;   // optional, [1 or B, H, Lq, Lk] added to the scaled logits; q's dtype
    double scale = 0;  // of q k^T; 0: 1/sqrt(D)
    const char* name = "attention";  // under which the operator statistics count it
    // Allows products of int8: quicker, and less exact than bf16 (some 1e-2 of the result's size).
    bool int8 = false;

    double logit_scale() const;  // `scale`, or what 0 stands for
    bool log_sum_exp = false;    // also give the log of each row's sum of exponentials
};

struct AttentionResult {
    at::Tensor out;          // [B, Lq, H, D], contiguous
    at::Tensor log_sum_exp;  // [B, H, Lq] fp32 where asked for
};

// Errors: internal for shapes that do not fit, unsupported where no backend takes the combination.
AttentionResult attention(const AttentionArgs& args);

// The backends, best first, for --version, the bench and tests.
enum class AttentionBackend { automatic, cpu, aten, reference };
std::string_view name_of(AttentionBackend backend);

// Forces a backend for this thread until destroyed (tests and the bench). Nests.
class ForceAttentionBackend {
public:
    explicit ForceAttentionBackend(AttentionBackend backend);
    ~ForceAttentionBackend();
    ForceAttentionBackend(const ForceAttentionBackend&) = delete;
    ForceAttentionBackend& operator=(const ForceAttentionBackend&) = delete;

private:
    AttentionBackend previous_;
};

}  // namespace zoetrope::ops
