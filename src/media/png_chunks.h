// Where the chunks of a PNG file lie (W3C recommendation, third edition, 5.3). Pure, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace zoetrope {

inline constexpr std::size_t kPngSignatureBytes = 8;
inline constexpr std::size_t kPngChunkOverhead = 12;  // length, type, CRC

struct PngChunk {
    std::string_view type;     // four bytes
    std::string_view content;  // views of the file; empty where it is not whole
    std::size_t end = 0;       // where the next chunk begins
    bool whole = false;        // false: it says to be longer than what is left of the file
};

// The chunk that begins at `position`; nothing where not even an empty one would fit. Its CRC is
// not looked at.
inline std::optional<PngChunk> png_chunk_at(std::span<const std::uint8_t> file,
                                            std::size_t position) {
    if (position > file.size() || file.size() - position < kPngChunkOverhead) return std::nullopt;
    const std::uint8_t* bytes = file.data() + position;
    const std::size_t length = std::size_t{bytes[0]} << 24 | std::size_t{bytes[1]} << 16 |
                               std::size_t{bytes[2]} << 8 | bytes[3];
    const auto* text = reinterpret_cast<const char*>(bytes);
    PngChunk chunk{.type = {text + 4, 4},
                   .content = {},
                   .end = position + kPngChunkOverhead + length,
                   .whole = length <= file.size() - position - kPngChunkOverhead};
    if (chunk.whole) chunk.content = {text + 8, length};
    return chunk;
}

}  // namespace zoetrope
