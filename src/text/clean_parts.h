// The parts of the prompt clean-up, shared by its sources and its test only. They work on code
// points; pure functions, safe from any thread. Where a rule looks odd, it is the specification's
// (Python's html module, ftfy 6.3.1).
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace zoetrope::cleaning {

// --- clean_unicode.cpp

// Appends the code points of `bytes` to `text` up to the first byte that does not begin a
// well-formed sequence, and returns that byte's index: bytes.size() if all is well. Surrogates and
// overlong forms are not well-formed.
std::size_t decode_utf8(std::string_view bytes, std::u32string& text);

// The user's text; throws bad_request where it is not UTF-8.
std::u32string decode_input(std::string_view utf8);
std::string encode_utf8(std::u32string_view text);

std::u32string to_nfc(const std::u32string& text);
std::u32string to_nfkc(const std::u32string& text);
std::u32string to_upper(const std::u32string& text);

// White space for Python's str.strip() and re's \s: Unicode's, and U+001C to U+001F.
bool is_python_space(char32_t c);
// Unicode's property White_Space, which is \s of Python's module regex.
bool is_white_space(char32_t c);
bool is_decimal_digit(char32_t c);   // \d
bool is_word_character(char32_t c);  // \w

inline bool is_ascii_digit(char32_t c) { return c >= U'0' && c <= U'9'; }
inline bool is_ascii_upper(char32_t c) { return c >= U'A' && c <= U'Z'; }
inline bool is_ascii_lower(char32_t c) { return c >= U'a' && c <= U'z'; }
inline bool is_ascii_letter(char32_t c) { return is_ascii_upper(c) || is_ascii_lower(c); }
inline bool is_c1_control(char32_t c) { return c >= 0x80 && c <= 0x9f; }

// --- clean_html.cpp

std::u32string html_unescape(std::u32string_view text);

// ftfy's narrower reading: only with a semicolon, but also names in capitals (&EACUTE;).
std::u32string unescape_closed_entities(std::u32string_view text);

// --- fix_text_codecs.cpp

// A single-byte encoding that UTF-8 may have been misread in.
class SingleByteCodec {
public:
    // What the bytes 0x80 to 0xff stand for.
    using UpperHalf = std::array<char16_t, 128>;

    // A sloppy codec assigns the bytes its standard leaves open to the code points of the same
    // number, and writes U+FFFD as byte 0x1a (SUBSTITUTE), so that text with lost characters can
    // still be encoded.
    enum class Kind { strict, sloppy };
    SingleByteCodec(std::string_view name, Kind kind, const UpperHalf& upper_half);

    std::string_view name() const { return name_; }
    bool is_sloppy() const { return kind_ == Kind::sloppy; }
    char16_t decode_upper(unsigned char byte) const { return upper_half_[byte - 0x80u]; }
    // Nothing if a character has no byte.
    std::optional<std::string> encode(std::u32string_view text) const;

private:
    struct Entry {
        char16_t character;
        unsigned char byte;
    };
    std::string_view name_;
    Kind kind_;
    UpperHalf upper_half_;
    std::array<Entry, 128> by_character_;  // sorted
};

// In the order in which they are tried: latin-1, sloppy-windows-1252, ...
const std::array<SingleByteCodec, 10>& single_byte_codecs();

// UTF-8 and its two variants: CESU-8 (a surrogate pair, three bytes each) and Java's NUL (C0 80).
// Nothing if the bytes are neither.
std::optional<std::u32string> decode_utf8_variants(std::string_view bytes);

// C1 control characters become what windows-1252 has in their place.
std::u32string fix_c1_controls(std::u32string text);

// --- fix_text_badness.cpp

// Whether the text has a sequence of characters that hardly occurs outside of mojibake.
bool is_bad(std::u32string_view text);

// --- fix_text_encoding.cpp

// Undoes mojibake as often as it finds any.
std::u32string fix_encoding(std::u32string text);

// --- fix_text.cpp

std::u32string fix_text(std::u32string_view text);

// --- generated tables

struct HtmlEntity {
    std::string_view name;  // without & and ;
    char32_t first;
    char32_t second = 0;  // few entities stand for two characters
};
extern const std::array<HtmlEntity, 2125> kHtmlEntities;  // sorted by name
extern const std::array<std::string_view, 106> kLegacyHtmlEntities;
extern const std::array<SingleByteCodec::UpperHalf, 9> kUpperHalves;

}  // namespace zoetrope::cleaning
