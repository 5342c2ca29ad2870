#include "ops/attention_cpu.h"

#include "base/error.h"
#include "kernels/attention.h"
#include "ops/peak.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <numbers>
#include <type_traits>
#include <vector>

namespace zoetrope::ops {
namespace {

using kernels::AttentionCall;
using kernels::AttentionLayout;
using kernels::Isa;

struct Kernel {
    Isa isa;
    at::ScalarType dtype;
    AttentionLayout layout;
    void (*run)(const AttentionCall&);
};

// Best first. A bf16 call that finds no bf16 kernel takes a float32 one and is converted.
constexpr Kernel kKernels[] = {
    {Isa::avx512bf16, at::kBFloat16, kernels::kAttentionAvx512Bf16, kernels::attention_avx512bf16},
    {Isa::avx512, at::kFloat, kernels::kAttentionAvx512, kernels::attention_avx512},
    {Isa::avx2, at::kFloat, kernels::kAttentionAvx2, kernels::attention_avx2},
    {Isa::ref, at::kFloat, kernels::kAttentionRef, kernels::attention_ref},
};

const Kernel* find_kernel(at::ScalarType dtype, Isa isa) {
    if (dtype != at::kFloat && dtype != at::kBFloat16) return nullptr;
    for (const Kernel& kernel : kKernels) {
        const bool fits = kernel.dtype == dtype || kernel.dtype == at::kFloat;
        if (fits && kernel.isa <= isa && kernels::has(kernel.isa)) return &kernel;
    }
    return nullptr;
}

constexpr int kPanel = kernels::kAttentionPanel;
constexpr std::int64_t kMaxChannels = 128;
constexpr std::int64_t kCacheLine = 64;
constexpr std::int64_t kPackedLimit = std::int64_t{64} << 20;  // bytes

std::int64_t round_up(std::int64_t n, std::int64_t step) { return (n + step - 1) / step * step; }

// Words of the packed keys of one head, and of its packed values.
std::int64_t packed_words(const AttentionLayout& layout, std::int64_t keys, std::int64_t channels) {
    return round_up(keys, kPanel) * channels / layout.pair;
}

// Heads whose keys and values are packed at the same time.
std::int64_t heads_at_once(const AttentionLayout& layout, const AttentionSizes& sizes) {
    const std::int64_t bytes = 2 * 4 * packed_words(layout, sizes.keys, sizes.head_size);
    return std::clamp<std::int64_t>(kPackedLimit / bytes, 1, sizes.kv_batch * sizes.heads);
}

// Bytes of one thread: the kernel's scratch and, where it computes bf16 as float32, rows of Q and
// of the result.
std::int64_t thread_bytes(const Kernel& kernel, const AttentionSizes& sizes) {
    const bool converts = sizes.dtype != kernel.dtype;
    const std::int64_t rows = converts ? 2 * kernel.layout.queries * sizes.head_size : 0;
    const std::int64_t scratch =
        attention_scratch(kernel.layout, static_cast<int>(sizes.head_size));
    return round_up(4 * (scratch + rows), kCacheLine);
}

std::int64_t workspace_bytes(const Kernel& kernel, const AttentionSizes& sizes) {
    const std::int64_t words = packed_words(kernel.layout, sizes.keys, sizes.head_size);
    return thread_bytes(kernel, sizes) * sizes.threads +
           2 * 4 * words * heads_at_once(kernel.layout, sizes);
}

double scale_of(const AttentionArgs& args) {
    return args.scale != 0 ? args.scale : 1 / std::sqrt(static_cast<double>(args.q.size(3)));
}

float as_float(float x) { return x; }
float as_float(std::uint16_t bf16) {
    const std::uint32_t bits = static_cast<std::uint32_t>(bf16) << 16;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// Rounded to nearest even; NaN stays NaN. Without branches, so that loops of it are vectorised.
std::uint16_t as_bf16(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const std::uint32_t rounded = (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16;
    return static_cast<std::uint16_t>(x != x ? bits >> 16 | 0x40U : rounded);
}

// A word of the packed layout from the elements beside each other at `at` (keys), or from one of
// each of two rows (values).
template <class T, int pair>
std::uint32_t key_word(const T* at) {
    std::uint32_t bits;
    if constexpr (pair == 2) {
        std::memcpy(&bits, at, sizeof bits);
    } else {
        const float x = as_float(*at);
        std::memcpy(&bits, &x, sizeof bits);
    }
    return bits;
}

template <class T, int pair>
std::uint32_t value_word(const T* at, const T* next) {
    if constexpr (pair == 2) {
        return *at | static_cast<std::uint32_t>(*next) << 16;
    } else {
        return key_word<T, 1>(at);
    }
}

// Elements T (float, or the bits of a bf16) of one head: row i begins i * stride behind data.
template <class T>
struct Rows {
    const T* data;
    std::int64_t stride;
    // Rows behind the last are zero.
    const T* row(std::int64_t i, std::int64_t last) const {
        static constexpr T kZeros[kMaxChannels] = {};
        return i < last ? data + i * stride : kZeros;
    }
};

// Keys [first, last) into panels (kernels/attention.h).
template <class T, int pair>
void pack_keys(const Rows<T>& k, std::int64_t first, std::int64_t last, std::int64_t channels,
               std::uint32_t* out) {
    for (std::int64_t key = first; key < last; key += kPanel) {
        const T* rows[kPanel];
        for (int i = 0; i < kPanel; ++i) rows[i] = k.row(key + i, last);
        for (std::int64_t d = 0; d < channels; d += pair) {
            for (int i = 0; i < kPanel; ++i) *out++ = key_word<T, pair>(rows[i] + d);
        }
    }
}

// The values of keys [first, last), a block, likewise.
template <class T, int pair>
void pack_values(const Rows<T>& v, std::int64_t first, std::int64_t last, std::int64_t channels,
                 std::uint32_t* out) {
    const std::int64_t depth = (last - first + pair - 1) / pair;
    for (std::int64_t step = 0; step < depth; ++step) {
        const T* row = v.row(first + step * pair, last);
        const T* next = v.row(first + step * pair + pair - 1, last);
        for (std::int64_t d = 0; d < channels; d += kPanel) {
            std::uint32_t* words = out + d * depth + step * kPanel;
            for (int i = 0; i < kPanel; ++i)
                words[i] = value_word<T, pair>(row + d + i, next + d + i);
        }
    }
}

// Runs work(item, worker) for every item; each thread takes the next one when it has done its last.
template <class Work>
void share_out(std::int64_t items, int threads, const Work& work) {
    std::atomic<std::int64_t> next{0};
    at::parallel_for(0, std::min<std::int64_t>(items, threads), 1,
                     [&](std::int64_t begin, std::int64_t end) {
                         for (std::int64_t worker = begin; worker < end; ++worker) {
                             for (std::int64_t item = next++; item < items; item = next++)
                                 work(item, worker);
                         }
                     });
}

// One call for tensors of T and a kernel with `pair` elements a word.
template <class T, int pair>
struct Run {
    const AttentionArgs& args;
    const Kernel& kernel;
    const AttentionSizes sizes;
    const std::int64_t words = packed_words(kernel.layout, sizes.keys, sizes.head_size);
    const std::int64_t at_once = heads_at_once(kernel.layout, sizes);
    const std::int64_t bytes_of_thread = thread_bytes(kernel, sizes);
    AttentionResult result;
    std::uint32_t* packed = nullptr;  // [at_once][keys, values][words]
    std::uint8_t* blocks = nullptr;   // [threads][bytes_of_thread]

    AttentionResult compute() {
        const at::Tensor& q = args.q;
        result.out = at::empty(q.sizes(), q.options());
        if (args.log_sum_exp)
            result.log_sum_exp =
                at::empty({q.size(0), q.size(2), q.size(1)}, q.options().dtype(at::kFloat));
        const at::Tensor workspace =
            at::empty({workspace_bytes(kernel, sizes)}, q.options().dtype(at::kByte));
        blocks = static_cast<std::uint8_t*>(workspace.mutable_data_ptr());
        packed = reinterpret_cast<std::uint32_t*>(blocks + bytes_of_thread * sizes.threads);
        const std::int64_t heads = sizes.kv_batch * sizes.heads;
        for (std::int64_t head = 0; head < heads; head += at_once)
            compute_heads(head, std::min(heads, head + at_once));
        return result;
    }

    // Heads [first, last) of K and V, counted over batch and heads, and the queries that look at
    // them.
    void compute_heads(std::int64_t first, std::int64_t last) const {
        const std::int64_t block = kernel.layout.key_block, rows = kernel.layout.queries;
        const std::int64_t key_blocks = (sizes.keys + block - 1) / block;
        share_out((last - first) * key_blocks, sizes.threads, [&](std::int64_t item, auto) {
            pack(first + item / key_blocks, item / key_blocks, item % key_blocks * block);
        });
        const std::int64_t batches = args.q.size(0) / sizes.kv_batch;
        const std::int64_t row_blocks = (args.q.size(1) + rows - 1) / rows;
        const std::int64_t per_head = batches * row_blocks;
        share_out((last - first) * per_head, sizes.threads, [&](std::int64_t item, auto worker) {
            const std::int64_t slot = item / per_head, head = first + slot;
            const std::int64_t batch = head / sizes.heads + item % per_head / row_blocks;
            attend(batch, head % sizes.heads, item % row_blocks * rows, slot, worker);
        });
    }

    // One block of keys and values.
    void pack(std::int64_t head, std::int64_t slot, std::int64_t first) const {
        const auto rows_of = [&](const at::Tensor& x) {
            return Rows<T>{row_of(x, head / sizes.heads, 0, head % sizes.heads), x.stride(1)};
        };
        const std::int64_t last = std::min(sizes.keys, first + kernel.layout.key_block);
        std::uint32_t* keys = packed + 2 * slot * words + first * sizes.head_size / pair;
        pack_keys<T, pair>(rows_of(args.k), first, last, sizes.head_size, keys);
        pack_values<T, pair>(rows_of(args.v), first, last, sizes.head_size, keys + words);
    }

    // One block of queries.
    void attend(std::int64_t batch, std::int64_t head, std::int64_t first, std::int64_t slot,
                std::int64_t worker) const {
        const int rows =
            static_cast<int>(std::min<std::int64_t>(kernel.layout.queries, args.q.size(1) - first));
        float* scratch = reinterpret_cast<float*>(blocks + bytes_of_thread * worker);
        AttentionCall call{.q = row_of(args.q, batch, first, head),
                           .q_stride = args.q.stride(1),
                           .keys = packed + 2 * slot * words,
                           .values = packed + (2 * slot + 1) * words,
                           .out = const_cast<T*>(row_of(result.out, batch, first, head)),
                           .out_stride = result.out.stride(1),
                           .queries = rows,
                           .head_size = static_cast<int>(sizes.head_size),
                           .kv_length = sizes.keys,
                           .scale = static_cast<float>(scale_of(args) * std::numbers::log2e),
                           .scratch = scratch};
        std::vector<float> sums;
        if (args.log_sum_exp) {
            sums.resize(2 * static_cast<std::size_t>(rows));
            call.row_maximum = sums.data();
            call.row_sum = sums.data() + rows;
        }
        if constexpr (std::is_same_v<T, float> || pair == 2) {
            kernel.run(call);
        } else {
            run_converted(call, scratch + attention_scratch(kernel.layout, call.head_size));
        }
        for (int row = 0; args.log_sum_exp && row < rows; ++row) {
            const float log2_sum = call.row_maximum[row] + std::log2(call.row_sum[row]);
            float* lse = result.log_sum_exp.mutable_data_ptr<float>();
            lse[(batch * args.q.size(2) + head) * args.q.size(1) + first + row] =
                log2_sum * std::numbers::ln2_v<float>;
        }
    }

    // A call with rows of bf16 by a kernel of float32; room: two blocks of rows.
    void run_converted(AttentionCall call, float* room) const {
        const T* q = static_cast<const T*>(call.q);
        T* out = static_cast<T*>(call.out);
        const std::int64_t q_stride = call.q_stride, out_stride = call.out_stride;
        const std::int64_t channels = sizes.head_size;
        float *converted = room, *computed = room + kernel.layout.queries * channels;
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
    return dtype == at::kBFloat16 ? fastest_bf16_products() : kernels::isa();
}

bool attention_cpu_takes(const AttentionArgs& args, Isa isa) {
    const auto side_by_side = [](const at::Tensor& x) { return x.is_cpu() && x.stride(3) == 1; };
    const std::int64_t channels = args.q.size(3);
    return find_kernel(args.q.scalar_type(), isa) != nullptr && !args.bias.defined() &&
           channels % 16 == 0 && channels >= 64 && channels <= kMaxChannels && args.q.numel() > 0 &&
           args.k.size(1) > 0 && args.scale >= 0 && side_by_side(args.q) && side_by_side(args.k) &&
           side_by_side(args.v);
}

AttentionResult attention_cpu(const AttentionArgs& args, Isa isa) {
    ZT_CHECK(attention_cpu_takes(args, isa), internal,
             "no attention kernel of {} takes this call; ask attention_cpu_takes() first",
             kernels::name_of(isa));
    const Kernel& kernel = *find_kernel(args.q.scalar_type(), isa);
    const AttentionSizes sizes{.kv_batch = args.k.size(0),
                               .heads = args.k.size(2),
                               .keys = args.k.size(1),
                               .head_size = args.k.size(3),
                               .dtype = args.k.scalar_type(),
                               .threads = at::get_num_threads()};
    if (args.q.scalar_type() == at::kFloat)
        return Run<float, 1>{.args = args, .kernel = kernel, .sizes = sizes}.compute();
    if (kernel.layout.pair == 1)
        return Run<std::uint16_t, 1>{.args = args, .kernel = kernel, .sizes = sizes}.compute();
    return Run<std::uint16_t, 2>{.args = args, .kernel = kernel, .sizes = sizes}.compute();
}

std::int64_t attention_cpu_workspace(const AttentionSizes& sizes, Isa isa) {
    const Kernel* kernel = find_kernel(sizes.dtype, isa);
    return kernel == nullptr ? 0 : workspace_bytes(*kernel, sizes);
}

}  // namespace zoetrope::ops
