// Sizes as people write them: bytes with binary units, and pictures as WxH. Pure functions, any
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace zoetrope {

// "512M", "24GiB", "1.5GB", "1073741824" -> bytes. K, M, G, T with or without "B" or "iB" are all
// binary (1024). Errors: bad_request for anything else, negative numbers, or more than 2^63 - 1
// bytes.
std::int64_t parse_bytes(std::string_view text);

// 1610612736 -> "1.50 GiB"
std::string format_bytes(std::int64_t bytes);

// 83.4 -> "1m 23s", 3.21 -> "3.2s"
std::string format_seconds(double seconds);

}  // namespace zoetrope
