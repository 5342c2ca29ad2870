// The directory of a zip file whose entries are stored without compression, as torch.save writes
// them. Knows bytes, no tensors.
//
// Layout: APPNOTE.TXT 6.3 of PKWARE, with zip64. Whatever the bytes are, parse() either throws
// Error or gives entries that lie inside the file and do not overlap. Pure function, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace zoetrope::zip {

struct Entry {
    std::string_view name;  // lies in the file
    std::uint64_t begin = 0;
    std::uint64_t size = 0;
};

// `file`: the whole file; `source`: its name for messages. Entries come in the order of their data.
// Errors: io for everything that is broken, unsupported for a compressed or encrypted entry.
std::vector<Entry> parse(std::span<const std::byte> file, std::string_view source);

}  // namespace zoetrope::zip
