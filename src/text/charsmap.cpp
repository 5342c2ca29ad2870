#include "text/charsmap.h"

#include "base/error.h"

#include <unicode/brkiter.h>
#include <unicode/locid.h>
#include <unicode/utext.h>
#include <unicode/utf8.h>

#include <cstring>
#include <memory>

namespace zoetrope {
namespace {

// Fields of a unit of a Darts double array (github.com/s-yata/darts-clone).
std::uint32_t label_of(std::uint32_t unit) { return unit & 0x800000FFu; }
std::uint32_t offset_of(std::uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }
std::uint32_t value_of(std::uint32_t unit) { return unit & 0x7FFFFFFFu; }
bool has_leaf(std::uint32_t unit) { return (unit & 0x100u) != 0; }

// Graphemes of at least this many bytes are replaced code point by code point.
constexpr std::size_t kLongGrapheme = 6;

}  // namespace

Charsmap::Charsmap(std::string_view blob, std::string_view source) {
    if (blob.empty()) return;
    std::uint32_t bytes = 0;
    ZT_CHECK(blob.size() >= sizeof(bytes), io,
             "{}: the normaliser's charsmap has {} bytes, too few for its header", source,
             blob.size());
    std::memcpy(&bytes, blob.data(), sizeof(bytes));
    blob.remove_prefix(sizeof(bytes));
    ZT_CHECK(bytes % sizeof(std::uint32_t) == 0 && bytes > 0 && bytes <= blob.size(), io,
             "{}: the normaliser's charsmap says that its trie has {} bytes, but {} follow", source,
             bytes, blob.size());
    trie_.resize(bytes / sizeof(std::uint32_t));
    std::memcpy(trie_.data(), blob.data(), bytes);
    replacements_ = blob.substr(bytes);
}

std::optional<std::string_view> Charsmap::replacement(std::string_view chunk) const {
    std::uint32_t position = offset_of(trie_[0]);
    for (const char c : chunk) {
        const auto byte = static_cast<unsigned char>(c);
        position ^= byte;
        if (byte == 0 || position >= trie_.size()) return std::nullopt;
        const std::uint32_t unit = trie_[position];
        if (label_of(unit) != byte) return std::nullopt;
        position ^= offset_of(unit);
        if (!has_leaf(unit)) continue;
        if (position >= trie_.size()) return std::nullopt;
        const std::uint32_t begin = value_of(trie_[position]);
        if (begin >= replacements_.size()) return std::nullopt;
        const std::string_view rest = std::string_view(replacements_).substr(begin);
        return rest.substr(0, rest.find('\0'));
    }
    return std::nullopt;
}

void Charsmap::append(std::string_view grapheme, std::string& out) const {
    if (grapheme.size() < kLongGrapheme) {
        if (const auto whole = replacement(grapheme)) {
            out += *whole;
            return;
        }
    }
    const auto size = static_cast<std::int32_t>(grapheme.size());
    for (std::int32_t begin = 0, end = 0; begin < size; begin = end) {
        U8_FWD_1(grapheme.data(), end, size);
        const std::string_view code_point =
            grapheme.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
        out += replacement(code_point).value_or(code_point);
    }
}

std::string Charsmap::normalize(std::string_view text) const {
    if (trie_.empty()) return std::string(text);
    UErrorCode status = U_ZERO_ERROR;
    const std::unique_ptr<icu::BreakIterator> graphemes(
        icu::BreakIterator::createCharacterInstance(icu::Locale::getRoot(), status));
    UText utext = UTEXT_INITIALIZER;
    utext_openUTF8(&utext, text.data(), static_cast<std::int64_t>(text.size()), &status);
    if (U_SUCCESS(status)) graphemes->setText(&utext, status);
    if (U_FAILURE(status)) {
        utext_close(&utext);
        fail(ErrorKind::internal, "ICU cannot split text into graphemes: {}", u_errorName(status));
    }
    std::string out;
    out.reserve(text.size());
    std::int32_t begin = graphemes->first();
    for (std::int32_t end = graphemes->next(); end != icu::BreakIterator::DONE;
         begin = end, end = graphemes->next()) {
        append(text.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)),
               out);
    }
    utext_close(&utext);
    return out;
}

}  // namespace zoetrope
