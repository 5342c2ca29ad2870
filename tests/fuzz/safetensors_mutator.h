// Mutates .safetensors files for libFuzzer: the JSON text, with the length before it set right, so
// that mutants are not all refused at their first eight bytes. One in eight is mutated as plain
// bytes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace zoetrope {

constexpr std::size_t kLengthBytes = 8;  // of the header, before it

}  // namespace zoetrope

#ifdef ZT_LIBFUZZER
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned seed) {
    using zoetrope::kLengthBytes;
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
