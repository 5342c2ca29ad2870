// Fuzz target: the same as torch_archive, where the bytes are those of the pickle, so that mutants
// are not all refused as broken zip files. Beside it lie storages of 0, 16 and 64 bytes.
#include "torch_archive_checks.h"

#include <string>
#include <vector>

namespace {

template <typename... Fields>
void put(std::string& bytes, Fields... fields) {
    (bytes.append(reinterpret_cast<const char*>(&fields), sizeof(fields)), ...);
}

using U16 = std::uint16_t;
using U32 = std::uint32_t;

// One stored entry: its local header and content, and its line of the directory.
void add(std::string& file, std::string& directory, std::string_view name,
         std::string_view content) {
    const auto begin = static_cast<U32>(file.size());
    const auto size = static_cast<U32>(content.size());
    const auto length = static_cast<U16>(name.size());
    file += "PK\x03\x04";
    put(file, U16{20}, U16{0}, U16{0}, U32{0}, U32{0}, size, size, length, U16{0});
    file.append(name).append(content);
    directory += "PK\x01\x02";
    put(directory, U16{20}, U16{20}, U16{0}, U16{0}, U32{0}, U32{0}, size, size, length, U16{0},
        U16{0}, U16{0}, U16{0}, U32{0}, begin);
    directory.append(name);
}

std::string archive_of(std::string_view pickle) {
    std::string file, directory;
    add(file, directory, "a/data.pkl", pickle);
    add(file, directory, "a/data/0", std::string(64, '\1'));
    add(file, directory, "a/data/1", std::string(16, '\1'));
    add(file, directory, "a/data/2", "");
    const auto begin = static_cast<U32>(file.size());
    file += directory + "PK\x05\x06";
    put(file, U16{0}, U16{0}, U16{4}, U16{4}, static_cast<U32>(directory.size()), begin, U16{0});
    return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string file = archive_of({reinterpret_cast<const char*>(data), size});
    zoetrope::check_archive(std::as_bytes(std::span(file)));
    return 0;
}
