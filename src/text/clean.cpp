#include "text/clean.h"

#include "text/clean_parts.h"

namespace zoetrope {

namespace {

std::u32string_view strip(std::u32string_view text) {
    while (!text.empty() && cleaning::is_python_space(text.front())) text.remove_prefix(1);
    while (!text.empty() && cleaning::is_python_space(text.back())) text.remove_suffix(1);
    return text;
}

// Every run of white space becomes one space.
std::u32string join_white_space(std::u32string_view text) {
    std::u32string result;
    for (const char32_t c : text) {
        const bool is_space = cleaning::is_white_space(c);
        if (!is_space) {
            result.push_back(c);
        } else if (result.empty() || result.back() != U' ') {
            result.push_back(U' ');
        }
    }
    return result;
}

}  // namespace

std::string clean_prompt(std::string_view utf8) {
    std::u32string text = cleaning::fix_text(cleaning::decode_input(utf8));
    text = cleaning::html_unescape(cleaning::html_unescape(text));
    return cleaning::encode_utf8(strip(join_white_space(strip(text))));
}

std::string html_unescape(std::string_view utf8) {
    return cleaning::encode_utf8(cleaning::html_unescape(cleaning::decode_input(utf8)));
}

}  // namespace zoetrope
