// The normaliser of SentencePiece models: a table of replacements ("precompiled charsmap", NFKC and
// the like), applied as Hugging Face tokenizers apply it.
//
// Immutable after construction; any thread may normalise.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope {

class Charsmap {
public:
    // Empty: text stays as it is.
    Charsmap() = default;
    // blob: size of the trie in bytes (uint32), the trie (a Darts double array of uint32), and the
    // replacements, each ended by a zero byte. Errors: io for another form; `source` names the
    // file.
    Charsmap(std::string_view blob, std::string_view source);

    // Replaces each grapheme shorter than six bytes by the replacement of the shortest key that it
    // begins with; where there is none, each of its code points likewise.
    std::string normalize(std::string_view text) const;

private:
    std::optional<std::string_view> replacement(std::string_view chunk) const;
    void append(std::string_view grapheme, std::string& out) const;

    std::vector<std::uint32_t> trie_;
    std::string replacements_;
};

}  // namespace zoetrope
