#include "ops/attention_cpu.h"

#include "base/error.h"
#include "kernels/attention.h"
#include "ops/attention_pack.h"
#include "ops/brgemm.h"
#include "ops/device.h"
#include "ops/peak.h"
#include "ops/share_out.h"
#include "ops/stats.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <type_traits>
#include <vector>

namespace zoetrope::ops {
namespace {

using kernels::AttentionCall;
using kernels::AttentionLayout;
using kernels::AttentionNumbers;
using kernels::Isa;

struct Kernel {
    Isa isa;
    AttentionLayout layout;
    void (*run)(const AttentionCall&);
};

// Best first. int8 kernels are for calls that ask for them, those of float32 take the other
// calls, the rest those with bf16 tensors.
constexpr Kernel kKernels[] = {
    {Isa::amx, kernels::kAttentionAmx, attention_amx},
    {Isa::avx512fp16, kernels::kAttentionAvx512Fp16, kernels::attention_avx512fp16},
    {Isa::avx512bf16, kernels::kAttentionAvx512Bf16, kernels::attention_avx512bf16},
    {Isa::avx512, kernels::kAttentionAvx512, kernels::attention_avx512},
    {Isa::avx2, kernels::kAttentionAvx2, kernels::attention_avx2},
    {Isa::ref, kernels::kAttentionRef, kernels::attention_ref},
    {Isa::avx512vnni, kernels::kAttentionAvx512Vnni, kernels::attention_avx512vnni},
    {Isa::ref, kernels::kAttentionInt8Ref, kernels::attention_int8_ref},
};

const Kernel* find_kernel(at::ScalarType dtype, bool int8, Isa isa) {
    if (dtype != at::kFloat && dtype != at::kBFloat16) return nullptr;
    for (const Kernel& kernel : kKernels) {
        const AttentionNumbers numbers = kernel.layout.numbers;
        const bool fits = int8 ? numbers == AttentionNumbers::int8
                               : numbers == AttentionNumbers::float32 ||
                                     (dtype == at::kBFloat16 && numbers != AttentionNumbers::int8);
        if (fits && kernel.isa <= isa && (kernels::has(kernel.isa) || brgemm_runs(kernel.isa)))
            return &kernel;
    }
    return nullptr;
}

constexpr std::int64_t kCacheLine = 64;
constexpr std::int64_t kPackedLimit = std::int64_t{64} << 20;  // bytes

std::int64_t round_up(std::int64_t n, std::int64_t step) { return (n + step - 1) / step * step; }

HeadPacking packing_of(const Kernel& kernel, const AttentionSizes& sizes) {
    return {.layout = kernel.layout, .keys = sizes.keys, .channels = sizes.head_size};
}

// Heads whose keys and values are packed at the same time.
std::int64_t heads_at_once(const HeadPacking& packing, const AttentionSizes& sizes) {
    return std::clamp<std::int64_t>(kPackedLimit / packing.bytes(), 1,
                                    sizes.kv_batch * sizes.heads);
}

// Bytes of one thread: the kernel's scratch and, where it computes bf16 as float32, rows of Q and
// of the result.
std::int64_t thread_bytes(const Kernel& kernel, const AttentionSizes& sizes) {
    const bool converts =
        sizes.dtype == at::kBFloat16 && kernel.layout.numbers == AttentionNumbers::float32;
    const std::int64_t rows = converts ? 2 * kernel.layout.queries * sizes.head_size : 0;
    const std::int64_t scratch =
        attention_scratch(kernel.layout, static_cast<int>(sizes.head_size));
    return round_up(4 * (scratch + rows), kCacheLine);
}

std::int64_t workspace_bytes(const Kernel& kernel, const AttentionSizes& sizes) {
    const HeadPacking packing = packing_of(kernel, sizes);
    return thread_bytes(kernel, sizes) * sizes.threads +
           packing.bytes() * heads_at_once(packing, sizes);
}

// Rounded to nearest even; NaN stays NaN. Without branches, so that loops of it are vectorised.
std::uint16_t as_bf16(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const std::uint32_t rounded = (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16;
    return static_cast<std::uint16_t>(x != x ? bits >> 16 | 0x40U : rounded);
}

// The largest |x|, NaN where there is one. Of the bits, which are in the order of the numbers.
template <class T>
float largest_size(const T* row, std::int64_t count) {
    using Bits = std::conditional_t<std::is_same_v<T, float>, std::int32_t, std::int16_t>;
    Bits largest = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        const auto size =
            static_cast<Bits>(std::bit_cast<Bits>(row[i]) & std::numeric_limits<Bits>::max());
        largest = std::max(largest, size);
    }
    return as_float(std::bit_cast<T>(largest));
}

// One call for tensors of T.
template <class T>
struct Run {
    const AttentionArgs& args;
    const Kernel& kernel;
    const AttentionSizes sizes;
    const HeadPacking packing = packing_of(kernel, sizes);
    const std::int64_t at_once = heads_at_once(packing, sizes);
    const std::int64_t bytes_of_thread = thread_bytes(kernel, sizes);
    AttentionResult result;
    std::uint8_t* packed = nullptr;  // [at_once][packing.bytes()]
    std::uint8_t* blocks = nullptr;  // [threads][bytes_of_thread]
    std::atomic<bool> scalable = true;

    // False where the numbers cannot be scaled to those of the kernel; the result is unfinished.
    bool compute() {
        const at::Tensor& q = args.q;
        result.out = at::empty(q.sizes(), q.options());
        if (args.log_sum_exp)
            result.log_sum_exp =
                at::empty({q.size(0), q.size(2), q.size(1)}, q.options().dtype(at::kFloat));
        const at::Tensor workspace =
            at::empty({workspace_bytes(kernel, sizes)}, q.options().dtype(at::kByte));
        blocks = static_cast<std::uint8_t*>(workspace.mutable_data_ptr());
        packed = blocks + bytes_of_thread * sizes.threads;
        const std::int64_t heads = sizes.kv_batch * sizes.heads;
        for (std::int64_t head = 0; head < heads && scalable; head += at_once) {
            pack_heads(head, std::min(heads, head + at_once));
            if (scalable) attend_heads(head, std::min(heads, head + at_once));
        }
        return scalable;
    }

    // Heads [first, last) of K and V, counted over batch and heads.
    void pack_heads(std::int64_t first, std::int64_t last) {
        const auto rows_of = [&](const at::Tensor& x, std::int64_t slot) {
            const std::int64_t head = first + slot;
            return HeadRows<T>{row_of(x, head / sizes.heads, 0, head % sizes.heads), x.stride(1)};
        };
        // work(slot, item) for `items` of each head
        const auto each = [&](std::int64_t items, const auto& work) {
            share_out((last - first) * items, sizes.threads,
                      [&](std::int64_t item, auto) { work(item / items, item % items); });
        };
        if (kernel.layout.scaled()) {
            each(packing.parts(), [&](std::int64_t slot, std::int64_t part) {
                measure_part(packing, head_at(slot), part, rows_of(args.k, slot),
                             rows_of(args.v, slot));
            });
            each(1, [&](std::int64_t slot, auto) {
                if (!choose_scales(packing, head_at(slot))) scalable = false;
            });
            if (!scalable) return;
        }
        each(packing.key_blocks(), [&](std::int64_t slot, std::int64_t block) {
            pack_block(packing, head_at(slot), block, rows_of(args.k, slot), rows_of(args.v, slot));
        });
        if (kernel.layout.numbers == AttentionNumbers::int8)
            each(1, [&](std::int64_t slot, auto) { center_values(packing, head_at(slot)); });
    }

    // The queries that look at these heads.
    void attend_heads(std::int64_t first, std::int64_t last) {
        const std::int64_t rows = kernel.layout.queries;
        const std::int64_t batches = args.q.size(0) / sizes.kv_batch;
        const std::int64_t row_blocks = (args.q.size(1) + rows - 1) / rows;
        const std::int64_t per_head = batches * row_blocks;
        share_out((last - first) * per_head, sizes.threads, [&](std::int64_t item, auto worker) {
            const std::int64_t slot = item / per_head, head = first + slot;
            const std::int64_t batch = head / sizes.heads + item % per_head / row_blocks;
            if (scalable) attend(batch, head % sizes.heads, item % row_blocks * rows, slot, worker);
        });
    }

    PackedHead head_at(std::int64_t slot) const {
        return packing.at(packed + slot * packing.bytes());
    }

    // One block of queries.
    void attend(std::int64_t batch, std::int64_t head, std::int64_t first, std::int64_t slot,
                std::int64_t worker) {
        const int rows =
            static_cast<int>(std::min<std::int64_t>(kernel.layout.queries, args.q.size(1) - first));
        const PackedHead kv = head_at(slot);
        float* scratch = reinterpret_cast<float*>(blocks + bytes_of_thread * worker);
        AttentionCall call{.q = row_of(args.q, batch, first, head),
                           .bf16_rows = sizes.dtype == at::kBFloat16,
                           .q_stride = args.q.stride(1),
                           .keys = kv.keys,
                           .values = kv.values,
                           .key_scales = kv.key_scales,
                           .value_scales = kv.value_scales,
                           .value_means = kv.value_means,
                           .out = const_cast<T*>(row_of(result.out, batch, first, head)),
                           .out_stride = result.out.stride(1),
                           .queries = rows,
                           .head_size = static_cast<int>(sizes.head_size),
                           .kv_length = sizes.keys,
                           .scale = static_cast<float>(args.logit_scale() * std::numbers::log2e),
                           .scratch = scratch};
        if (kernel.layout.scaled() && !within_limit(call)) {
            scalable = false;
            return;
        }
        std::vector<float> sums;
        if (args.log_sum_exp) {
            sums.resize(2 * static_cast<std::size_t>(rows));
            call.row_maximum = sums.data();
            call.row_sum = sums.data() + rows;
        }
        if (std::is_same_v<T, float> || kernel.layout.numbers != AttentionNumbers::float32) {
            kernel.run(call);
        } else {
            run_converted(call, scratch + attention_scratch(kernel.layout, call.head_size));
        }
        float* lse = args.log_sum_exp ? result.log_sum_exp.mutable_data_ptr<float>() +
                                            (batch * args.q.size(2) + head) * args.q.size(1) + first
                                      : nullptr;
        for (int row = 0; args.log_sum_exp && row < rows; ++row) {
            lse[row] =
                (call.row_maximum[row] + std::log2(call.row_sum[row])) * std::numbers::ln2_v<float>;
            if (kernel.layout.scaled()) lse[row] += mean_logit(call, row, kv.key_means);
        }
    }

    // Whether no logit of these queries can leave the kernel's range; not where one is NaN.
    bool within_limit(const AttentionCall& call) const {
        const float factor =
            call.scale * *std::max_element(call.key_scales, call.key_scales + packing.key_blocks());
        for (int row = 0; row < call.queries; ++row) {
            const float largest = largest_size(query(call, row), sizes.head_size);
            if (!(largest * factor <= attention_limit(kernel.layout))) return false;
        }
        return true;
    }

    // What the logits of a query lost with the keys' mean.
    float mean_logit(const AttentionCall& call, int row, const float* key_means) const {
        const T* q = query(call, row);
        double sum = 0;
        for (std::int64_t d = 0; d < sizes.head_size; ++d)
            sum += static_cast<double>(as_float(q[d])) * static_cast<double>(key_means[d]);
        return static_cast<float>(sum * args.logit_scale());
    }

    static const T* query(const AttentionCall& call, int row) {
        return static_cast<const T*>(call.q) + row * call.q_stride;
    }

    // A call with rows of bf16 by a kernel with rows of float32; room: two blocks of rows.
    void run_converted(AttentionCall call, float* room) const {
        const T* q = static_cast<const T*>(call.q);
        std::uint16_t* out = static_cast<std::uint16_t*>(call.out);
        const std::int64_t q_stride = call.q_stride, out_stride = call.out_stride;
        const std::int64_t channels = sizes.head_size;
        float *converted = room, *computed = room + kernel.layout.queries * channels;
        call.bf16_rows = false;
        call.q = converted;
        call.out = computed;
        call.q_stride = call.out_stride = channels;
        for (int row = 0; row < call.queries; ++row) {
            std::transform(q + row * q_stride, q + row * q_stride + channels,
                           converted + row * channels, [](T x) { return as_float(x); });
        }
        kernel.run(call);
        for (int row = 0; row < call.queries; ++row) {
            std::transform(computed + row * channels, computed + (row + 1) * channels,
                           out + row * out_stride, as_bf16);
        }
    }

    static const T* row_of(const at::Tensor& x, std::int64_t batch, std::int64_t row,
                           std::int64_t head) {
        return static_cast<const T*>(x.const_data_ptr()) + batch * x.stride(0) + row * x.stride(1) +
               head * x.stride(2);
    }
};

}  // namespace

Isa attention_cpu_isa(at::ScalarType dtype) {
    if (dtype != at::kBFloat16) return kernels::isa();
    return amx_is_fastest() ? Isa::amx : fastest_bf16_products();
}

bool attention_cpu_takes(const AttentionArgs& args, Isa isa) {
    const auto side_by_side = [](const at::Tensor& x) { return x.is_cpu() && x.stride(3) == 1; };
    const std::int64_t channels = args.q.size(3);
    return find_kernel(args.q.scalar_type(), args.int8, isa) != nullptr && !args.bias.defined() &&
           channels % 16 == 0 && channels >= 64 && channels <= kMaxAttentionChannels &&
           args.q.numel() > 0 && args.k.size(1) > 0 && args.scale >= 0 && side_by_side(args.q) &&
           side_by_side(args.k) && side_by_side(args.v);
}

AttentionResult attention_cpu(const AttentionArgs& args, Isa isa) {
    ZT_CHECK(attention_cpu_takes(args, isa), internal,
             "no attention kernel of {} takes this call; ask attention_cpu_takes() first",
             kernels::name_of(isa));
    const AttentionSizes sizes{.kv_batch = args.k.size(0),
                               .heads = args.k.size(2),
                               .keys = args.k.size(1),
                               .head_size = args.k.size(3),
                               .dtype = args.k.scalar_type(),
                               .int8 = args.int8,
                               .threads = threads()};
    const auto run = [&]<class T>(T) {
        const Kernel& best = *find_kernel(sizes.dtype, args.int8, isa);
        Run<T> scaled{.args = args, .kernel = best, .sizes = sizes};
        if (scaled.compute()) return scaled.result;
        count_fallback(fmt::format("attention {} [{}], {} keys: beyond the range of {}",
                                   c10::toString(sizes.dtype), fmt::join(args.q.sizes(), ", "),
                                   sizes.keys, kernels::name_of(best.isa)));
        Run<T> exact{.args = args, .kernel = *find_kernel(at::kFloat, false, isa), .sizes = sizes};
        exact.compute();
        return exact.result;
    };
    return sizes.dtype == at::kFloat ? run(float{}) : run(std::uint16_t{});
}

std::int64_t attention_cpu_workspace(const AttentionSizes& sizes, Isa isa) {
    const Kernel* kernel = find_kernel(sizes.dtype, sizes.int8, isa);
    if (kernel == nullptr) return 0;
    const std::int64_t bytes = workspace_bytes(*kernel, sizes);
    if (!kernel->layout.scaled()) return bytes;
    return std::max(bytes, workspace_bytes(*find_kernel(at::kFloat, false, isa), sizes));
}

}  // namespace zoetrope::ops
