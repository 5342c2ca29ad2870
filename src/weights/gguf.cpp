#include "weights/gguf.h"

#include "base/error.h"
#include "weights/byte_reader.h"
#include "weights/file_text.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <unordered_map>
#include <unordered_set>

namespace zoetrope::gguf {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr std::uint32_t kOldestVersion = 2, kNewestVersion = 3;
constexpr std::uint32_t kDefaultAlignment = 32;  // bytes
constexpr std::uint32_t kMaxAlignment = 1 << 20;
constexpr std::uint32_t kMaxDimensions = 8;  // ggml's own are 4, Wan's patch embedding has 5
constexpr std::uint64_t kShownValues = 16;   // of a list
constexpr std::string_view kOriginalShape = "comfy.gguf.orig_shape.";

// gguf_type: kinds of values.
enum ValueType : std::uint32_t {
    kUint8,
    kInt8,
    kUint16,
    kInt16,
    kUint32,
    kInt32,
    kFloat32,
    kBool,
    kString,
    kArray,
    kUint64,
    kInt64,
    kFloat64,
};

class Parser {
public:
    Parser(std::span<const std::byte> file, std::string_view source)
        : reader_(file, source), size_(file.size()), source_(source) {}

    Header run() {
        ZT_CHECK(reader_.text(kMagic.size()) == kMagic, io, "{}: not a GGUF file", source_);
        const auto version = reader_.number<std::uint32_t>();
        ZT_CHECK(version >= kOldestVersion && version <= kNewestVersion, unsupported,
                 "{}: GGUF version {}: read are the versions 2 and 3, little-endian", source_,
                 version);
        const auto tensors = reader_.number<std::uint64_t>();
        const auto pairs = reader_.number<std::uint64_t>();
        for (std::uint64_t i = 0; i < pairs; ++i) read_pair();
        for (std::uint64_t i = 0; i < tensors; ++i) read_tensor();
        place_tensors();
        return std::move(header_);
    }

private:
    std::string_view text() { return reader_.text(reader_.number<std::uint64_t>()); }

    void read_pair();
    std::string value_of(std::uint32_t type, std::string_view key);
    std::string list_of(std::string_view key);
    void read_tensor();
    std::uint64_t bytes_of(const Entry& entry) const;
    void place_tensors();

    ByteReader reader_;
    std::uint64_t size_;
    std::string_view source_;
    std::uint32_t alignment_ = kDefaultAlignment;
    std::unordered_set<std::string_view> keys_;
    std::unordered_set<std::string_view> names_;
    std::unordered_map<std::string_view, std::vector<std::int64_t>> original_shapes_;
    Header header_;
};

void Parser::read_pair() {
    const std::string_view key = text();
    ZT_CHECK(is_utf8(key) && keys_.insert(key).second, io,
             "{}: the metadata have the key '{}' twice, or it is not UTF-8", source_, shown(key));
    const auto type = reader_.number<std::uint32_t>();
    if (key == "general.alignment") {
        ZT_CHECK(type == kUint32, io, "{}: general.alignment is not a 32-bit number", source_);
        alignment_ = reader_.number<std::uint32_t>();
        ZT_CHECK(std::has_single_bit(alignment_) && alignment_ <= kMaxAlignment, io,
                 "{}: general.alignment is {}, which is no power of two up to {}", source_,
                 alignment_, kMaxAlignment);
        header_.metadata.emplace_back(key, fmt::format("{}", alignment_));
        return;
    }
    header_.metadata.emplace_back(key, value_of(type, key));
}

std::string Parser::value_of(std::uint32_t type, std::string_view key) {
    switch (type) {
        case kUint8: return fmt::format("{}", reader_.number<std::uint8_t>());
        case kInt8: return fmt::format("{}", reader_.number<std::int8_t>());
        case kUint16: return fmt::format("{}", reader_.number<std::uint16_t>());
        case kInt16: return fmt::format("{}", reader_.number<std::int16_t>());
        case kUint32: return fmt::format("{}", reader_.number<std::uint32_t>());
        case kInt32: return fmt::format("{}", reader_.number<std::int32_t>());
        case kFloat32: return fmt::format("{}", reader_.number<float>());
        case kBool: return reader_.number<std::uint8_t>() != 0 ? "true" : "false";
        case kString: {
            const std::string_view value = text();
            return is_utf8(value) ? std::string(value) : shown(value);
        }
        case kArray: return list_of(key);
        case kUint64: return fmt::format("{}", reader_.number<std::uint64_t>());
        case kInt64: return fmt::format("{}", reader_.number<std::int64_t>());
        case kFloat64: return fmt::format("{}", reader_.number<double>());
        default:
            fail(ErrorKind::io, "{}: the metadata's '{}' is of the unknown type {}", source_,
                 shown(key), type);
    }
}

std::string Parser::list_of(std::string_view key) {
    const auto type = reader_.number<std::uint32_t>();
    const auto count = reader_.number<std::uint64_t>();
    ZT_CHECK(type != kArray, io, "{}: the metadata's '{}' is a list of lists", source_, shown(key));
    if (type == kString) {
        for (std::uint64_t i = 0; i < count; ++i) text();
        return fmt::format("{} texts", count);
    }
    if (key.starts_with(kOriginalShape) && type == kInt32) {
        ZT_CHECK(count <= kMaxDimensions, io, "{}: '{}' has {} dimensions, at most {} are read",
                 source_, shown(key), count, kMaxDimensions);
        std::vector<std::int64_t> shape;
        for (std::uint64_t i = 0; i < count; ++i) shape.push_back(reader_.number<std::int32_t>());
        std::string list = fmt::format("[{}]", fmt::join(shape, ", "));
        original_shapes_.emplace(key.substr(kOriginalShape.size()), std::move(shape));
        return list;
    }
    std::vector<std::string> shown_values;
    for (std::uint64_t i = 0; i < count; ++i) {
        std::string value = value_of(type, key);
        if (i < kShownValues) shown_values.push_back(std::move(value));
    }
    return count <= kShownValues ? fmt::format("[{}]", fmt::join(shown_values, ", "))
                                 : fmt::format("{} numbers", count);
}

void Parser::read_tensor() {
    const std::string_view name = text();
    check_tensor_name(name, source_);
    ZT_CHECK(names_.insert(name).second, io, "{}: tensor {} comes twice", source_, shown(name));
    Entry entry;
    entry.name = name;
    const auto dimensions = reader_.number<std::uint32_t>();
    ZT_CHECK(dimensions <= kMaxDimensions, io,
             "{}: tensor {} has {} dimensions, at most {} are read", source_, shown(name),
             dimensions, kMaxDimensions);
    for (std::uint32_t i = 0; i < dimensions; ++i) {
        const auto size = reader_.number<std::uint64_t>();
        ZT_CHECK(size <= std::numeric_limits<std::int64_t>::max(), io,
                 "{}: tensor {} has a dimension of {}", source_, shown(name), size);
        entry.shape.push_back(static_cast<std::int64_t>(size));
    }
    // ggml names the innermost dimension first.
    std::reverse(entry.shape.begin(), entry.shape.end());
    const auto format = reader_.number<std::uint32_t>();
    entry.format = find_format(format);
    ZT_CHECK(entry.format != nullptr, unsupported,
             "{}: tensor {} is stored in the ggml format number {}, which is not read. Read are {}",
             source_, shown(name), format, format_names());
    entry.begin = reader_.number<std::uint64_t>();
    header_.entries.push_back(std::move(entry));
}

std::uint64_t Parser::bytes_of(const Entry& entry) const {
    constexpr std::int64_t limit = std::numeric_limits<std::int64_t>::max();
    std::int64_t product = 1;
    bool empty = false;
    for (const std::int64_t size : entry.shape) {
        empty = empty || size == 0;
        // Room for the 8 bytes of the widest number, and for blocks, which are narrower.
        ZT_CHECK(size == 0 || product <= limit / 8 / size, io,
                 "{}: tensor {} has a shape of more bytes than 64 bits can count: [{}]", source_,
                 shown(entry.name), fmt::join(entry.shape, ", "));
        product *= std::max<std::int64_t>(size, 1);
    }
    const std::int64_t row = entry.shape.empty() ? 1 : entry.shape.back();
    ZT_CHECK(row % entry.format->block_elements == 0, io,
             "{}: tensor {} has rows of {} numbers, and {} comes in blocks of {}", source_,
             shown(entry.name), row, entry.format->name, entry.format->block_elements);
    if (empty) return 0;
    return static_cast<std::uint64_t>(product / entry.format->block_elements *
                                      entry.format->block_bytes);
}

// Checks the offsets, which count from the start of the data, and makes them count from the start
// of the file.
void Parser::place_tensors() {
    auto& entries = header_.entries;
    std::stable_sort(entries.begin(), entries.end(),
                     [](const Entry& a, const Entry& b) { return a.begin < b.begin; });
    const std::uint64_t alignment = alignment_;
    const std::uint64_t data = (reader_.position() + alignment - 1) / alignment * alignment;
    ZT_CHECK(entries.empty() || data <= size_, io,
             "{}: the file breaks off where its data begin, at byte {}. Download or copy it again",
             source_, data);
    const std::uint64_t room = size_ - std::min(size_, data);
    std::uint64_t free_from = 0;
    for (Entry& entry : entries) {
        const std::uint64_t bytes = bytes_of(entry);
        ZT_CHECK(entry.begin % alignment == 0, io,
                 "{}: tensor {} begins at byte {} of the data, which is no multiple of {}", source_,
                 shown(entry.name), entry.begin, alignment);
        ZT_CHECK(entry.begin <= room && bytes <= room - entry.begin, io,
                 "{}: the file breaks off: tensor {} has {} bytes at byte {} of the data, the file "
                 "has {}. Download or copy it again",
                 source_, shown(entry.name), bytes, entry.begin, room);
        ZT_CHECK(entry.begin >= free_from, io,
                 "{}: tensor {} begins at byte {} of the data, but the one before it ends at {}",
                 source_, shown(entry.name), entry.begin, free_from);
        free_from = entry.begin + bytes;
        entry.begin += data;
        entry.end = entry.begin + bytes;
        const auto original = original_shapes_.find(entry.name);
        if (original == original_shapes_.end()) continue;
        std::int64_t left = 1;
        for (const std::int64_t size : entry.shape) left *= size;
        bool same = left > 0;
        for (const std::int64_t size : original->second) {
            same = same && size > 0 && left % size == 0;
            if (same) left /= size;
        }
        ZT_CHECK(same && left == 1, io,
                 "{}: tensor {} of shape [{}] is said to have had the shape [{}]", source_,
                 shown(entry.name), fmt::join(entry.shape, ", "),
                 fmt::join(original->second, ", "));
        entry.shape = original->second;
    }
}

}  // namespace

bool is_gguf(std::span<const std::byte> file) {
    return file.size() >= kMagic.size() &&
           std::string_view(reinterpret_cast<const char*>(file.data()), kMagic.size()) == kMagic;
}

Header parse(std::span<const std::byte> file, std::string_view source) {
    return Parser(file, source).run();
}

}  // namespace zoetrope::gguf
