// What tests of pictures share: generated pixels, and the checksum that goldens hold.
#pragma once

#include "base/frames.h"

#include <array>
#include <cstdint>
#include <span>

namespace zoetrope {

// CRC-32 as in zlib and PNG (ISO 3309).
inline std::uint32_t crc32_of(std::span<const std::uint8_t> bytes) {
    std::array<std::uint32_t, 256> table;
    for (std::uint32_t i = 0; i < table.size(); ++i) {
        table[i] = i;
        for (int bit = 0; bit < 8; ++bit) table[i] = table[i] >> 1 ^ (table[i] % 2) * 0xEDB88320U;
    }
    std::uint32_t crc = ~0U;
    for (const std::uint8_t byte : bytes) crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF];
    return ~crc;
}

// The picture of tools/oracle/resize_golden.py: noise, or only black and white.
inline Frame generated(int width, int height, std::uint32_t seed, bool contrast) {
    Frame frame(width, height);
    std::uint32_t position = seed;
    for (std::uint8_t& value : frame.rgb) {
        std::uint32_t n = position++ * 2654435761U;
        n ^= n >> 15;
        n *= 2246822519U;
        n ^= n >> 13;
        value = static_cast<std::uint8_t>(contrast ? (n & 1) * 255 : n & 255);
    }
    return frame;
}

}  // namespace zoetrope
