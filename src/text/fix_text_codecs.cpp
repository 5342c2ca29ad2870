// The encodings of mojibake: single-byte codecs, and UTF-8 with the variants that are met in
// practice.
#include <algorithm>

#include "text/clean_parts.h"

namespace zoetrope::cleaning {

namespace {

constexpr char32_t kReplacement = U'\ufffd';
constexpr char kSubstitute = 0x1a;

SingleByteCodec::UpperHalf latin_1_upper_half() {
    SingleByteCodec::UpperHalf half{};
    for (std::size_t i = 0; i < half.size(); ++i) half[i] = static_cast<char16_t>(0x80 + i);
    return half;
}

bool is_between(std::string_view bytes, std::size_t position, int first, int last) {
    const int byte = static_cast<unsigned char>(bytes[position]);
    return byte >= first && byte <= last;
}

// Whether only a line feed, or nothing, is left: where "$" matches in the specification's patterns.
bool is_last_line_feed(std::string_view bytes, std::size_t position) {
    return position + 1 == bytes.size() && bytes[position] == '\n';
}

// The six bytes of a CESU-8 surrogate pair. The specification takes a line feed that ends the text
// for the last byte; it is matched here.
bool is_cesu8_pair(std::string_view bytes, std::size_t position) {
    return bytes.size() - position >= 6 && is_between(bytes, position, 0xed, 0xed) &&
           is_between(bytes, position + 1, 0xa0, 0xaf) &&
           is_between(bytes, position + 2, 0x80, 0xbf) &&
           is_between(bytes, position + 3, 0xed, 0xed) &&
           is_between(bytes, position + 4, 0xb0, 0xbf) &&
           (is_between(bytes, position + 5, 0x80, 0xbf) || is_last_line_feed(bytes, position + 5));
}

// C0 80, or C0 and a line feed that ends the text (as above).
bool is_java_null(std::string_view bytes, std::size_t position) {
    return bytes.size() - position >= 2 && is_between(bytes, position, 0xc0, 0xc0) &&
           (is_between(bytes, position + 1, 0x80, 0x80) || is_last_line_feed(bytes, position + 1));
}

char32_t decode_cesu8_pair(std::string_view six) {
    const auto bits = [six](std::size_t i, unsigned mask) {
        return static_cast<unsigned char>(six[i]) & mask;
    };
    return 0x10000 + (bits(1, 0x0f) << 16) + (bits(2, 0x3f) << 10) + (bits(4, 0x0f) << 6) +
           bits(5, 0x3f);
}

}  // namespace

SingleByteCodec::SingleByteCodec(std::string_view name, Kind kind, const UpperHalf& upper_half)
    : name_(name), kind_(kind), upper_half_(upper_half), by_character_{} {
    for (std::size_t i = 0; i < upper_half.size(); ++i) {
        by_character_[i] = {upper_half[i], static_cast<unsigned char>(0x80 + i)};
    }
    std::sort(by_character_.begin(), by_character_.end(),
              [](const Entry& a, const Entry& b) { return a.character < b.character; });
}

std::optional<std::string> SingleByteCodec::encode(std::u32string_view text) const {
    std::string bytes;
    for (const char32_t c : text) {
        if (is_sloppy() && c == kReplacement) {
            bytes.push_back(kSubstitute);
        } else if (is_sloppy() && c == kSubstitute) {
            return std::nullopt;
        } else if (c < 0x80) {
            bytes.push_back(static_cast<char>(c));
        } else {
            const auto found = std::lower_bound(
                by_character_.begin(), by_character_.end(), c,
                [](const Entry& entry, char32_t key) { return entry.character < key; });
            if (found == by_character_.end() || found->character != c) return std::nullopt;
            bytes.push_back(static_cast<char>(found->byte));
        }
    }
    return bytes;
}

const std::array<SingleByteCodec, 10>& single_byte_codecs() {
    using enum SingleByteCodec::Kind;
    static const std::array<SingleByteCodec, 10> codecs = {{
        {"latin-1", strict, latin_1_upper_half()},
        {"windows-1252", sloppy, kUpperHalves[0]},
        {"windows-1251", sloppy, kUpperHalves[1]},
        {"windows-1250", sloppy, kUpperHalves[2]},
        {"windows-1253", sloppy, kUpperHalves[3]},
        {"windows-1254", sloppy, kUpperHalves[4]},
        {"windows-1257", sloppy, kUpperHalves[5]},
        {"iso-8859-2", strict, kUpperHalves[6]},
        {"macroman", strict, kUpperHalves[7]},
        {"cp437", strict, kUpperHalves[8]},
    }};
    return codecs;
}

std::optional<std::u32string> decode_utf8_variants(std::string_view bytes) {
    std::u32string text;
    std::size_t start = 0;  // of what is not decoded yet
    const auto decode_plain = [&](std::size_t end) {
        return decode_utf8(bytes.substr(start, end - start), text) == end - start;
    };
    for (std::size_t position = 0; position < bytes.size(); ++position) {
        std::size_t length = 0;
        char32_t c = 0;
        if (is_java_null(bytes, position)) {
            length = 2;
        } else if (is_cesu8_pair(bytes, position)) {
            length = 6;
            c = decode_cesu8_pair(bytes.substr(position, length));
        } else {
            continue;
        }
        if (!decode_plain(position)) return std::nullopt;
        text.push_back(c);
        start = position + length;
        position = start - 1;
    }
    if (!decode_plain(bytes.size())) return std::nullopt;
    return text;
}

std::u32string fix_c1_controls(std::u32string text) {
    const SingleByteCodec& windows_1252 = single_byte_codecs()[1];
    for (char32_t& c : text) {
        if (is_c1_control(c)) c = windows_1252.decode_upper(static_cast<unsigned char>(c));
    }
    return text;
}

}  // namespace zoetrope::cleaning
