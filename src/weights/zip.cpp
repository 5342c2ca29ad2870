#include "weights/zip.h"

#include "base/error.h"
#include "weights/byte_reader.h"
#include "weights/file_text.h"

#include <algorithm>
#include <unordered_set>

namespace zoetrope::zip {
namespace {

constexpr std::uint32_t kLocalHeader = 0x04034b50;
constexpr std::uint32_t kDirectoryEntry = 0x02014b50;
constexpr std::uint32_t kDirectoryEnd = 0x06054b50;
constexpr std::uint32_t kDirectoryEnd64 = 0x06064b50;
constexpr std::uint32_t kLocator64 = 0x07064b50;
constexpr std::size_t kLocalHeaderBytes = 30;
constexpr std::size_t kDirectoryEntryBytes = 46;
constexpr std::size_t kDirectoryEndBytes = 22;
constexpr std::size_t kLocator64Bytes = 20;
constexpr std::size_t kMaxComment = 0xffff;
constexpr std::uint32_t kIn64 = 0xffffffff;  // the number stands in the zip64 record
constexpr std::uint16_t kIn64Short = 0xffff;
constexpr std::uint16_t kExtra64 = 1;         // id of an entry's zip64 field
constexpr std::uint16_t kEncrypted = 1 << 0;  // flags
constexpr std::uint64_t kMaxEntries = 1000000;

struct Directory {
    std::uint64_t entries = 0;
    std::uint64_t begin = 0;
    std::uint64_t size = 0;
};

// Where the record at the file's end begins: the last signature whose comment reaches to the end.
std::size_t find_directory_end(std::span<const std::byte> file, std::string_view source) {
    if (file.size() >= kDirectoryEndBytes) {
        const std::size_t last = file.size() - kDirectoryEndBytes;
        for (std::size_t back = 0; back <= std::min(last, kMaxComment); ++back) {
            ByteReader reader(file, source);
            reader.move_to(last - back);
            if (reader.number<std::uint32_t>() != kDirectoryEnd) continue;
            reader.skip(16);
            if (reader.number<std::uint16_t>() == back) return last - back;
        }
    }
    fail(ErrorKind::io,
         "{}: not a complete zip file: it has no directory at its end. Download or copy it again",
         source);
}

Directory find_directory(std::span<const std::byte> file, std::string_view source) {
    const std::size_t end = find_directory_end(file, source);
    ByteReader reader(file, source);
    reader.move_to(end + 4);
    const auto disk = reader.number<std::uint16_t>();
    const auto first_disk = reader.number<std::uint16_t>();
    const auto here = reader.number<std::uint16_t>();
    Directory directory;
    directory.entries = reader.number<std::uint16_t>();
    directory.size = reader.number<std::uint32_t>();
    directory.begin = reader.number<std::uint32_t>();
    const bool is_64 =
        directory.entries == kIn64Short || directory.size == kIn64 || directory.begin == kIn64;
    std::size_t directory_limit = end;
    if (is_64 && end >= kLocator64Bytes) {
        reader.move_to(end - kLocator64Bytes);
        if (reader.number<std::uint32_t>() == kLocator64) {
            reader.skip(4);
            const auto place = reader.number<std::uint64_t>();
            reader.move_to(place);
            ZT_CHECK(reader.number<std::uint32_t>() == kDirectoryEnd64, io,
                     "{}: the zip directory's zip64 record is not where it is said to be", source);
            reader.skip(28);
            directory.entries = reader.number<std::uint64_t>();
            directory.size = reader.number<std::uint64_t>();
            directory.begin = reader.number<std::uint64_t>();
            directory_limit = place;
        }
    } else {
        ZT_CHECK(disk == 0 && first_disk == 0 && here == directory.entries, unsupported,
                 "{}: zip files of several parts are not read", source);
    }
    ZT_CHECK(
        directory.size <= directory_limit && directory.begin <= directory_limit - directory.size,
        io, "{}: the zip directory is said to lie at byte {} with {} bytes, outside the file",
        source, directory.begin, directory.size);
    ZT_CHECK(directory.entries <= kMaxEntries &&
                 directory.entries <= directory.size / kDirectoryEntryBytes,
             io, "{}: the zip directory of {} bytes is said to have {} entries", source,
             directory.size, directory.entries);
    return directory;
}

// The numbers of an entry that did not fit into 32 bits, from its zip64 field.
void read_extra(std::span<const std::byte> extra, std::string_view source,
                std::initializer_list<std::uint64_t*> numbers) {
    ByteReader reader(extra, source);
    while (reader.remaining() >= 4) {
        const auto id = reader.number<std::uint16_t>();
        const auto size = reader.number<std::uint16_t>();
        if (id == kExtra64) {
            for (std::uint64_t* number : numbers) {
                if (*number == kIn64) *number = reader.number<std::uint64_t>();
            }
            return;
        }
        reader.skip(size);
    }
}

// Reads one entry of the directory and finds its content behind its local header. data: the file
// up to the directory, so that no entry lies over it.
Entry read_entry(std::span<const std::byte> data, ByteReader& reader, std::string_view source) {
    ZT_CHECK(reader.number<std::uint32_t>() == kDirectoryEntry, io,
             "{}: the zip directory is broken at byte {}", source, reader.position() - 4);
    reader.skip(4);
    const auto flags = reader.number<std::uint16_t>();
    const auto method = reader.number<std::uint16_t>();
    reader.skip(8);
    std::uint64_t packed_size = reader.number<std::uint32_t>();
    std::uint64_t size = reader.number<std::uint32_t>();
    const auto name_length = reader.number<std::uint16_t>();
    const auto extra_length = reader.number<std::uint16_t>();
    const auto comment_length = reader.number<std::uint16_t>();
    reader.skip(8);
    std::uint64_t header = reader.number<std::uint32_t>();
    Entry entry;
    entry.name = reader.text(name_length);
    const std::string_view extra = reader.text(extra_length);
    reader.skip(comment_length);
    read_extra(std::as_bytes(std::span(extra)), source, {&size, &packed_size, &header});
    ZT_CHECK(method == 0 && (flags & kEncrypted) == 0, unsupported,
             "{}: the entry {} of the zip file is compressed or encrypted, which torch.save never "
             "does. Unpack it and pack it again without compression (zip -0)",
             source, shown(entry.name));
    ZT_CHECK(size == packed_size, io, "{}: the entry {} has {} bytes and is stored in {}", source,
             shown(entry.name), size, packed_size);

    ByteReader local(data, source);
    local.move_to(header);
    ZT_CHECK(local.number<std::uint32_t>() == kLocalHeader, io,
             "{}: the entry {} of the zip file is not at byte {}, where it is said to be", source,
             shown(entry.name), header);
    local.skip(kLocalHeaderBytes - 8);
    const auto local_name_length = local.number<std::uint16_t>();
    const auto local_extra_length = local.number<std::uint16_t>();
    ZT_CHECK(local.text(local_name_length) == entry.name, io,
             "{}: the entry {} has another name where its data begin", source, shown(entry.name));
    local.skip(local_extra_length);
    entry.begin = local.position();
    entry.size = size;
    ZT_CHECK(entry.size <= local.remaining(), io,
             "{}: the entry {} has {} bytes at byte {}, past the end of the data. Download or copy "
             "it again",
             source, shown(entry.name), entry.size, entry.begin);
    return entry;
}

}  // namespace

std::vector<Entry> parse(std::span<const std::byte> file, std::string_view source) {
    const Directory directory = find_directory(file, source);
    ByteReader reader(file.first(directory.begin + directory.size), source);
    reader.move_to(directory.begin);
    std::vector<Entry> entries;
    std::unordered_set<std::string_view> names;
    for (std::uint64_t i = 0; i < directory.entries; ++i) {
        entries.push_back(read_entry(file.first(directory.begin), reader, source));
        ZT_CHECK(names.insert(entries.back().name).second, io,
                 "{}: the zip file has the entry {} twice", source, shown(entries.back().name));
    }
    std::stable_sort(entries.begin(), entries.end(),
                     [](const Entry& a, const Entry& b) { return a.begin < b.begin; });
    for (std::size_t i = 1; i < entries.size(); ++i) {
        ZT_CHECK(entries[i - 1].begin + entries[i - 1].size <= entries[i].begin, io,
                 "{}: the entries {} and {} of the zip file overlap", source,
                 shown(entries[i - 1].name), shown(entries[i].name));
    }
    return entries;
}

}  // namespace zoetrope::zip
