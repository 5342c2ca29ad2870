// Text that strangers' weight files hold: how it goes into messages, and which of it can name a
// tensor. Pure functions, any thread.
#pragma once

#include <string>
#include <string_view>

namespace zoetrope {

bool is_utf8(std::string_view text);

// One line of printable text of bounded length, whatever the bytes are.
std::string shown(std::string_view text);

// Names go into messages, JSON and on terminals, here and in every later stage. Errors: io unless
// the name is UTF-8 of at most 1000 bytes without control characters.
void check_tensor_name(std::string_view name, std::string_view source);

}  // namespace zoetrope
