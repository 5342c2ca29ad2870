// Repairs Unicode text that went wrong on its way here: mojibake (UTF-8 read in another encoding,
// also several times over, also with lost bytes), HTML entities, terminal escapes, ligatures,
// full-width letters, curly quotes, line breaks, control characters; the result is in NFC.
// The same answer as `ftfy.fix_text` with its default options, of ftfy 6.3.1 (Robyn Speer,
// Apache-2.0), which serves as the specification; NFC is of ICU's Unicode version, not of Python's.
// UTF-8 in and out; input that is not is a bad_request. Pure function, safe from any thread.
#pragma once

#include <string>
#include <string_view>

namespace zoetrope {

std::string fix_text(std::string_view utf8);

}  // namespace zoetrope
