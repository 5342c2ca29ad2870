#include "text/fix_text.h"

#include <algorithm>

#include "text/clean_parts.h"

namespace zoetrope {

namespace cleaning {

namespace {

// A segment is a line, or this many characters of a longer one.
constexpr std::size_t kLongestSegment = 1'000'000;

// ------------------------------------------------ single characters

// Latin ligatures and digraphs that stand for two or three letters; nothing for other characters.
std::u32string_view letters_of_ligature(char32_t c) {
    struct Ligature {
        char32_t character;
        std::u32string_view letters;
    };
    static constexpr Ligature kLigatures[] = {
        {U'\u0132', U"IJ"},      {U'\u0133', U"ij"},      {U'\u0149', U"\u02bcn"},
        {U'\u01c4', U"D\u017d"}, {U'\u01c5', U"D\u017e"}, {U'\u01c6', U"d\u017e"},
        {U'\u01c7', U"LJ"},      {U'\u01c8', U"Lj"},      {U'\u01c9', U"lj"},
        {U'\u01ca', U"NJ"},      {U'\u01cb', U"Nj"},      {U'\u01cc', U"nj"},
        {U'\u01f1', U"DZ"},      {U'\u01f2', U"Dz"},      {U'\u01f3', U"dz"},
        {U'\ufb00', U"ff"},      {U'\ufb01', U"fi"},      {U'\ufb02', U"fl"},
        {U'\ufb03', U"ffi"},     {U'\ufb04', U"ffl"},     {U'\ufb05', U"\u017ft"},
        {U'\ufb06', U"st"},
    };
    const auto found = std::lower_bound(
        std::begin(kLigatures), std::end(kLigatures), c,
        [](const Ligature& ligature, char32_t key) { return ligature.character < key; });
    const bool is_ligature = found != std::end(kLigatures) && found->character == c;
    return is_ligature ? found->letters : std::u32string_view();
}

std::u32string fix_latin_ligatures(const std::u32string& text) {
    std::u32string result;
    result.reserve(text.size());
    for (const char32_t c : text) {
        const std::u32string_view letters = letters_of_ligature(c);
        if (letters.empty()) {
            result.push_back(c);
        } else {
            result += letters;
        }
    }
    return result;
}

// Full-width letters, half-width katakana and hangul, and the ideographic space in their usual
// width.
std::u32string fix_character_width(const std::u32string& text) {
    std::u32string result;
    result.reserve(text.size());
    for (const char32_t c : text) {
        if (c == 0x3000) {
            result.push_back(U' ');
        } else if (c > 0xff00 && c < 0xfff0) {
            result += to_nfkc(std::u32string(1, c));
        } else {
            result.push_back(c);
        }
    }
    return result;
}

char32_t uncurl_quote(char32_t c) {
    if (c == 0x02bc || (c >= 0x2018 && c <= 0x201b)) return U'\'';
    if (c >= 0x201c && c <= 0x201f) return U'"';
    return c;
}

std::u32string fix_line_breaks(std::u32string_view text) {
    std::u32string result;
    result.reserve(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char32_t c = text[i];
        if (c == U'\r' && i + 1 < text.size() && text[i + 1] == U'\n') continue;
        const bool is_break = c == U'\r' || c == 0x85 || c == 0x2028 || c == 0x2029;
        result.push_back(is_break ? U'\n' : c);
    }
    return result;
}

// Those that show nothing. C1 controls stay: they are traces of mojibake.
bool is_removed_control(char32_t c) {
    return c < 0x09 || c == 0x0b || (c >= 0x0e && c < 0x20) || c == 0x7f ||
           (c >= 0x206a && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffc);
}

// ------------------------------------------------ the whole

// Removes ESC [ numbers and semicolons letter, as they colour text.
std::u32string remove_terminal_escapes(std::u32string_view text) {
    std::u32string result;
    result.reserve(text.size());
    while (!text.empty()) {
        std::size_t length = 1;
        if (text.starts_with(U"\x1b[")) {
            std::size_t end = 2;
            while (end < text.size() && (is_decimal_digit(text[end]) || text[end] == U';')) ++end;
            if (end < text.size() && is_ascii_letter(text[end])) length = end + 1;
        }
        if (length == 1) result.push_back(text[0]);
        text.remove_prefix(length);
    }
    return result;
}

// One round. Surrogates, which the specification repairs here, do not occur: they are not UTF-8,
// and no repair makes them.
std::u32string fix_segment_once(std::u32string text, bool unescapes_html) {
    if (unescapes_html) text = unescape_closed_entities(text);
    text = fix_c1_controls(fix_encoding(std::move(text)));
    text = fix_character_width(fix_latin_ligatures(text));
    std::transform(text.begin(), text.end(), text.begin(), uncurl_quote);
    text = remove_terminal_escapes(fix_line_breaks(text));
    std::erase_if(text, is_removed_control);
    return to_nfc(text);
}

std::u32string fix_segment(std::u32string text, bool unescapes_html) {
    while (true) {
        std::u32string fixed = fix_segment_once(text, unescapes_html);
        if (fixed == text) return text;
        text = std::move(fixed);
    }
}

}  // namespace

std::u32string fix_text(std::u32string_view text) {
    std::u32string result;
    // A "<" says that this is HTML, from here on: its entities are meant.
    bool unescapes_html = true;
    while (!text.empty()) {
        const std::size_t line_feed = text.find(U'\n');
        const std::size_t line =
            line_feed == std::u32string_view::npos ? text.size() : line_feed + 1;
        const std::u32string_view segment = text.substr(0, std::min(line, kLongestSegment));
        if (segment.find(U'<') != std::u32string_view::npos) unescapes_html = false;
        result += fix_segment(std::u32string(segment), unescapes_html);
        text.remove_prefix(segment.size());
    }
    return result;
}

}  // namespace cleaning

std::string fix_text(std::string_view utf8) {
    return cleaning::encode_utf8(cleaning::fix_text(cleaning::decode_input(utf8)));
}

}  // namespace zoetrope
