// Words of the command line and their values: one constexpr table of (value, word) per choice.
// Thread-safe, without state.
#pragma once

#include "base/error.h"

#include <array>
#include <cstddef>
#include <string_view>
#include <utility>
#include <vector>

namespace zoetrope {

template <typename Value, std::size_t n>
using Choices = std::array<std::pair<Value, std::string_view>, n>;

// The word of a value that the table has.
template <typename Value, std::size_t n>
std::string_view word_of(const Choices<Value, n>& choices, Value wanted) {
    for (const auto& [value, word] : choices) {
        if (value == wanted) return word;
    }
    fail(ErrorKind::internal, "a value is missing from its table of words");
}

// The value of a word. Errors: bad_request, with `flag` and the words that are accepted.
template <typename Value, std::size_t n>
Value parse_choice(const Choices<Value, n>& choices, std::string_view flag, std::string_view text) {
    std::vector<std::string_view> words;
    for (const auto& [value, word] : choices) {
        if (word == text) return value;
        words.push_back(word);
    }
    fail(ErrorKind::bad_request, "{} is '{}': accepted are {}", flag, text, fmt::join(words, ", "));
}

}  // namespace zoetrope
