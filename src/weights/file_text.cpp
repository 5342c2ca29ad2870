#include "weights/file_text.h"

#include "base/error.h"

#include <algorithm>
#include <cstddef>

namespace zoetrope {
namespace {

constexpr std::size_t kMaxNameBytes = 1000;  // far above any model's
constexpr std::size_t kShownBytes = 120;

bool is_control(unsigned char c) { return c < ' ' || c == 127; }

// Bytes of the character that begins there; 0 where none does. RFC 3629: no overlong forms, no
// surrogates, nothing above U+10FFFF.
std::size_t character_length(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char first = byte(0);
    if (first < 0x80) return 1;
    const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xc0) != 0x80) return 0;
    }
    const unsigned char second = byte(1);
    const bool wrong = (first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
                       (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f);
    return wrong ? 0 : length;
}

}  // namespace

bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        const std::size_t length = character_length(text);
        if (length == 0) return false;
        text.remove_prefix(length);
    }
    return true;
}

std::string shown(std::string_view text) {
    const bool cut = text.size() > kShownBytes;
    text = text.substr(0, kShownBytes);
    std::string line;
    while (!text.empty()) {
        const std::size_t length = character_length(text);
        const bool printable = length > 1 || (length == 1 && !is_control(text[0]));
        line += printable ? text.substr(0, length) : "?";
        text.remove_prefix(std::max<std::size_t>(length, 1));
    }
    return cut ? line + "..." : line;
}

void check_tensor_name(std::string_view name, std::string_view source) {
    ZT_CHECK(name.size() <= kMaxNameBytes && std::none_of(name.begin(), name.end(), is_control) &&
                 is_utf8(name),
             io,
             "{}: '{}' is no tensor name: it has {} bytes, or control characters, or is not "
             "UTF-8",
             source, shown(name), name.size());
}

}  // namespace zoetrope
