// Undoes mojibake: text that looks wrong is encoded in each single-byte codec it may have been
// misread in, repaired where bytes were lost, and decoded as UTF-8. Order and rules are those of
// ftfy 6.3.1.
#include <algorithm>
#include <bitset>
#include <functional>
#include <vector>

#include "text/clean_parts.h"

namespace zoetrope::cleaning {

namespace {

// ------------------------------------------------ patterns of bytes

// One set of bytes per place. In its notation "\xc2-\xdf" is a range.
class BytePattern {
public:
    BytePattern(std::initializer_list<std::string_view> places) {
        for (const std::string_view place : places) places_.push_back(parse(place));
    }

    std::size_t length() const { return places_.size(); }

    bool matches(std::string_view bytes) const {
        if (bytes.size() < places_.size()) return false;
        for (std::size_t i = 0; i < places_.size(); ++i) {
            if (!places_[i][static_cast<unsigned char>(bytes[i])]) return false;
        }
        return true;
    }

private:
    using ByteSet = std::bitset<256>;

    static ByteSet parse(std::string_view place) {
        ByteSet set;
        for (std::size_t i = 0; i < place.size(); ++i) {
            const bool is_range = i + 2 < place.size() && place[i + 1] == '-';
            const auto first = static_cast<unsigned char>(place[i]);
            const auto last = static_cast<unsigned char>(place[is_range ? i + 2 : i]);
            for (unsigned byte = first; byte <= last; ++byte) set.set(byte);
            if (is_range) i += 2;
        }
        return set;
    }

    std::vector<ByteSet> places_;
};

using BytePatterns = std::vector<BytePattern>;

// The length of the first pattern that matches at the start of `bytes`, 0 if none does.
std::size_t match_length(const BytePatterns& patterns, std::string_view bytes) {
    const auto found =
        std::find_if(patterns.begin(), patterns.end(),
                     [bytes](const BytePattern& pattern) { return pattern.matches(bytes); });
    return found == patterns.end() ? 0 : found->length();
}

std::string replace_matches(const BytePatterns& patterns, std::string_view bytes,
                            const std::function<std::string(std::string_view)>& replacement) {
    std::string result;
    while (!bytes.empty()) {
        const std::size_t length = match_length(patterns, bytes);
        if (length == 0) {
            result.push_back(bytes[0]);
            bytes.remove_prefix(1);
        } else {
            result += replacement(bytes.substr(0, length));
            bytes.remove_prefix(length);
        }
    }
    return result;
}

bool has_match(const BytePatterns& patterns, std::string_view bytes) {
    for (; !bytes.empty(); bytes.remove_prefix(1)) {
        if (match_length(patterns, bytes) != 0) return true;
    }
    return false;
}

// ------------------------------------------------ repairs of bytes before they are decoded

// UTF-8 in which a space stands where the byte A0 was. Lead bytes that would give unlikely letters
// are left out; so are A0 itself and 85 beside the space.
const BytePatterns& altered_utf8() {
    static const BytePatterns patterns = {
        {"\xc2\xc3\xc5\xce\xd0\xd9", " "},
        {"\xe2\xe3", " ", "\x80-\x84\x86-\x9f\xa1-\xbf"},
        {"\xe0-\xe3", "\x80-\x84\x86-\x9f\xa1-\xbf", " "},
        {"\xf0", " ", "\x80-\xbf", "\x80-\xbf"},
        {"\xf0", "\x80-\xbf", " ", "\x80-\xbf"},
        {"\xf0", "\x80-\xbf", "\x80-\xbf", " "},
    };
    return patterns;
}

// UTF-8 and CESU-8 in which the byte 1A (or once per sequence "?") stands for a lost byte.
const BytePatterns& lossy_utf8() {
    static const BytePatterns patterns = {
        {"\xc2-\xdf", "\x1a"},
        {"\xc2-\xc3", "?"},
        {"\xed", "\xa0-\xaf", "\x1a?", "\xed", "\xb0-\xbf", "\x1a?\x80-\xbf"},
        {"\xed", "\xa0-\xaf", "\x1a?\x80-\xbf", "\xed", "\xb0-\xbf", "\x1a?"},
        {"\xe0-\xef", "\x1a?", "\x1a\x80-\xbf"},
        {"\xe0-\xef", "\x1a\x80-\xbf", "\x1a?"},
        {"\xf0-\xf4", "\x1a?", "\x1a\x80-\xbf", "\x1a\x80-\xbf"},
        {"\xf0-\xf4", "\x1a\x80-\xbf", "\x1a?", "\x1a\x80-\xbf"},
        {"\xf0-\xf4", "\x1a\x80-\xbf", "\x1a\x80-\xbf", "\x1a?"},
        {"\x1a"},
    };
    return patterns;
}

// "Ã " as a word of its own is "à " that lost its A0 and keeps a space, but not where it begins one
// of the Portuguese words às, àquele, àquela, àquilo.
std::string restore_a_grave_words(std::string_view bytes) {
    std::string result;
    while (!bytes.empty()) {
        result.push_back(bytes[0]);
        if (bytes.starts_with("\xc3 ")) {
            const std::string_view rest = bytes.substr(2);
            const bool continues = rest.starts_with(' ') || rest.starts_with("quele") ||
                                   rest.starts_with("quela") || rest.starts_with("quilo") ||
                                   rest.starts_with("s ");
            if (!continues) result.push_back('\xa0');
        }
        bytes.remove_prefix(1);
    }
    return result;
}

std::string restore_byte_a0(std::string_view bytes) {
    return replace_matches(altered_utf8(), restore_a_grave_words(bytes),
                           [](std::string_view match) {
                               std::string restored(match);
                               std::replace(restored.begin(), restored.end(), ' ', '\xa0');
                               return restored;
                           });
}

std::string replace_lossy_sequences(std::string_view bytes) {
    return replace_matches(lossy_utf8(), bytes, [](std::string_view) { return "\xef\xbf\xbd"; });
}

// ------------------------------------------------ mojibake in the midst of other text

// The characters that bytes of a UTF-8 sequence become in latin-1 and the Windows codecs.
struct Utf8Clues {
    std::u32string lead_of_2, lead_of_3, lead_of_4;  // sorted
    std::u32string continuation;                     // with the space that A0 often becomes
    std::u32string strict_continuation;              // without what stands beside words anyway
};

Utf8Clues make_utf8_clues() {
    const auto characters_of = [](unsigned first, unsigned last) {
        std::u32string characters;
        for (const SingleByteCodec& codec : single_byte_codecs()) {
            if (codec.name() != "latin-1" && !codec.is_sloppy()) continue;
            for (unsigned byte = first; byte <= last; ++byte) {
                characters.push_back(codec.decode_upper(static_cast<unsigned char>(byte)));
            }
        }
        return characters;
    };
    Utf8Clues clues{.lead_of_2 = characters_of(0xc2, 0xdf),
                    .lead_of_3 = characters_of(0xe0, 0xef),
                    // Other bytes lead to code points that are not assigned.
                    .lead_of_4 = characters_of(0xf0, 0xf0) + characters_of(0xf3, 0xf3),
                    .continuation = characters_of(0x80, 0xbf) + U" ",
                    .strict_continuation = characters_of(0x80, 0xbf)};
    std::erase_if(clues.strict_continuation, [](char32_t c) {
        return std::u32string_view(U"–—―‘’‚“”„•…").find(c) != std::u32string_view::npos;
    });
    for (std::u32string* set : {&clues.lead_of_2, &clues.lead_of_3, &clues.lead_of_4,
                                &clues.continuation, &clues.strict_continuation}) {
        std::sort(set->begin(), set->end());
    }
    return clues;
}

bool is_in(const std::u32string& set, char32_t c) {
    return std::binary_search(set.begin(), set.end(), c);
}

// The length of all the sequences, one after the other, that `text` begins with.
std::size_t utf8_like_length(const Utf8Clues& clues, std::u32string_view text) {
    std::size_t end = 0;
    while (end < text.size()) {
        const char32_t lead = text[end];
        const std::size_t length = is_in(clues.lead_of_2, lead)   ? 2
                                   : is_in(clues.lead_of_3, lead) ? 3
                                   : is_in(clues.lead_of_4, lead) ? 4
                                                                  : 0;
        if (length == 0 || text.size() - end < length) break;
        const auto tail = text.substr(end + 1, length - 1);
        if (!std::all_of(tail.begin(), tail.end(),
                         [&](char32_t c) { return is_in(clues.continuation, c); })) {
            break;
        }
        end += length;
    }
    return end;
}

// Decodes what looks like mojibake by itself. A sequence within a larger muddle, that is after a
// continuation, is left alone.
std::u32string decode_inconsistent_utf8(const std::u32string& text) {
    static const Utf8Clues clues = make_utf8_clues();
    std::u32string result;
    std::size_t position = 0;
    while (position < text.size()) {
        std::size_t length = 0;
        if (position == 0 || !is_in(clues.strict_continuation, text[position - 1])) {
            length = utf8_like_length(clues, std::u32string_view(text).substr(position));
        }
        const std::u32string part = text.substr(position, std::max<std::size_t>(length, 1));
        // The part is shorter than the text, so the recursion ends.
        const bool is_embedded = length != 0 && length < text.size() && is_bad(part);
        result += is_embedded ? fix_encoding(part) : part;
        position += part.size();
    }
    return result;
}

// ------------------------------------------------ one step of the repair

// The text that was misread in this codec; nothing if it was not.
std::optional<std::u32string> undo_misreading(const SingleByteCodec& codec,
                                              const std::u32string& text) {
    std::optional<std::string> bytes = codec.encode(text);
    if (!bytes) return std::nullopt;
    // In MacRoman it would take an en dash and a space for a sequence.
    if (codec.name() != "macroman" && has_match(altered_utf8(), *bytes)) {
        bytes = restore_byte_a0(*bytes);
    }
    if (codec.is_sloppy()) bytes = replace_lossy_sequences(*bytes);
    return decode_utf8_variants(*bytes);
}

std::u32string fix_encoding_once(const std::u32string& text) {
    const bool is_ascii =
        std::all_of(text.begin(), text.end(), [](char32_t c) { return c < 0x80; });
    if (is_ascii || !is_bad(text)) return text;
    for (const SingleByteCodec& codec : single_byte_codecs()) {
        if (auto fixed = undo_misreading(codec, text)) return *fixed;
    }
    std::u32string fixed = decode_inconsistent_utf8(text);
    if (fixed != text) return fixed;
    // What is left is windows-1252 read as latin-1.
    return fix_c1_controls(text);
}

}  // namespace

std::u32string fix_encoding(std::u32string text) {
    while (true) {
        std::u32string fixed = fix_encoding_once(text);
        if (fixed == text) return text;
        text = std::move(fixed);
    }
}

}  // namespace zoetrope::cleaning
