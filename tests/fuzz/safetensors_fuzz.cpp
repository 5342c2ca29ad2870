// Fuzz target: whatever the bytes of a .safetensors file are, its header is refused with an Error
// or read into entries that keep the promises of weights/safetensors_header.h.
#include "promises.h"
#include "weights/safetensors_header.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <vector>

namespace {

constexpr std::size_t kLengthBytes = 8;

using zoetrope::require;

void check(const zoetrope::safetensors::Header& header, std::size_t file_size) {
    std::set<std::string> names;
    std::uint64_t position = 0;
    for (const auto& entry : header.entries) {
        require(names.insert(entry.name).second);
        require(position == 0 ? entry.begin >= kLengthBytes : entry.begin == position);
        require(entry.begin <= entry.end && entry.end <= file_size);
        std::int64_t bytes = zoetrope::safetensors::bytes_of(entry.dtype);
        for (const std::int64_t size : entry.shape) {
            require(size >= 0 && !__builtin_mul_overflow(bytes, size, &bytes));
        }
        require(static_cast<std::uint64_t>(bytes) == entry.end - entry.begin);
        position = entry.end;
    }
    require(header.entries.empty() || position == file_size);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        check(zoetrope::safetensors::parse(std::as_bytes(std::span(data, size)), "fuzz"), size);
    } catch (const zoetrope::Error& error) {
        zoetrope::check_message(error);
    }
    return 0;
}

#ifdef ZT_LIBFUZZER
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

// Mutates the JSON text and sets the length before it right, so that mutants are not all refused at
// their first eight bytes. One in eight is mutated as plain bytes.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned seed) {
    if (size < kLengthBytes || seed % 8 == 0) return LLVMFuzzerMutate(data, size, max_size);
    std::uint64_t length = 0;
    std::memcpy(&length, data, kLengthBytes);
    const std::size_t content = size - kLengthBytes;
    const std::size_t text_size = std::min<std::uint64_t>(length, content);
    const std::size_t tail_size = content - text_size;
    std::vector<std::uint8_t> text(data + kLengthBytes, data + kLengthBytes + text_size);
    const std::vector<std::uint8_t> tail(data + kLengthBytes + text_size, data + size);
    const std::size_t room = max_size - kLengthBytes - tail_size;
    if (room == 0) return LLVMFuzzerMutate(data, size, max_size);
    text.resize(room);
    const std::uint64_t mutated = LLVMFuzzerMutate(text.data(), text_size, room);
    std::memcpy(data, &mutated, kLengthBytes);
    std::copy_n(text.begin(), mutated, data + kLengthBytes);
    std::copy(tail.begin(), tail.end(), data + kLengthBytes + mutated);
    return kLengthBytes + mutated + tail_size;
}
#endif
