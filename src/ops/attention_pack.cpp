#include "ops/attention_pack.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace zoetrope::ops {
namespace {

using kernels::AttentionNumbers;

constexpr int kPanel = kernels::kAttentionPanel;
constexpr std::int64_t kMaxChannels = kMaxAttentionChannels;
constexpr std::int64_t kPartRows = 1024;
constexpr std::int64_t kCacheLine = 64;
constexpr float kLargestInt8 = 127;
constexpr float kLeastSpread = 1e-30F;  // of int8 numbers: its reciprocal is finite

std::int64_t round_up(std::int64_t n, std::int64_t step) { return (n + step - 1) / step * step; }

// Sum, least and largest of one tensor's part, [channels] each.
struct Ranges {
    float* sum;
    float* least;
    float* largest;
};

Ranges ranges_of(const HeadPacking& packing, const PackedHead& head, std::int64_t part,
                 int tensor) {
    float* at = head.ranges + (part * 2 + tensor) * 3 * packing.channels;
    return {at, at + packing.channels, at + 2 * packing.channels};
}

template <class T>
void measure_rows(const HeadRows<T>& rows, std::int64_t first, std::int64_t last,
                  std::int64_t channels, const Ranges& out) {
    float sum[kMaxChannels], least[kMaxChannels], largest[kMaxChannels];
    for (std::int64_t d = 0; d < channels; ++d)
        sum[d] = 0, least[d] = largest[d] = as_float(rows.row(first)[d]);
    for (std::int64_t i = first; i < last; ++i) {
        const T* row = rows.row(i);
        for (std::int64_t d = 0; d < channels; ++d) {
            const float x = as_float(row[d]);
            sum[d] += x;
            least[d] = std::min(least[d], x);
            largest[d] = std::max(largest[d], x);
        }
    }
    std::copy_n(sum, channels, out.sum);
    std::copy_n(least, channels, out.least);
    std::copy_n(largest, channels, out.largest);
}

// Mean and range of one channel over all parts. A number that is not finite makes the mean so.
struct Channel {
    float mean, least, largest;
    float spread(float center) const { return std::max(largest - center, center - least); }
};

Channel channel_of(const HeadPacking& packing, const PackedHead& head, int tensor, std::int64_t d) {
    double sum = 0;
    Channel channel{};
    for (std::int64_t part = 0; part < packing.parts(); ++part) {
        const Ranges ranges = ranges_of(packing, head, part, tensor);
        sum += static_cast<double>(ranges.sum[d]);
        channel.least = part == 0 ? ranges.least[d] : std::min(channel.least, ranges.least[d]);
        channel.largest =
            part == 0 ? ranges.largest[d] : std::max(channel.largest, ranges.largest[d]);
    }
    channel.mean = static_cast<float>(sum / static_cast<double>(packing.keys));
    return channel;
}

// The least power of two that is no less than x; one whose reciprocal is finite too.
float power_of_two(float x) {
    int exponent = 0;
    std::frexp(x, &exponent);
    return std::ldexp(1.0F, std::clamp(exponent, -125, 127));
}

// fp16 to nearest even, for |x| of 1 at most. Without branches, so that loops of it are
// vectorised.
std::int32_t as_fp16(float x) {
    const std::int32_t sign = std::bit_cast<std::int32_t>(x) >> 16 & 0x8000;
    const std::int32_t bits = std::bit_cast<std::int32_t>(x) & 0x7fffffff;
    // Normal: 13 bits less of the fraction, and a bias less by 112. Below 2^-14: multiples of
    // 2^-24, which is the last place of a float between 0.5 and 1.
    const std::int32_t normal = ((bits + 0xfff + (bits >> 13 & 1)) >> 13) - (112 << 10);
    const std::int32_t subnormal =
        std::bit_cast<std::int32_t>(std::bit_cast<float>(bits) + 0.5F) - 0x3f000000;
    const std::int32_t below = (bits - (113 << 23)) >> 31;  // all bits or none
    return sign | (subnormal & below) | (normal & ~below);
}

// The lowest byte of x rounded to a whole number: a float of this size has no places behind the
// point, and its fraction ends in that number.
std::uint8_t as_int8(float x) {
    return static_cast<std::uint8_t>(std::bit_cast<std::uint32_t>(x + 12582912.0F));
}

// How rows become numbers N of the packed words.
template <class N>
struct AsTheyAre {
    template <class T>
    void operator()(const T* row, std::int64_t channels, N* out) const {
        for (std::int64_t d = 0; d < channels; ++d) {
            if constexpr (sizeof(T) == sizeof(N)) {
                out[d] = std::bit_cast<N>(row[d]);
            } else {
                out[d] = std::bit_cast<N>(as_float(row[d]));
            }
        }
    }
};

struct AsFp16Twice {
    const float* means;
    const float* inverse;  // of the scales

    template <class T>
    void operator()(const T* row, std::int64_t channels, std::uint32_t* out) const {
        for (std::int64_t d = 0; d < channels; ++d) {
            const std::int32_t half = as_fp16((as_float(row[d]) - means[d]) * inverse[d]);
            out[d] = static_cast<std::uint32_t>(half | half << 16);
        }
    }
};

struct AsInt8 {
    const float* means;
    const float* inverse;

    template <class T>
    void operator()(const T* row, std::int64_t channels, std::uint8_t* out) const {
        for (std::int64_t d = 0; d < channels; ++d)
            out[d] = as_int8((as_float(row[d]) - means[d]) * inverse[d]);
    }
};

struct AsInt8Plus128 {
    AsInt8 convert;

    template <class T>
    void operator()(const T* row, std::int64_t channels, std::uint8_t* out) const {
        convert(row, channels, out);
        for (std::int64_t d = 0; d < channels; ++d) out[d] ^= 0x80;
    }
};

struct AsInt8Summed {
    AsInt8 convert;
    std::int32_t* sums;

    template <class T>
    void operator()(const T* row, std::int64_t channels, std::uint8_t* out) const {
        convert(row, channels, out);
        for (std::int64_t d = 0; d < channels; ++d) sums[d] += static_cast<std::int8_t>(out[d]);
    }
};

// Keys [first, last) into panels.
template <class N, class T, class Convert>
void pack_keys(const HeadRows<T>& k, std::int64_t first, std::int64_t last, std::int64_t channels,
               std::int64_t panel, const Convert& convert, std::uint32_t* out) {
    constexpr std::int64_t kPerWord = sizeof(std::uint32_t) / sizeof(N);
    N numbers[kMaxChannels];
    std::uint32_t words[kMaxChannels];
    for (std::int64_t key = first; key < last; key += panel) {
        for (std::int64_t i = 0; i < panel; ++i) {
            if (key + i < last) {
                convert(k.row(key + i), channels, numbers);
            } else {
                std::fill_n(numbers, channels, N{0});
            }
            std::memcpy(words, numbers, static_cast<std::size_t>(channels) * sizeof(N));
            for (std::int64_t word = 0; word < channels / kPerWord; ++word)
                out[word * panel + i] = words[word];
        }
        out += panel * channels / kPerWord;
    }
}

// The values of keys [first, last), a block, likewise.
template <class N, class T, class Convert>
void pack_values(const HeadRows<T>& v, std::int64_t first, std::int64_t last, std::int64_t channels,
                 const kernels::AttentionLayout& layout, const Convert& convert,
                 std::uint32_t* out) {
    constexpr std::int64_t kPerWord = sizeof(std::uint32_t) / sizeof(N);
    const std::int64_t keys = layout.rows() ? round_up(last - first, layout.panel) : last - first;
    const std::int64_t depth = (keys + kPerWord - 1) / kPerWord;
    // Words from one step to the next, and from one channel to the next of another panel.
    const std::int64_t step_words = layout.rows() ? channels : kPanel;
    const std::int64_t channel_words = layout.rows() ? 1 : depth;
    N numbers[kPerWord][kMaxChannels];
    for (std::int64_t step = 0; step < depth; ++step) {
        for (std::int64_t i = 0; i < kPerWord; ++i) {
            const std::int64_t key = first + step * kPerWord + i;
            if (key < last) {
                convert(v.row(key), channels, numbers[i]);
            } else {
                std::fill_n(numbers[i], channels, N{0});
            }
        }
        for (std::int64_t d = 0; d < channels; d += kPanel) {
            std::uint32_t* words = out + d * channel_words + step * step_words;
            for (std::int64_t j = 0; j < kPanel; ++j) {
                std::uint32_t word = 0;
                for (std::int64_t i = 0; i < kPerWord; ++i) {
                    const auto shift = static_cast<unsigned>(i) * 8U * unsigned{sizeof(N)};
                    word |= std::uint32_t{numbers[i][d + j]} << shift;
                }
                words[j] = word;
            }
        }
    }
}

// Largest |k - mean| of keys [first, last), over 127.
template <class T>
float int8_scale(const HeadRows<T>& k, std::int64_t first, std::int64_t last, std::int64_t channels,
                 const float* means) {
    float largest[kMaxChannels] = {};
    for (std::int64_t i = first; i < last; ++i) {
        const T* row = k.row(i);
        for (std::int64_t d = 0; d < channels; ++d)
            largest[d] = std::max(largest[d], std::fabs(as_float(row[d]) - means[d]));
    }
    return std::max(*std::max_element(largest, largest + channels), kLeastSpread) / kLargestInt8;
}

}  // namespace

std::int64_t HeadPacking::words() const {
    return round_up(keys, layout.panel) * channels / layout.per_word();
}

std::int64_t HeadPacking::key_blocks() const {
    return (keys + layout.key_block - 1) / layout.key_block;
}

std::int64_t HeadPacking::parts() const { return (keys + kPartRows - 1) / kPartRows; }

std::int64_t HeadPacking::bytes() const {
    std::int64_t total = 2 * words();
    if (layout.scaled()) total += (3 + 6 * parts() + key_blocks()) * channels + key_blocks();
    return round_up(4 * total, kCacheLine);
}

PackedHead HeadPacking::at(void* memory) const {
    auto* keys_at = static_cast<std::uint32_t*>(memory);
    auto* means = reinterpret_cast<float*>(keys_at + 2 * words());
    float* ranges = means + 3 * channels;
    float* scales = ranges + 6 * parts() * channels;
    return {.keys = keys_at,
            .values = keys_at + words(),
            .key_means = means,
            .value_means = means + channels,
            .value_scales = means + 2 * channels,
            .key_scales = scales,
            .ranges = ranges,
            .sums = reinterpret_cast<std::int32_t*>(scales + key_blocks())};
}

template <class T>
void measure_part(const HeadPacking& packing, const PackedHead& head, std::int64_t part,
                  const HeadRows<T>& k, const HeadRows<T>& v) {
    const std::int64_t first = part * kPartRows;
    const std::int64_t last = std::min(packing.keys, first + kPartRows);
    measure_rows(k, first, last, packing.channels, ranges_of(packing, head, part, 0));
    measure_rows(v, first, last, packing.channels, ranges_of(packing, head, part, 1));
}

bool choose_scales(const HeadPacking& packing, const PackedHead& head) {
    const bool fp16 = packing.layout.numbers == AttentionNumbers::fp16;
    float key_spread = 0;
    for (std::int64_t d = 0; d < packing.channels; ++d) {
        const Channel key = channel_of(packing, head, 0, d),
                      value = channel_of(packing, head, 1, d);
        // fp16 holds bf16 values as they are.
        head.key_means[d] = key.mean;
        head.value_means[d] = fp16 ? 0 : value.mean;
        const float spread = value.spread(head.value_means[d]);
        head.value_scales[d] =
            fp16 ? power_of_two(spread) : std::max(spread, kLeastSpread) / kLargestInt8;
        key_spread = std::max(key_spread, key.spread(key.mean));
        constexpr float kMost = 0x1p126F;
        if (!std::isfinite(key.mean) || !std::isfinite(value.mean) || key_spread > kMost ||
            spread > kMost)
            return false;
    }
    std::fill_n(head.key_scales, packing.key_blocks(), power_of_two(key_spread));
    return true;
}

template <class T>
void pack_block(const HeadPacking& packing, const PackedHead& head, std::int64_t block,
                const HeadRows<T>& k, const HeadRows<T>& v) {
    const std::int64_t first = block * packing.layout.key_block, channels = packing.channels;
    const std::int64_t last = std::min(packing.keys, first + packing.layout.key_block);
    std::uint32_t* keys = head.keys + first * channels / packing.layout.per_word();
    std::uint32_t* values = head.values + first * channels / packing.layout.per_word();
    const auto pack = [&]<class N>(N, const auto& key, const auto& value) {
        pack_keys<N>(k, first, last, channels, packing.layout.panel, key, keys);
        pack_values<N>(v, first, last, channels, packing.layout, value, values);
    };
    float key_inverse[kMaxChannels], value_inverse[kMaxChannels];
    if (packing.layout.numbers == AttentionNumbers::int8)
        head.key_scales[block] = int8_scale(k, first, last, channels, head.key_means);
    for (std::int64_t d = 0; packing.layout.scaled() && d < channels; ++d) {
        key_inverse[d] = 1 / head.key_scales[block];
        value_inverse[d] = 1 / head.value_scales[d];
    }
    switch (packing.layout.numbers) {
        case AttentionNumbers::float32:
            pack(std::uint32_t{}, AsTheyAre<std::uint32_t>{}, AsTheyAre<std::uint32_t>{});
            break;
        case AttentionNumbers::bf16:
            if constexpr (sizeof(T) == 2)
                pack(std::uint16_t{}, AsTheyAre<std::uint16_t>{}, AsTheyAre<std::uint16_t>{});
            break;
        case AttentionNumbers::fp16:
            pack(std::uint32_t{}, AsFp16Twice{head.key_means, key_inverse},
                 AsFp16Twice{head.value_means, value_inverse});
            break;
        case AttentionNumbers::int8:
            std::fill_n(head.sums + block * channels, channels, 0);
            pack(std::uint8_t{}, AsInt8Plus128{{head.key_means, key_inverse}},
                 AsInt8Summed{{head.value_means, value_inverse}, head.sums + block * channels});
            break;
    }
}

void center_values(const HeadPacking& packing, const PackedHead& head) {
    for (std::int64_t d = 0; d < packing.channels; ++d) {
        std::int64_t sum = 0;
        for (std::int64_t block = 0; block < packing.key_blocks(); ++block)
            sum += head.sums[block * packing.channels + d];
        const double mean = static_cast<double>(sum) / static_cast<double>(packing.keys);
        head.value_means[d] -= static_cast<float>(mean) * head.value_scales[d];
    }
}

template void measure_part(const HeadPacking&, const PackedHead&, std::int64_t,
                           const HeadRows<float>&, const HeadRows<float>&);
template void measure_part(const HeadPacking&, const PackedHead&, std::int64_t,
                           const HeadRows<std::uint16_t>&, const HeadRows<std::uint16_t>&);
template void pack_block(const HeadPacking&, const PackedHead&, std::int64_t,
                         const HeadRows<float>&, const HeadRows<float>&);
template void pack_block(const HeadPacking&, const PackedHead&, std::int64_t,
                         const HeadRows<std::uint16_t>&, const HeadRows<std::uint16_t>&);

}  // namespace zoetrope::ops
