// Packs the keys and values of one head for the attention kernels; kernels/attention.h has the
// layouts.
//
// fp16 and int8 numbers are scaled. Keys lose their mean over all keys, which adds the same to all
// logits of a query ("SageAttention", arXiv:2410.02367), and so do int8 values, to which the kernel
// adds it again. So a head is measured in parts, its scales are chosen, its blocks are packed, and
// the values centered; parts and blocks may be shared out to threads in any order, with the same
// result. Nothing is allocated; rows T are of float or of the bits of bf16.
#pragma once

#include "kernels/attention.h"

#include <cstdint>
#include <cstring>

namespace zoetrope::ops {

constexpr std::int64_t kMaxAttentionChannels = 128;

// Row i begins i * stride elements behind data.
template <class T>
struct HeadRows {
    const T* data;
    std::int64_t stride;
    const T* row(std::int64_t i) const { return data + i * stride; }
};

// One head, packed: views of memory of HeadPacking::bytes() bytes.
struct PackedHead {
    std::uint32_t* keys;
    std::uint32_t* values;
    // Only where numbers are scaled:
    float* key_means;     // [channels]
    float* value_means;   // [channels]
    float* value_scales;  // [channels]
    float* key_scales;    // [key blocks]
    float* ranges;        // [parts][keys, values][sum, least, largest][channels]
    std::int32_t* sums;   // [key blocks][channels], of int8 values
};

struct HeadPacking {
    kernels::AttentionLayout layout;
    std::int64_t keys = 0;
    std::int64_t channels = 0;  // a multiple of 16, kMaxAttentionChannels at most

    std::int64_t words() const;  // of keys, and of values
    std::int64_t key_blocks() const;
    std::int64_t parts() const;
    std::int64_t bytes() const;
    PackedHead at(void* memory) const;  // on a cache line
};

// The sum and the range of each channel over the rows of one part.
template <class T>
void measure_part(const HeadPacking& packing, const PackedHead& head, std::int64_t part,
                  const HeadRows<T>& k, const HeadRows<T>& v);

// Means and scales, once all parts are measured. False where the head cannot be scaled: a number is
// not finite or next to the largest that there are.
bool choose_scales(const HeadPacking& packing, const PackedHead& head);

// One block of keys and their values.
template <class T>
void pack_block(const HeadPacking& packing, const PackedHead& head, std::int64_t block,
                const HeadRows<T>& k, const HeadRows<T>& v);

// Once all blocks are packed: int8 values get such means that those of all keys are exact. (Values
// of bf16 are so few that their rounding errors do not average out over thousands of keys.)
void center_values(const HeadPacking& packing, const PackedHead& head);

inline float as_float(float x) { return x; }
inline float as_float(std::uint16_t bf16) {
    const std::uint32_t bits = static_cast<std::uint32_t>(bf16) << 16;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

}  // namespace zoetrope::ops
