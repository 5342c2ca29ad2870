#include "weights/safetensors_header.h"

#include "base/error.h"
#include "weights/file_text.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <unordered_set>

namespace zoetrope::safetensors {
namespace {

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // of the reference implementation
constexpr std::size_t kMaxDimensions = 64;              // of LibTorch's operators

struct DtypeRow {
    Dtype dtype;
    std::string_view name;
    std::int64_t bytes;
};
constexpr std::array kDtypes = {
    DtypeRow{Dtype::boolean, "BOOL", 1},    DtypeRow{Dtype::u8, "U8", 1},
    DtypeRow{Dtype::i8, "I8", 1},           DtypeRow{Dtype::f8_e5m2, "F8_E5M2", 1},
    DtypeRow{Dtype::f8_e4m3, "F8_E4M3", 1}, DtypeRow{Dtype::i16, "I16", 2},
    DtypeRow{Dtype::u16, "U16", 2},         DtypeRow{Dtype::f16, "F16", 2},
    DtypeRow{Dtype::bf16, "BF16", 2},       DtypeRow{Dtype::i32, "I32", 4},
    DtypeRow{Dtype::u32, "U32", 4},         DtypeRow{Dtype::f32, "F32", 4},
    DtypeRow{Dtype::i64, "I64", 8},         DtypeRow{Dtype::u64, "U64", 8},
    DtypeRow{Dtype::f64, "F64", 8},
};

// An entry while it is read. Offsets count from the start of the data.
struct Draft {
    Entry entry;
    std::size_t offsets = 0;  // how many of the two were given
    bool has_dtype = false;
    bool has_shape = false;
    bool has_offsets = false;
};

// Takes nlohmann's events and builds the entries. The grammar is three levels deep, so the first
// event that does not belong where it comes ends the reading: depth and memory stay bounded, and
// keys that come twice are seen.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
public:
    explicit HeaderReader(std::string_view source) : source_(source) {}

    Header take() { return std::move(header_); }

    bool start_object(std::size_t) override {
        switch (place_) {
            case Place::start: place_ = Place::top; return true;
            case Place::top_value:
                place_ = key_ == "__metadata__" ? Place::metadata : Place::tensor;
                return true;
            default: misplaced("an object");
        }
    }

    bool key(string_t& key) override {
        switch (place_) {
            case Place::top: return top_key(key);
            case Place::tensor: return tensor_key(key);
            default:
                ZT_CHECK(metadata_keys_.insert(key).second, io,
                         "{}: the metadata hold the key '{}' twice", source_, shown(key));
                header_.metadata.emplace_back(key, "");
                place_ = Place::metadata_value;
                return true;
        }
    }

    bool string(string_t& text) override {
        if (place_ == Place::metadata_value) {
            header_.metadata.back().second = std::move(text);
            place_ = Place::metadata;
            return true;
        }
        if (place_ != Place::dtype) misplaced("a text");
        const auto row = std::find_if(kDtypes.begin(), kDtypes.end(),
                                      [&](const DtypeRow& known) { return known.name == text; });
        if (row == kDtypes.end()) {
            fail(ErrorKind::unsupported,
                 "{}: tensor {} has the dtype '{}', which is not supported. Supported are BOOL, U8 "
                 "to U64, I8 to I64, F8_E4M3, F8_E5M2, F16, BF16, F32 and F64",
                 source_, tensor_name(), shown(text));
        }
        draft_.entry.dtype = row->dtype;
        place_ = Place::tensor;
        return true;
    }

    bool start_array(std::size_t) override {
        if (place_ == Place::shape_value) {
            place_ = Place::shape;
        } else if (place_ == Place::offsets_value) {
            place_ = Place::offsets;
        } else {
            misplaced("a list");
        }
        return true;
    }

    bool number_unsigned(number_unsigned_t value) override {
        if (place_ == Place::shape) {
            ZT_CHECK(value <= std::numeric_limits<std::int64_t>::max(), io,
                     "{}: tensor {} has a dimension of {}", source_, tensor_name(), value);
            ZT_CHECK(draft_.entry.shape.size() < kMaxDimensions, io,
                     "{}: tensor {} has more than {} dimensions", source_, tensor_name(),
                     kMaxDimensions);
            draft_.entry.shape.push_back(static_cast<std::int64_t>(value));
            return true;
        }
        if (place_ != Place::offsets) misplaced("a number");
        if (draft_.offsets == 0) draft_.entry.begin = value;
        if (draft_.offsets == 1) draft_.entry.end = value;
        ZT_CHECK(++draft_.offsets <= 2, io, "{}: tensor {} has more than two data_offsets", source_,
                 tensor_name());
        return true;
    }

    bool end_array() override {
        ZT_CHECK(place_ != Place::offsets || draft_.offsets == 2, io,
                 "{}: tensor {} has {} data_offsets, wanted two", source_, tensor_name(),
                 draft_.offsets);
        place_ = Place::tensor;
        return true;
    }

    bool end_object() override {
        if (place_ == Place::tensor) {
            ZT_CHECK(draft_.has_dtype && draft_.has_shape && draft_.has_offsets, io,
                     "{}: tensor {} lacks its {}", source_, tensor_name(),
                     !draft_.has_dtype   ? "dtype"
                     : !draft_.has_shape ? "shape"
                                         : "data_offsets");
            draft_.entry.name = std::move(key_);
            header_.entries.push_back(std::move(draft_.entry));
        }
        place_ = Place::top;
        return true;
    }

    bool null() override {
        if (place_ != Place::top_value || key_ != "__metadata__") misplaced("null");
        place_ = Place::top;
        return true;
    }
    bool boolean(bool) override { misplaced("true or false"); }
    bool number_integer(number_integer_t) override { misplaced("a negative number"); }
    bool number_float(number_float_t, const string_t&) override {
        misplaced("a number that is no integer of 64 bits");
    }
    bool binary(binary_t&) override { misplaced("binary data"); }
    bool parse_error(std::size_t position, const std::string&,
                     const nlohmann::detail::exception&) override {
        fail(ErrorKind::io, "{}: the header is not valid JSON (byte {} of it)", source_, position);
    }

private:
    enum class Place {
        start,           // before the first brace
        top,             // among the tensors
        top_value,       // after a tensor's name or "__metadata__"
        metadata,        // among its keys
        metadata_value,  // after one of them
        tensor,          // among a tensor's fields
        dtype,           // after "dtype"
        shape_value,     // after "shape"
        shape,           // in its list
        offsets_value,   // after "data_offsets"
        offsets,         // in its list
    };

    std::string tensor_name() const { return shown(key_); }

    [[noreturn]] void misplaced(std::string_view what) const {
        switch (place_) {
            case Place::start:
            case Place::top:
                fail(ErrorKind::io, "{}: the header is {}, not an object", source_, what);
            case Place::top_value:
                fail(ErrorKind::io, "{}: the header has {} in place of the description of '{}'",
                     source_, what, tensor_name());
            case Place::metadata:
            case Place::metadata_value:
                fail(ErrorKind::io, "{}: the metadata's '{}' is {}, wanted a text", source_,
                     shown(header_.metadata.back().first), what);
            default:
                fail(ErrorKind::io, "{}: tensor {} has {} as (or in) its {}", source_,
                     tensor_name(), what,
                     place_ == Place::dtype                                   ? "dtype"
                     : place_ == Place::shape || place_ == Place::shape_value ? "shape"
                                                                              : "data_offsets");
        }
    }

    bool top_key(std::string& key) {
        check_tensor_name(key, source_);
        ZT_CHECK(names_.insert(key).second, io, "{}: the header has '{}' twice", source_,
                 shown(key));
        key_ = std::move(key);
        draft_ = {};
        place_ = Place::top_value;
        return true;
    }

    bool tensor_key(const std::string& key) {
        bool* seen = nullptr;
        if (key == "dtype") {
            seen = &draft_.has_dtype;
            place_ = Place::dtype;
        } else if (key == "shape") {
            seen = &draft_.has_shape;
            place_ = Place::shape_value;
        } else if (key == "data_offsets") {
            seen = &draft_.has_offsets;
            place_ = Place::offsets_value;
        }
        ZT_CHECK(seen != nullptr, io, "{}: tensor {} has the unknown field '{}'", source_,
                 tensor_name(), shown(key));
        ZT_CHECK(!*seen, io, "{}: tensor {} has its {} twice", source_, tensor_name(), key);
        *seen = true;
        return true;
    }

    std::string_view source_;
    Header header_;
    Place place_ = Place::start;
    std::string key_;  // of the top level
    Draft draft_;
    std::unordered_set<std::string> names_;
    std::unordered_set<std::string> metadata_keys_;
};

// Bytes that shape x dtype takes. Zero-sized tensors are held to the same limit by their other
// dimensions, so that strides never overflow either.
std::uint64_t bytes_wanted(const Entry& entry, std::string_view source) {
    constexpr std::int64_t limit = std::numeric_limits<std::int64_t>::max();
    std::int64_t product = bytes_of(entry.dtype);
    bool empty = false;
    for (const std::int64_t size : entry.shape) {
        empty = empty || size == 0;
        ZT_CHECK(size == 0 || product <= limit / size, io,
                 "{}: tensor {} has a shape of more bytes than 64 bits can count: [{}]", source,
                 shown(entry.name), fmt::join(entry.shape, ", "));
        product *= std::max<std::int64_t>(size, 1);
    }
    return empty ? 0 : static_cast<std::uint64_t>(product);
}

// Sorts the entries by their data and checks that they fill the `size` bytes after the header.
void check_ranges(std::vector<Entry>& entries, std::uint64_t size, std::string_view source) {
    std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
        return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    std::uint64_t position = 0;
    for (const Entry& entry : entries) {
        ZT_CHECK(entry.begin <= entry.end, io, "{}: tensor {} ends before it begins ({} to {})",
                 source, shown(entry.name), entry.begin, entry.end);
        const std::uint64_t wanted = bytes_wanted(entry, source);
        ZT_CHECK(entry.end - entry.begin == wanted, io,
                 "{}: tensor {} has {} bytes of data, but its shape [{}] in {} takes {}", source,
                 shown(entry.name), entry.end - entry.begin, fmt::join(entry.shape, ", "),
                 name_of(entry.dtype), wanted);
        ZT_CHECK(entry.begin == position, io,
                 "{}: tensor {} begins at byte {} of the data, but the one before it ends at {}",
                 source, shown(entry.name), entry.begin, position);
        ZT_CHECK(entry.end <= size, io,
                 "{}: the file breaks off: tensor {} ends at byte {} of the data, the file has {}. "
                 "Download or copy it again",
                 source, shown(entry.name), entry.end, size);
        position = entry.end;
    }
    ZT_CHECK(position == size, io, "{}: {} bytes of the file belong to no tensor", source,
             size - position);
}

// The file's first eight bytes.
std::uint64_t header_length(std::span<const std::byte> file) {
    std::uint64_t length = 0;
    for (std::size_t i = 0; i < kLengthBytes; ++i) {
        length |= std::to_integer<std::uint64_t>(file[i]) << (8 * i);
    }
    return length;
}

}  // namespace

std::string_view name_of(Dtype dtype) { return kDtypes[static_cast<std::size_t>(dtype)].name; }

std::int64_t bytes_of(Dtype dtype) { return kDtypes[static_cast<std::size_t>(dtype)].bytes; }

bool is_safetensors(std::span<const std::byte> file) {
    return file.size() > kLengthBytes && header_length(file) <= kMaxHeaderBytes &&
           file[kLengthBytes] == std::byte{'{'};
}

Header parse(std::span<const std::byte> file, std::string_view source) {
    ZT_CHECK(file.size() >= kLengthBytes, io,
             "{}: a file of {} bytes is not a safetensors file (or its download broke off)", source,
             file.size());
    const std::uint64_t length = header_length(file);
    ZT_CHECK(length <= kMaxHeaderBytes, io,
             "{}: not a safetensors file: it asks for a header of {} bytes, at most {} are allowed",
             source, length, kMaxHeaderBytes);
    ZT_CHECK(length <= file.size() - kLengthBytes, io,
             "{}: the file breaks off in its header of {} bytes. Download or copy it again", source,
             length);
    const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
    // nlohmann takes a zero byte for the end of the text, which would hide what follows.
    ZT_CHECK(text.starts_with('{') && text.find('\0') == std::string_view::npos, io,
             "{}: not a safetensors file: its header is not a JSON object", source);
    HeaderReader reader(source);
    nlohmann::json::sax_parse(text, &reader);
    Header header = reader.take();
    const std::uint64_t data_begin = kLengthBytes + length;
    check_ranges(header.entries, file.size() - data_begin, source);
    for (Entry& entry : header.entries) {
        entry.begin += data_begin;
        entry.end += data_begin;
    }
    return header;
}

}  // namespace zoetrope::safetensors
