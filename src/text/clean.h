// Cleans a prompt before it is tokenised, exactly as the Wan pipelines of Diffusers do: repair
// broken Unicode (fix_text.h), resolve HTML entities twice, make every run of white space one
// space. Text in and out is UTF-8; input that is not is a bad_request that names the first bad
// byte. Pure functions, safe from any thread.
#pragma once

#include <string>
#include <string_view>

namespace zoetrope {

std::string clean_prompt(std::string_view utf8);

// HTML 5 character references become the characters they stand for, by the rules of Python's
// html.unescape: old entities also without a semicolon, longest name first; a number that is no
// character becomes U+FFFD, a control character or noncharacter nothing.
std::string html_unescape(std::string_view utf8);

}  // namespace zoetrope
