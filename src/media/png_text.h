// Text in PNG files (the iTXt and tEXt chunks), which FFmpeg's encoder does not write.
//
// Pure functions on the bytes of a whole file, any thread.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace zoetrope {

// Puts one iTXt chunk (UTF-8, not compressed) per entry behind the header of `png`, which must be a
// complete PNG file. Keys longer than PNG's 79 bytes are cut. "title", "comment", "author" and
// "description" get the capital that the PNG specification gives them.
std::vector<std::uint8_t> with_png_text(std::span<const std::uint8_t> png,
                                        const std::map<std::string, std::string>& metadata);

// What the uncompressed text chunks say, keys in lower case; empty where `file` is no PNG file. A
// file that breaks off gives what came before.
std::map<std::string, std::string> png_text(std::span<const std::uint8_t> file);

}  // namespace zoetrope
