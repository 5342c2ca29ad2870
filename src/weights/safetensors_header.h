// The header of a .safetensors file, read and checked completely. Knows bytes and JSON, no tensors.
//
// Layout (huggingface/safetensors): u64 little-endian length N, N bytes of JSON that begin with '{'
// and may end in spaces, then the data. Whatever the bytes are, parse() either throws Error or
// gives entries whose ranges lie inside the file, cover its data without gap or overlap, and are as
// long as shape x dtype says. Pure functions, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zoetrope::safetensors {

enum class Dtype {
    boolean,
    u8,
    i8,
    f8_e5m2,
    f8_e4m3,
    i16,
    u16,
    f16,
    bf16,
    i32,
    u32,
    f32,
    i64,
    u64,
    f64,
};

// "BOOL", "BF16", ... as the header spells it.
std::string_view name_of(Dtype dtype);
std::int64_t bytes_of(Dtype dtype);

struct Entry {
    std::string name;
    Dtype dtype = Dtype::f32;
    std::vector<std::int64_t> shape;  // empty: a scalar
    std::uint64_t begin = 0;          // byte range, from the start of the file
    std::uint64_t end = 0;
};

struct Header {
    std::vector<Entry> entries;  // in the order of their data
    std::vector<std::pair<std::string, std::string>> metadata;
};

// Whether a file that begins like this is one that parse() is for.
bool is_safetensors(std::span<const std::byte> file);

// `file`: the whole file; `source`: its name for messages. Errors: io for everything that is broken
// (naming the tensor where there is one), unsupported for a dtype that is not in the list above.
Header parse(std::span<const std::byte> file, std::string_view source);

}  // namespace zoetrope::safetensors
