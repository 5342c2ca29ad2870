// The prompt clean-up against its specification: goldens of tools/oracle/clean_golden.py
// (ftfy 6.3.1 and Python's html and regex), and what they cannot hold: long lines and bytes that
// are not UTF-8.
#include "text/clean.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "base/error.h"
#include "text/clean_parts.h"
#include "text/fix_text.h"

namespace zoetrope {
namespace {

using cleaning::is_bad;
using nlohmann::json;
using testing::HasSubstr;

std::ifstream open_golden(const std::string& name) {
    std::ifstream file(ZT_SOURCE_DIR "/tests/golden/" + name);
    EXPECT_TRUE(file.is_open()) << name;
    return file;
}

std::u32string decode(const std::string& utf8) { return cleaning::decode_input(utf8); }

std::string repeat(const std::string& text, std::size_t count) {
    std::string result;
    for (std::size_t i = 0; i < count; ++i) result += text;
    return result;
}

TEST(Clean, EqualsTheSpecificationOnEveryGoldenCase) {
    std::ifstream file = open_golden("clean.jsonl");
    int cases = 0;
    int changed = 0;
    for (std::string line; std::getline(file, line); ++cases) {
        const json row = json::parse(line);
        const std::string input = row[0];
        // Numbers stand for outputs that repeat: 0 the input, 1 the fixed text.
        const std::string fixed = row[1] == 0 ? input : row[1].get<std::string>();
        const std::string clean = row[2] == 0   ? input
                                  : row[2] == 1 ? fixed
                                                : row[2].get<std::string>();
        const std::string unescaped = row[3] == 0 ? input : row[3].get<std::string>();
        EXPECT_EQ(fix_text(input), fixed) << "fix_text of " << line;
        EXPECT_EQ(clean_prompt(input), clean) << "clean_prompt of " << line;
        EXPECT_EQ(html_unescape(input), unescaped) << "html_unescape of " << line;
        EXPECT_EQ(is_bad(decode(input)), row[4] == 1) << "is_bad of " << line;
        changed += fixed != input ? 1 : 0;
    }
    EXPECT_GE(cases, 5000);
    EXPECT_GE(changed, 4000);
}

TEST(Clean, KnowsEveryBadPairInEveryContext) {
    std::ifstream file = open_golden("clean_badness.json");
    const json golden = json::parse(file);
    const std::u32string characters = decode(golden["characters"]);
    EXPECT_GE(characters.size(), 300u);
    for (const json& context : golden["contexts"]) {
        const std::u32string prefix = decode(context["prefix"]);
        const std::u32string suffix = decode(context["suffix"]);
        std::size_t firsts = 0;
        for (const json& group : context["groups"]) {
            const std::u32string bad_second = decode(group["bad_second"]);
            for (const char32_t first : decode(group["first"])) {
                ++firsts;
                for (const char32_t second : characters) {
                    const std::u32string text = prefix + first + second + suffix;
                    const bool want = bad_second.find(second) != std::u32string::npos;
                    if (is_bad(text) != want) ADD_FAILURE() << cleaning::encode_utf8(text);
                }
            }
        }
        EXPECT_EQ(firsts, characters.size());
    }
}

TEST(Clean, FixesWhatItsDocumentationPromises) {
    EXPECT_EQ(fix_text("âœ” No problems"), "✔ No problems");
    EXPECT_EQ(fix_text("&macr;\\_(ã\u0083\u0084)_/&macr;"), "¯\\_(ツ)_/¯");
    EXPECT_EQ(fix_text("Broken text&hellip; it&#x2019;s ﬂubberiﬁc!"),
              "Broken text… it's flubberific!");
    EXPECT_EQ(fix_text("ＬＯＵＤ　ＮＯＩＳＥＳ"), "LOUD NOISES");
    EXPECT_EQ(clean_prompt("  A&amp;lt;B \t\r\n\u3000 &nbsp;cat\u2003walks  "), "A<B cat walks");
}

TEST(Clean, LeavesAGoodPromptAlone) {
    const std::string chinese = "色调艳丽，过曝，静态，细节模糊不清，字幕";
    // Full-width punctuation is the one thing that changes in Chinese.
    EXPECT_EQ(clean_prompt(chinese), "色调艳丽,过曝,静态,细节模糊不清,字幕");
    for (const char* prompt : {"", "A cat walks on the grass, realistic style.",
                               "Größe, naïve café", "Красивая девушка идёт по Москве",
                               "猫が芝生の上を歩いている", "👩‍👩‍👧‍👦 on 🌱"}) {
        EXPECT_EQ(clean_prompt(prompt), prompt);
    }
}

TEST(Clean, ALessThanSignKeepsEntitiesFromItsLineOn) {
    EXPECT_EQ(fix_text("&eacute;\n<b>&eacute;\n&eacute;"), "é\n<b>&eacute;\n&eacute;");
    EXPECT_EQ(clean_prompt("&eacute;\n<b>&eacute;\n&eacute;"), "é <b>é é");
}

TEST(Clean, RepairsEachLineAndEachMillionCharactersByThemselves) {
    // "Â " is suspicious at the start of a segment, not after a full stop and a line feed.
    EXPECT_EQ(fix_text("X.\nÂ x"), "X.\n\u00a0x");
    EXPECT_TRUE(is_bad(U"Â x"));
    EXPECT_FALSE(is_bad(U"X.\nÂ x"));
    // The two halves of "Ã©" fall into two segments, so that neither looks wrong.
    const std::string split = repeat("a", 999'999) + "Ã© b";
    EXPECT_EQ(fix_text(split), split);
    const std::string whole = repeat("a", 999'998);
    EXPECT_EQ(fix_text(whole + "Ã© b"), whole + "é b");
}

TEST(Clean, RepairsMojibakeOfMojibake) {
    // UTF-8 read as windows-1252, three times over.
    EXPECT_EQ(fix_text("ÃƒÆ’Ã‚Â©tÃƒÆ’Ã‚Â©"), "été");
}

TEST(Clean, SaysWhichByteIsNotUtf8) {
    const struct {
        std::string text;
        std::string byte;
        std::string position;
    } cases[] = {
        {"abc\xff", "0xff", "position 3"},
        {"\x80", "0x80", "position 0"},
        {"é\xc3", "0xc3", "position 2"},
        {"a\xc0\x80", "0xc0", "position 1"},                   // overlong
        {"ab\xed\xa0\xbd\xed\xb8\x8d", "0xed", "position 2"},  // surrogates
        {"\xf4\x90\x80\x80", "0xf4", "position 0"},            // beyond U+10FFFF
    };
    for (const auto& [text, byte, position] : cases) {
        for (const auto& function : {clean_prompt, fix_text, html_unescape}) {
            try {
                function(text);
                ADD_FAILURE() << position;
            } catch (const Error& error) {
                EXPECT_EQ(error.kind(), ErrorKind::bad_request);
                EXPECT_THAT(error.what(), HasSubstr(byte));
                EXPECT_THAT(error.what(), HasSubstr(position));
            }
        }
    }
}

TEST(Clean, TakesRandomBytesWithoutACrash) {
    std::mt19937 random(1);
    int accepted = 0;
    for (int i = 0; i < 2000; ++i) {
        std::string latin_1, bytes;
        for (auto length = random() % 40; length > 0; --length) {
            const char32_t c = random() % 256;
            latin_1 += cleaning::encode_utf8(std::u32string(1, c));
            bytes.push_back(static_cast<char>(c));
        }
        // The result is UTF-8 and has no white space to join.
        const std::string clean = clean_prompt(latin_1);
        EXPECT_EQ(decode(clean).find(U"  "), std::u32string::npos);
        try {
            clean_prompt(bytes);
            ++accepted;
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::bad_request);
        }
    }
    EXPECT_GT(accepted, 0);
}

TEST(Clean, UnescapesNumbersAsHtmlDoes) {
    EXPECT_EQ(html_unescape("&#128;&#x81;&#x9f;"), "€\u0081Ÿ");
    EXPECT_EQ(html_unescape("&#0;&#55296;&#1114112;&#99999999999999999999;"), "����");
    EXPECT_EQ(html_unescape("[&#1;&#11;&#127;&#xfffe;&#xfdd0;&#x10ffff;]"), "[]");
    EXPECT_EQ(html_unescape("&#9;&#13;&#65&#x41g&#;&#x;"), "\t\rAAg&#;&#x;");
}

TEST(Clean, UnescapesTheLongestNameThatFits) {
    EXPECT_EQ(html_unescape("&notit; &notin; &ampx &copy2024"), "¬it; ∉ &x ©2024");
    EXPECT_EQ(html_unescape("&bne; &unknown; &Eacute"), "=\u20e5 &unknown; É");
}

}  // namespace
}  // namespace zoetrope
