// The number formats of GGUF files, and the expansion of their blocks to float32.
//
// A block holds 32 or 256 numbers of a row in few bits, with what they are multiplied by (layouts:
// ggml's ggml-common.h, struct block_*). Results equal those of the reference, gguf-py, bit for
// bit. Knows bytes, no tensors. Pure functions, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace zoetrope::gguf {

// Expands `count` blocks; out has count * block_elements places.
using ExpandBlocks = void (*)(const std::byte* blocks, std::int64_t count, float* out);

struct Format {
    std::uint32_t id;  // as the file has it: ggml_type
    std::string_view name;
    std::int64_t block_elements;
    std::int64_t block_bytes;
    ExpandBlocks expand;  // null for plain numbers, whose blocks have one element
};

// Null for a format that is not read. Errors: none.
const Format* find_format(std::uint32_t id);
// Names of the formats that are read: "F32, F16, ...".
std::string_view format_names();

}  // namespace zoetrope::gguf
