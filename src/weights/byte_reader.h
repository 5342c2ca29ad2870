// Reads little-endian numbers and texts from bytes, never past their end.
//
// A cursor over bytes that it does not own; texts that it gives are views into them. Errors: io
// where the bytes end too early.
#pragma once

#include "base/error.h"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace zoetrope {

static_assert(std::endian::native == std::endian::little);

class ByteReader {
public:
    // source: the file's name for messages.
    ByteReader(std::span<const std::byte> bytes, std::string_view source)
        : bytes_(bytes), source_(source) {}

    std::size_t position() const { return position_; }
    std::size_t remaining() const { return bytes_.size() - position_; }
    void move_to(std::size_t position) {
        ZT_CHECK(position <= bytes_.size(), io,
                 "{}: byte {} is asked for and the file has {}: it is broken or cut off", source_,
                 position, bytes_.size());
        position_ = position;
    }

    template <typename T>
    T number() {
        T value;
        std::memcpy(&value, take(sizeof(T)), sizeof(T));
        return value;
    }

    std::string_view text(std::uint64_t length) {
        return {reinterpret_cast<const char*>(take(length)), length};
    }

    void skip(std::uint64_t length) { take(length); }

private:
    const std::byte* take(std::uint64_t length) {
        ZT_CHECK(length <= remaining(), io,
                 "{}: breaks off: {} bytes are wanted at byte {} and {} are left. Download or copy "
                 "it again",
                 source_, length, position_, remaining());
        const std::byte* start = bytes_.data() + position_;
        position_ += length;
        return start;
    }

    std::span<const std::byte> bytes_;
    std::string_view source_;
    std::size_t position_ = 0;
};

}  // namespace zoetrope
