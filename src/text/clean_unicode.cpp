// Code points: UTF-8 in and out, normal forms and character classes, all from ICU.
#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include <limits>

#include "base/error.h"
#include "text/clean_parts.h"

namespace zoetrope::cleaning {

namespace {

icu::UnicodeString to_utf16(const std::u32string& text) {
    // ICU counts in 32 bits and may need two units for a character.
    ZT_CHECK(text.size() < std::numeric_limits<std::int32_t>::max() / 4, bad_request,
             "the text has {} characters: accepted are up to {}", text.size(),
             std::numeric_limits<std::int32_t>::max() / 4);
    return icu::UnicodeString::fromUTF32(reinterpret_cast<const UChar32*>(text.data()),
                                         static_cast<std::int32_t>(text.size()));
}

std::u32string from_utf16(const icu::UnicodeString& text) {
    std::u32string result;
    result.reserve(static_cast<std::size_t>(text.length()));
    for (std::int32_t i = 0; i < text.length(); i = text.moveIndex32(i, 1)) {
        result.push_back(static_cast<char32_t>(text.char32At(i)));
    }
    return result;
}

std::u32string normalize(const std::u32string& text,
                         const icu::Normalizer2* (*get_form)(UErrorCode&)) {
    UErrorCode status = U_ZERO_ERROR;
    const icu::Normalizer2* form = get_form(status);
    const icu::UnicodeString source = to_utf16(text);
    if (U_SUCCESS(status) && form->isNormalized(source, status)) return text;
    const icu::UnicodeString normal = form->normalize(source, status);
    ZT_CHECK(U_SUCCESS(status), internal, "ICU cannot normalise the text: {}", u_errorName(status));
    return from_utf16(normal);
}

}  // namespace

std::size_t decode_utf8(std::string_view bytes, std::u32string& text) {
    text.reserve(text.size() + bytes.size());
    std::size_t position = 0;
    while (position < bytes.size()) {
        const std::size_t start = position;
        UChar32 c = 0;
        U8_NEXT(bytes.data(), position, bytes.size(), c);
        if (c < 0) return start;
        text.push_back(static_cast<char32_t>(c));
    }
    return position;
}

std::u32string decode_input(std::string_view utf8) {
    std::u32string text;
    const std::size_t end = decode_utf8(utf8, text);
    ZT_CHECK(end == utf8.size(), bad_request,
             "the text is not UTF-8: byte {:#04x} at position {} (counted from 0) begins no "
             "character; save or send the text as UTF-8",
             static_cast<unsigned>(static_cast<unsigned char>(utf8[end])), end);
    return text;
}

std::string encode_utf8(std::u32string_view text) {
    std::string bytes;
    bytes.reserve(text.size());
    for (const char32_t c : text) {
        std::array<char, U8_MAX_LENGTH> buffer;
        std::size_t length = 0;
        U8_APPEND_UNSAFE(buffer.data(), length, c);
        bytes.append(buffer.data(), length);
    }
    return bytes;
}

std::u32string to_nfc(const std::u32string& text) {
    return normalize(text, icu::Normalizer2::getNFCInstance);
}

std::u32string to_nfkc(const std::u32string& text) {
    return normalize(text, icu::Normalizer2::getNFKCInstance);
}

std::u32string to_upper(const std::u32string& text) {
    return from_utf16(to_utf16(text).toUpper(icu::Locale::getRoot()));
}

bool is_python_space(char32_t c) { return (c >= 0x1c && c <= 0x1f) || is_white_space(c); }

bool is_white_space(char32_t c) { return u_isUWhiteSpace(static_cast<UChar32>(c)); }

bool is_decimal_digit(char32_t c) { return u_isdigit(static_cast<UChar32>(c)); }

bool is_word_character(char32_t c) {
    const auto point = static_cast<UChar32>(c);
    return c == U'_' || u_isalpha(point) ||
           u_getIntPropertyValue(point, UCHAR_NUMERIC_TYPE) != U_NT_NONE;
}

}  // namespace zoetrope::cleaning
