// Fuzz target: whatever the bytes of a .gguf file are, its header is refused with an Error or read
// into entries that keep the promises of weights/gguf.h, and their blocks expand to as many numbers
// as their shape says, from no other bytes than theirs.
#include "promises.h"
#include "weights/gguf.h"

#include <set>
#include <vector>

namespace {

using zoetrope::require;

void check(const zoetrope::gguf::Header& header, std::span<const std::byte> file) {
    std::set<std::string> names;
    std::uint64_t free_from = 0;
    for (const auto& entry : header.entries) {
        require(names.insert(entry.name).second);
        require(entry.begin >= free_from && entry.begin <= entry.end && entry.end <= file.size());
        free_from = entry.end;
        std::int64_t elements = 1;
        for (const std::int64_t size : entry.shape) {
            require(size >= 0 && !__builtin_mul_overflow(elements, size, &elements));
        }
        const auto& format = *entry.format;
        require(elements % format.block_elements == 0);
        const std::int64_t blocks = elements / format.block_elements;
        const auto bytes = static_cast<std::int64_t>(entry.end - entry.begin);
        require(blocks * format.block_bytes == bytes);
        if (format.expand == nullptr) continue;
        // In memory of their own, where the sanitizer sees a step outside.
        const std::vector<std::byte> copy(file.begin() + static_cast<std::ptrdiff_t>(entry.begin),
                                          file.begin() + static_cast<std::ptrdiff_t>(entry.end));
        std::vector<float> out(static_cast<std::size_t>(elements));
        format.expand(copy.data(), blocks, out.data());
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto file = std::as_bytes(std::span(data, size));
    try {
        check(zoetrope::gguf::parse(file, "fuzz"), file);
    } catch (const zoetrope::Error& error) {
        zoetrope::check_message(error);
    }
    return 0;
}
