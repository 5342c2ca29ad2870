// The header of a .gguf file, read and checked completely. Knows bytes, no tensors.
//
// Layout (ggml's docs/gguf.md), all little-endian: "GGUF", version, counts, key-value pairs, tensor
// descriptions, then the data, each tensor at a multiple of the alignment. Whatever the bytes are,
// parse() either throws Error or gives entries that lie inside the file, do not overlap and are as
// long as shape x format says. Pure functions, any thread.
#pragma once

#include "weights/gguf_blocks.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zoetrope::gguf {

struct Entry {
    std::string name;
    const Format* format = nullptr;   // never null
    std::vector<std::int64_t> shape;  // row-major: the dimension that blocks lie along comes last
    std::uint64_t begin = 0;          // byte range, from the start of the file
    std::uint64_t end = 0;
};

struct Header {
    std::vector<Entry> entries;  // in the order of their data
    // Numbers and short lists of numbers as text ("[1536, 16, 1, 2, 2]"), other lists by their
    // length ("256384 texts").
    std::vector<std::pair<std::string, std::string>> metadata;
};

// Whether a file that begins like this is one that parse() is for.
bool is_gguf(std::span<const std::byte> file);

// `file`: the whole file; `source`: its name for messages. A tensor whose shape was folded to fit
// into four dimensions gets it back from "comfy.gguf.orig_shape.NAME", which ComfyUI-GGUF writes.
// Errors: io for everything that is broken (naming the tensor where there is one); unsupported for
// versions other than 2 and 3, big-endian files and formats that are not read.
Header parse(std::span<const std::byte> file, std::string_view source);

}  // namespace zoetrope::gguf
