// Fuzz target: whatever the bytes of a .safetensors file are, its header is refused with an Error
// or read into entries that keep the promises of weights/safetensors_header.h.
#include "promises.h"
#include "safetensors_mutator.h"
#include "weights/safetensors_header.h"

#include <set>

namespace {

using zoetrope::kLengthBytes;
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
