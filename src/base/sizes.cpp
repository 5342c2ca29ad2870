#include "base/sizes.h"

#include "base/error.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

namespace zoetrope {

std::int64_t parse_bytes(std::string_view text) {
    double number = 0;
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    std::string unit(rest, text.data() + text.size());
    std::transform(unit.begin(), unit.end(), unit.begin(),
                   [](unsigned char c) { return std::toupper(c); });
    if (!unit.empty() && unit.back() == 'B') unit.pop_back();
    if (unit.size() == 2 && unit.back() == 'I') unit.pop_back();
    const auto power = unit.empty() ? 0 : std::string_view("KMGT").find(unit) + 1;  // npos + 1 is 0
    const bool known = unit.empty() || (unit.size() == 1 && power > 0);
    const double bytes = known ? number * std::pow(1024.0, static_cast<double>(power)) : -1;
    ZT_CHECK(error == std::errc() && bytes >= 0 && bytes < 9.2e18, bad_request,
             "'{}' is not a size: accepted are a number of bytes, or a number with K, M, G or T, "
             "such as 24GiB",
             text);
    return static_cast<std::int64_t>(bytes);
}

std::string format_bytes(std::int64_t bytes) {
    const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = static_cast<double>(bytes);
    int unit = 0;
    while (std::abs(value) >= 1024 && unit < 4) {
        value /= 1024;
        ++unit;
    }
    return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.2f} {}", value, units[unit]);
}

std::string format_seconds(double seconds) {
    if (seconds < 60) return fmt::format("{:.1f}s", seconds);
    const auto whole = static_cast<std::int64_t>(std::lround(seconds));
    if (whole < 3600) return fmt::format("{}m {:02}s", whole / 60, whole % 60);
    return fmt::format("{}h {:02}m", whole / 3600, whole % 3600 / 60);
}

}  // namespace zoetrope
