// Attention on the CPU by our own kernels: packs K and V, shares blocks of queries out to the
// operator threads, and picks the kernel.
//
// A block of queries is computed whole by one thread, over blocks of keys in a fixed order: the
// result does not depend on the number of threads. bf16 is computed with the products that the CPU
// is quickest at: of bf16, of fp16 or of float32; int8, where asked for, with those of int8. A call
// whose numbers fp16 or int8 cannot hold (NaN, infinity, logits in the hundreds by one channel
// alone) is computed in float32 and counted as a fallback. Any thread; holds
// attention_cpu_workspace() bytes beside the result while it runs.
#pragma once

#include "kernels/cpu.h"
#include "ops/attention.h"

namespace zoetrope::ops {

// Up to which instruction set kernels are to be used: kernels::isa(), for bf16 products amx or
// fastest_bf16_products(). (What amx stands for runs on CPUs without it too, where a call names
// it.)
kernels::Isa attention_cpu_isa(at::ScalarType dtype);

// Whether a kernel of the instruction sets up to `isa` takes the call: on the CPU, float32 or bf16,
// head size 64 to 128 in steps of 16, no bias, a positive scale, channels side by side.
bool attention_cpu_takes(const AttentionArgs& args, kernels::Isa isa);

// The result of a call that is taken; kv_length must have been applied to k and v.
AttentionResult attention_cpu(const AttentionArgs& args, kernels::Isa isa);

struct AttentionSizes {
    std::int64_t kv_batch = 1;
    std::int64_t heads = 0;
    std::int64_t keys = 0;
    std::int64_t head_size = 0;
    at::ScalarType dtype = at::kBFloat16;
    bool int8 = false;
    int threads = 1;
};

// Bytes at most: packed keys and values (of as many heads as fit into 64 MiB, at least one) and
// each thread's blocks.
std::int64_t attention_cpu_workspace(const AttentionSizes& sizes, kernels::Isa isa);

}  // namespace zoetrope::ops
