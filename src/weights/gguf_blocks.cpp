#include "weights/gguf_blocks.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace zoetrope::gguf {
namespace {

constexpr int kSmall = 32;   // numbers of a block of Q*_0 and Q*_1
constexpr int kLarge = 256;  // and of Q*_K: QK_K

using Byte = std::uint8_t;

// IEEE 754 half precision, exactly.
float half(const Byte* at) {
    std::uint16_t bits;
    std::memcpy(&bits, at, sizeof(bits));
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000) << 16;
    const std::uint32_t rest = bits & 0x7fff;
    if (rest >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    // 2^112 moves the exponent from half's bias to float's, subnormal numbers too.
    return std::bit_cast<float>(
        sign | std::bit_cast<std::uint32_t>(std::bit_cast<float>(rest << 13) * 0x1p112F));
}

// 16 bytes of two numbers of 4 bits: the low halves are the first 16 numbers.
void split_nibbles(const Byte* packed, Byte* numbers) {
    for (int i = 0; i < kSmall / 2; ++i) {
        numbers[i] = packed[i] & 15;
        numbers[i + kSmall / 2] = packed[i] >> 4;
    }
}

// A fifth bit for each of 32 numbers.
void add_fifth_bits(const Byte* at, Byte* numbers) {
    for (int i = 0; i < kSmall; ++i) {
        numbers[i] = numbers[i] | ((at[i / 8] >> (i % 8)) & 1) << 4;
    }
}

// out = factor * (number - zero)
void scale(const Byte* numbers, int count, float factor, int zero, float* out) {
    for (int i = 0; i < count; ++i) {
        out[i] = factor * static_cast<float>(static_cast<int>(numbers[i]) - zero);
    }
}

// out = factor * number + offset
void scale_and_add(const Byte* numbers, int count, float factor, float offset, float* out) {
    for (int i = 0; i < count; ++i) {
        const float product = factor * static_cast<float>(numbers[i]);
        out[i] = product + offset;
    }
}

// factor, 32 signed numbers
void block_q8_0(const Byte* block, float* out) {
    const float factor = half(block);
    const Byte* numbers = block + 2;
    for (int i = 0; i < kSmall; ++i) {
        out[i] = static_cast<float>(static_cast<std::int8_t>(numbers[i])) * factor;
    }
}

// factor, 32 numbers of 4 bits
void block_q4_0(const Byte* block, float* out) {
    Byte numbers[kSmall];
    split_nibbles(block + 2, numbers);
    scale(numbers, kSmall, half(block), 8, out);
}

// factor, minimum, 32 numbers of 4 bits
void block_q4_1(const Byte* block, float* out) {
    Byte numbers[kSmall];
    split_nibbles(block + 4, numbers);
    scale_and_add(numbers, kSmall, half(block), half(block + 2), out);
}

// factor, fifth bits, 32 numbers of 4 bits
void block_q5_0(const Byte* block, float* out) {
    Byte numbers[kSmall];
    split_nibbles(block + 6, numbers);
    add_fifth_bits(block + 2, numbers);
    scale(numbers, kSmall, half(block), 16, out);
}

// factor, minimum, fifth bits, 32 numbers of 4 bits
void block_q5_1(const Byte* block, float* out) {
    Byte numbers[kSmall];
    split_nibbles(block + 8, numbers);
    add_fifth_bits(block + 4, numbers);
    scale_and_add(numbers, kSmall, half(block), half(block + 2), out);
}

// 32 bytes of four numbers of 2 bits, number k of byte i at 32 k + i, twice.
void split_pairs(const Byte* packed, Byte* numbers) {
    for (int part = 0; part < 2; ++part) {
        for (int k = 0; k < 4; ++k) {
            for (int i = 0; i < 32; ++i) {
                numbers[part * 128 + k * 32 + i] = (packed[part * 32 + i] >> 2 * k) & 3;
            }
        }
    }
}

// 16 pairs of 4-bit scale and minimum, 256 numbers of 2 bits, factor of the scales, of the minima
void block_q2_k(const Byte* block, float* out) {
    Byte numbers[kLarge];
    split_pairs(block + 16, numbers);
    const float factor = half(block + 80), minimum = half(block + 82);
    for (int group = 0; group < 16; ++group) {
        const float offset = minimum * static_cast<float>(block[group] >> 4);
        scale_and_add(numbers + 16 * group, 16, factor * static_cast<float>(block[group] & 15),
                      -offset, out + 16 * group);
    }
}

// third bits, 256 numbers of 2 bits, 16 scales of 6 bits in 12 bytes, factor of the scales
void block_q3_k(const Byte* block, float* out) {
    Byte numbers[kLarge];
    split_pairs(block + 32, numbers);
    for (int k = 0; k < 8; ++k) {
        for (int i = 0; i < 32; ++i) {
            // Without its third bit a number is 4 less.
            Byte& number = numbers[32 * k + i];
            number = number | ((block[i] >> k) & 1) << 2;
        }
    }
    const Byte* scales = block + 96;
    const float factor = half(block + 108);
    for (int group = 0; group < 16; ++group) {
        const int low_bits = group < 8 ? scales[group] & 15 : scales[group - 8] >> 4;
        const int high_bits = (scales[8 + group % 4] >> 2 * (group / 4)) & 3;
        scale(numbers + 16 * group, 16,
              factor * static_cast<float>((low_bits | high_bits << 4) - 32), 4, out + 16 * group);
    }
}

// Of Q4_K and Q5_K: eight scales and eight minima of 6 bits in 12 bytes.
struct ScaleAndMinimum {
    float scale;
    float minimum;
};
ScaleAndMinimum six_bits(const Byte* packed, int group) {
    if (group < 4) {
        return {static_cast<float>(packed[group] & 63), static_cast<float>(packed[group + 4] & 63)};
    }
    const int bits = packed[group + 4];
    return {static_cast<float>((bits & 15) | (packed[group - 4] >> 6) << 4),
            static_cast<float>(bits >> 4 | (packed[group] >> 6) << 4)};
}

// Four times 32 bytes of two numbers of 4 bits: the low halves come first.
void split_large_nibbles(const Byte* packed, Byte* numbers) {
    for (int part = 0; part < 4; ++part) {
        for (int i = 0; i < 32; ++i) {
            const Byte byte = packed[32 * part + i];
            numbers[64 * part + i] = byte & 15;
            numbers[64 * part + 32 + i] = byte >> 4;
        }
    }
}

void scale_groups(const Byte* block, const Byte* numbers, float* out) {
    const float factor = half(block), minimum = half(block + 2);
    for (int group = 0; group < 8; ++group) {
        const ScaleAndMinimum found = six_bits(block + 4, group);
        scale_and_add(numbers + 32 * group, 32, factor * found.scale, -(minimum * found.minimum),
                      out + 32 * group);
    }
}

// factor of the scales, of the minima, both, 256 numbers of 4 bits
void block_q4_k(const Byte* block, float* out) {
    Byte numbers[kLarge];
    split_large_nibbles(block + 16, numbers);
    scale_groups(block, numbers, out);
}

// the same with fifth bits before the numbers
void block_q5_k(const Byte* block, float* out) {
    Byte numbers[kLarge];
    split_large_nibbles(block + 48, numbers);
    const Byte* fifth = block + 16;
    for (int k = 0; k < 8; ++k) {
        for (int i = 0; i < 32; ++i) {
            Byte& number = numbers[32 * k + i];
            number = number | ((fifth[i] >> k) & 1) << 4;
        }
    }
    scale_groups(block, numbers, out);
}

// low 4 bits, high 2 bits, 16 signed scales, factor of the scales
void block_q6_k(const Byte* block, float* out) {
    Byte numbers[kLarge], high[kLarge];
    split_pairs(block + 128, high);
    for (int part = 0; part < 2; ++part) {
        for (int i = 0; i < 64; ++i) {
            const Byte byte = block[64 * part + i];
            numbers[128 * part + i] = byte & 15;
            numbers[128 * part + 64 + i] = byte >> 4;
        }
    }
    for (int i = 0; i < kLarge; ++i) numbers[i] = numbers[i] | high[i] << 4;
    const Byte* scales = block + 192;
    const float factor = half(block + 208);
    for (int group = 0; group < 16; ++group) {
        const auto signed_scale = static_cast<std::int8_t>(scales[group]);
        scale(numbers + 16 * group, 16, factor * static_cast<float>(signed_scale), 32,
              out + 16 * group);
    }
}

template <void (*block)(const Byte*, float*), int elements, int bytes>
void expand(const std::byte* blocks, std::int64_t count, float* out) {
    const auto* next = reinterpret_cast<const Byte*>(blocks);
    for (std::int64_t i = 0; i < count; ++i) block(next + i * bytes, out + i * elements);
}

template <void (*block)(const Byte*, float*), int elements, int bytes>
constexpr Format blocks_of(std::uint32_t id, std::string_view name) {
    return {id, name, elements, bytes, expand<block, elements, bytes>};
}

constexpr Format plain(std::uint32_t id, std::string_view name, std::int64_t bytes) {
    return {id, name, 1, bytes, nullptr};
}

constexpr std::array kFormats = {
    plain(0, "F32", 4),
    plain(1, "F16", 2),
    plain(30, "BF16", 2),
    plain(28, "F64", 8),
    plain(24, "I8", 1),
    plain(25, "I16", 2),
    plain(26, "I32", 4),
    plain(27, "I64", 8),
    blocks_of<block_q8_0, kSmall, 34>(8, "Q8_0"),
    blocks_of<block_q6_k, kLarge, 210>(14, "Q6_K"),
    blocks_of<block_q5_k, kLarge, 176>(13, "Q5_K"),
    blocks_of<block_q5_1, kSmall, 24>(7, "Q5_1"),
    blocks_of<block_q5_0, kSmall, 22>(6, "Q5_0"),
    blocks_of<block_q4_k, kLarge, 144>(12, "Q4_K"),
    blocks_of<block_q4_1, kSmall, 20>(3, "Q4_1"),
    blocks_of<block_q4_0, kSmall, 18>(2, "Q4_0"),
    blocks_of<block_q3_k, kLarge, 110>(11, "Q3_K"),
    blocks_of<block_q2_k, kLarge, 84>(10, "Q2_K"),
};

}  // namespace

const Format* find_format(std::uint32_t id) {
    const auto* found = std::find_if(kFormats.begin(), kFormats.end(),
                                     [&](const Format& format) { return format.id == id; });
    return found == kFormats.end() ? nullptr : found;
}

std::string_view format_names() {
    return "F32, F16, BF16, F64, I8 to I64, Q8_0, Q6_K, Q5_K, Q5_1, Q5_0, Q4_K, Q4_1, Q4_0, Q3_K "
           "and Q2_K";
}

}  // namespace zoetrope::gguf
