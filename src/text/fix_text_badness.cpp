// The heuristic that tells mojibake from text: sequences of characters that people hardly write.
// Categories and sequences are those of ftfy 6.3.1 (its module badness).
#include <algorithm>
#include <cstdint>
#include <vector>

#include "text/clean_parts.h"

namespace zoetrope::cleaning {

namespace {

// Categories of characters; a character may be in several.
enum : std::uint32_t {
    kCommon = 1u << 0,  // in mojibake and out of it
    kC1 = 1u << 1,      // control characters that nobody uses
    kBad = 1u << 2,     // hardly ever meant
    kLaw = 1u << 3,
    kCurrency = 1u << 4,
    kStartPunctuation = 1u << 5,
    kEndPunctuation = 1u << 6,
    kNumeric = 1u << 7,
    kKaomoji = 1u << 8,  // letters that faces are made of
    kUpperAccented = 1u << 9,
    kLowerAccented = 1u << 10,
    kUpperCommon = 1u << 11,  // other alphabets, ordinary at the end of a word
    kLowerCommon = 1u << 12,
    kBox = 1u << 13,
    kAsciiUpper = 1u << 14,
    kAsciiLower = 1u << 15,
    // Not in the table: computed where a rule asks.
    kSpace = 1u << 16,
    kWord = 1u << 17,
    kNotAsciiLetter = 1u << 18,
    kNotLineFeed = 1u << 19,

    kAccented = kUpperAccented | kLowerAccented,
    kPunctuation = kStartPunctuation | kEndPunctuation,
};

struct Category {
    std::uint32_t bit;
    std::u32string_view characters;  // "a-c" is a range
};

constexpr Category kCategories[] = {
    {kCommon, U"\u00a0\u00ad·´–—―…’"},
    {kC1, U"\x80-\x9f"},
    {kBad, U"¦¤¨¬¯¸ƒˆˇ˘˛˜†‡‰⌐◊\ufffdªº"},
    {kLaw, U"¶§"},
    {kCurrency, U"¢£¥₧€"},
    {kStartPunctuation, U"¡«¿©\u0384\u0385‘‚“„•‹\uf8ff"},
    {kEndPunctuation, U"®»˝”›™"},
    {kNumeric, U"²³¹±¼½¾×\u00b5÷⁄∂\u2206\u220f\u2211√∞∩∫≈≠≡≤≥№"},
    {kKaomoji, U"Ò-ÖÙ-Üò-öø-üŐŌŪŲ°"},
    {kUpperAccented, U"À-ÑØÜÝĂĀĄĆČĎĐĘĚĒĖĞĢİĪĶĹĽŁĻŃŇŅŒŘŚŞŠŢŤŮŰŸŹŻŽ\u0490"},
    {kLowerAccented, U"ßà-ñăąāćčďđęěēėğģįīķĺľłļœŕśşšťüźżž\u0491\ufb01\ufb02"},
    {kUpperCommon, U"Þ\u0391-\u03a9\u0386\u0388-\u038a\u038c\u038e\u038f\u03aa\u03ab\u0401-\u042f"},
    {kLowerCommon, U"\u03b1-\u03c9\u03ac-\u03b0\u0430-\u045f"},
    {kBox, U"│┌┐┘├┤┬┼═-╬▀▄█▌▐░▒▓"},
    {kAsciiUpper, U"A-Z"},
    {kAsciiLower, U"a-z"},
};

// The categories of each character of the Basic Multilingual Plane; none is beyond it.
std::vector<std::uint32_t> make_category_table() {
    std::vector<std::uint32_t> table(0x10000, 0);
    for (const auto& [bit, characters] : kCategories) {
        for (std::size_t i = 0; i < characters.size(); ++i) {
            const bool is_range = i + 2 < characters.size() && characters[i + 1] == U'-';
            const char32_t last = characters[is_range ? i + 2 : i];
            for (char32_t c = characters[i]; c <= last; ++c) table[c] |= bit;
            if (is_range) i += 2;
        }
    }
    return table;
}

std::uint32_t categories_of(char32_t c) {
    static const std::vector<std::uint32_t> table = make_category_table();
    return c < table.size() ? table[c] : 0;
}

// What one place of a rule accepts: the characters of some categories, and some single ones.
struct Set {
    constexpr Set(std::uint32_t categories_ = 0, std::u32string_view characters_ = {})
        : categories(categories_), characters(characters_) {}
    constexpr Set(const char32_t* characters_) : characters(characters_) {}

    bool contains(char32_t c) const {
        return (categories & categories_of(c)) != 0 ||
               characters.find(c) != std::u32string_view::npos || contains_computed(c);
    }

    std::uint32_t categories = 0;
    std::u32string_view characters;

private:
    bool contains_computed(char32_t c) const {
        return ((categories & kSpace) != 0 && is_python_space(c)) ||
               ((categories & kWord) != 0 && is_word_character(c)) ||
               ((categories & kNotAsciiLetter) != 0 && !is_ascii_letter(c)) ||
               ((categories & kNotLineFeed) != 0 && c != U'\n');
    }
};

constexpr std::size_t kLongestRule = 7;

struct Rule {
    template <typename... Sets>
    constexpr Rule(Sets... sets_) : sets{Set(sets_)...}, length(sizeof...(sets_)) {}

    bool matches(std::u32string_view text) const {
        if (text.size() < length) return false;
        for (std::size_t i = 0; i < length; ++i) {
            if (!sets[i].contains(text[i])) return false;
        }
        return true;
    }

    std::array<Set, kLongestRule> sets;
    std::size_t length;
};

// Everything that decorates text without being a plain letter.
constexpr std::uint32_t kOrnate = kAccented | kBox | kPunctuation | kCurrency | kNumeric | kLaw;

constexpr std::uint32_t kAsciiLetter = kAsciiUpper | kAsciiLower;

// The second and fourth character of Arabic words read as windows-1252.
constexpr Set kArabicTail(kCommon | kCurrency | kBad | kNumeric | kStartPunctuation, U"ŸŠ®°»");

// Cyrillic and Greek capitals whose UTF-8 lead bytes are read as themselves (look-alikes of Latin
// letters, hence the numbers).
constexpr Set kCyrillicLead(U"\u0412\u0413\u0420\u0421");
constexpr Set kGreekLead(U"\u0392\u0393\u039e\u039f");

constexpr Rule kRules[] = {
    {kC1},
    {kOrnate | kBad, kBad},
    {kBad, kOrnate},
    {kAsciiLetter, kLowerCommon | kUpperCommon, kBad},
    {kLowerAccented | kLowerCommon | kBox | kEndPunctuation | kCurrency | kNumeric, kUpperAccented},
    {kBox | kEndPunctuation | kCurrency | kNumeric, kLowerAccented},
    {kLowerAccented | kBox | kEndPunctuation, kCurrency},
    {kSpace, kUpperAccented, kCurrency},
    {kUpperAccented | kBox, kNumeric | kLaw},
    {kAccented | kBox | kCurrency | kEndPunctuation, kStartPunctuation, kNumeric},
    {kAccented | kCurrency | kNumeric | kBox | kLaw, kEndPunctuation, kStartPunctuation},
    {kCurrency | kNumeric | kBox, kStartPunctuation},
    {kAsciiLower, kUpperAccented, kStartPunctuation | kCurrency},
    {kBox, kKaomoji | kEndPunctuation},
    {kOrnate & ~kBox, kBox},
    {kAccented, kPunctuation, kWord},
    {U"Œœ", kNotAsciiLetter},
    {kUpperAccented, U"°"},

    // UTF-8 read as windows-1252
    {U"ÂÃÎÐ", Set(kPunctuation, U"€œŠš¢£Ÿž\u00a0\u00ad°·–—´")},
    {U"×", U"²³"},
    {U"ØÙ", kArabicTail, U"ØÙ", kArabicTail},
    {U"à", U"²\u00b5¹¼½¾"},
    {kAsciiLower, U"ÂÃ", U" "},
    {kAsciiLower, kSpace, U"ÂÃ", U" "},
    {Set(kAsciiLower | kEndPunctuation, U".,?!"), U"Â", Set(kPunctuation, U" ")},

    // ... as MacRoman
    {U"√", U"±∂†≠®™´≤≥¥\u00b5ø"},
    {U"≈", U"°¢"},
    {U"‚", U"Ä", U"ìîïòôúùû†°¢π"},
    {U"‚", U"âó", U"àä°ê"},

    // ... as windows-1251
    {U"\u0432", U"\u0402"},
    {kCyrillicLead, Set(kC1 | kBad | kPunctuation | kCurrency, U"°\u00b5"), kCyrillicLead},
    {U"\u0413", U"\u045e", U"\u0412", U"\u0402", U"\u0412", kNotLineFeed, Set(kAsciiLetter, U" ")},

    // ... as windows-1253
    {U"\u03b2", U"€", U"™\u00a0\u0386\u00ad®°"},
    {kGreekLead, Set(kC1 | kBad | kPunctuation | kCurrency, U"°"), kGreekLead},

    // ... as windows-1257
    {U"ā", U"€"},
};

// The rest of "Ã " or "Â " (a no-break space that became a plain one) at the start of the text.
bool begins_bad(std::u32string_view text) {
    return text.size() >= 2 && (text[0] == U'Â' || text[0] == U'Ã') && text[1] == U' ';
}

}  // namespace

bool is_bad(std::u32string_view text) {
    if (begins_bad(text)) return true;
    for (; !text.empty(); text.remove_prefix(1)) {
        // Each rule asks for a character that is not ASCII at one of its first three places.
        const std::u32string_view head = text.substr(0, 3);
        const bool is_ascii =
            std::all_of(head.begin(), head.end(), [](char32_t c) { return c < 0x80; });
        if (is_ascii) continue;
        const bool is_match = std::any_of(std::begin(kRules), std::end(kRules),
                                          [text](const Rule& rule) { return rule.matches(text); });
        if (is_match) return true;
    }
    return false;
}

}  // namespace zoetrope::cleaning
