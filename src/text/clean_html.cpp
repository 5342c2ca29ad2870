// HTML character references, as Python's html.unescape reads them (the WHATWG's rules), and as
// ftfy does.
#include <algorithm>
#include <cstdint>

#include "text/clean_parts.h"

namespace zoetrope::cleaning {

namespace {

constexpr std::size_t kLongestName = 32;        // of html.unescape, semicolon not counted
constexpr std::size_t kLongestClosedName = 24;  // of ftfy
constexpr std::uint32_t kLastCodePoint = 0x10ffff;

const HtmlEntity* find_entity(std::string_view name) {
    const auto found = std::lower_bound(
        kHtmlEntities.begin(), kHtmlEntities.end(), name,
        [](const HtmlEntity& entity, std::string_view key) { return entity.name < key; });
    return found != kHtmlEntities.end() && found->name == name ? &*found : nullptr;
}

void append_entity(const HtmlEntity& entity, std::u32string& result) {
    result.push_back(entity.first);
    if (entity.second != 0) result.push_back(entity.second);
}

// A name that a reference may have: empty if it has a character that no name has.
std::string to_name(std::u32string_view text) {
    std::string name;
    for (const char32_t c : text) {
        if (!is_ascii_letter(c) && !is_ascii_digit(c)) return {};
        name.push_back(static_cast<char>(c));
    }
    return name;
}

bool ends_name(char32_t c) {
    return std::u32string_view(U"\t\n\f <&#;").find(c) != std::u32string_view::npos;
}

bool is_noncharacter(std::uint32_t number) {
    return (number >= 0xfdd0 && number <= 0xfdef) || (number & 0xfffe) == 0xfffe;
}

void append_numbered(std::uint32_t number, std::u32string& result) {
    if (number == 0 || (number >= 0xd800 && number <= 0xdfff) || number > kLastCodePoint) {
        result.push_back(U'\ufffd');
    } else if (is_c1_control(number)) {
        result += fix_c1_controls(std::u32string(1, number));
    } else if (number >= 0x20
                   ? number != 0x7f && !is_noncharacter(number)
                   : std::u32string_view(U"\t\n\f\r").find(number) != std::u32string_view::npos) {
        result.push_back(number);
    }
}

// The value of a hexadecimal digit, 16 if it is none.
std::uint32_t digit_value(char32_t c) {
    if (is_ascii_digit(c)) return c - U'0';
    if (c >= U'a' && c <= U'f') return c - U'a' + 10;
    if (c >= U'A' && c <= U'F') return c - U'A' + 10;
    return 16;
}

// `text` begins with "&#". Appends the character; returns the length read, 0 if there is no number.
std::size_t read_numbered(std::u32string_view text, std::u32string& result) {
    std::size_t position = 2;
    std::uint32_t base = 10;
    if (position < text.size() && (text[position] == U'x' || text[position] == U'X')) {
        base = 16;
        ++position;
    }
    const std::size_t first_digit = position;
    std::uint32_t number = 0;
    while (position < text.size() && digit_value(text[position]) < base) {
        // A number beyond the last code point stays beyond it, however long.
        number = std::min(number * base + digit_value(text[position]), kLastCodePoint + 1);
        ++position;
    }
    if (position == first_digit) return 0;
    append_numbered(number, result);
    return position < text.size() && text[position] == U';' ? position + 1 : position;
}

// `text` begins with "&". Appends the entity's characters; returns the length read, 0 if there is
// no entity.
std::size_t read_named(std::u32string_view text, std::u32string& result) {
    std::size_t end = 1;
    while (end < text.size() && end <= kLongestName && !ends_name(text[end])) ++end;
    if (end < text.size() && text[end] == U';') {
        if (const HtmlEntity* entity = find_entity(to_name(text.substr(1, end - 1)))) {
            append_entity(*entity, result);
            return end + 1;
        }
    }
    for (std::size_t length = end - 1; length >= 2; --length) {
        const std::string name = to_name(text.substr(1, length));
        if (std::binary_search(kLegacyHtmlEntities.begin(), kLegacyHtmlEntities.end(), name)) {
            append_entity(*find_entity(name), result);
            return 1 + length;
        }
    }
    return 0;
}

// What ftfy makes of one closed reference "&...;": the reference itself if it means nothing.
std::u32string unescape_closed_entity(const std::u32string& reference) {
    const std::u32string unescaped = html_unescape(reference);
    if (reference[1] == U'#') {
        // Only a part of the reference was read, or it is the semicolon's own.
        const bool is_whole = unescaped.find(U';') == std::u32string::npos;
        return is_whole ? unescaped : reference;
    }
    std::string name = to_name(std::u32string_view(reference).substr(1, reference.size() - 2));
    std::u32string result;
    if (const HtmlEntity* entity = find_entity(name)) {
        append_entity(*entity, result);
        return result;
    }
    // In capitals, if the name in small letters is an entity and HTML reads nothing in the
    // capitals.
    const bool has_small =
        std::any_of(name.begin(), name.end(), [](unsigned char c) { return is_ascii_lower(c); });
    if (has_small || unescaped != reference) return reference;
    for (char& c : name) {
        if (is_ascii_upper(static_cast<unsigned char>(c))) c = static_cast<char>(c - 'A' + 'a');
    }
    const HtmlEntity* entity = find_entity(name);
    if (entity == nullptr) return reference;
    append_entity(*entity, result);
    return to_upper(result);
}

}  // namespace

std::u32string html_unescape(std::u32string_view text) {
    std::u32string result;
    result.reserve(text.size());
    while (!text.empty()) {
        std::size_t length = 0;
        if (text[0] == U'&') {
            const bool is_numbered = text.size() > 1 && text[1] == U'#';
            length = is_numbered ? read_numbered(text, result) : read_named(text, result);
        }
        if (length == 0) {
            result.push_back(text[0]);
            length = 1;
        }
        text.remove_prefix(length);
    }
    return result;
}

std::u32string unescape_closed_entities(std::u32string_view text) {
    std::u32string result;
    result.reserve(text.size());
    while (!text.empty()) {
        std::size_t end = 0;  // of the name
        if (text[0] == U'&') {
            const std::size_t start = text.size() > 1 && text[1] == U'#' ? 2 : 1;
            end = start;
            while (end < text.size() && end - start < kLongestClosedName &&
                   (is_ascii_letter(text[end]) || is_ascii_digit(text[end]))) {
                ++end;
            }
            if (end == start || end == text.size() || text[end] != U';') end = 0;
        }
        if (end == 0) {
            result.push_back(text[0]);
            text.remove_prefix(1);
        } else {
            result += unescape_closed_entity(std::u32string(text.substr(0, end + 1)));
            text.remove_prefix(end + 1);
        }
    }
    return result;
}

}  // namespace zoetrope::cleaning
