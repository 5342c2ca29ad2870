// Log lines for people, on stderr: warnings that a run goes on in spite of, and information. stdout
// stays free for --json. Safe from any thread.
#pragma once

#include <fmt/core.h>

#include <string_view>

namespace zoetrope::log {

enum class Level { debug, info, warning, silent };

// Lines below this level are dropped. Default: info.
void set_level(Level level);

void write(Level level, std::string_view line);

template <typename... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
    write(Level::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
    write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
    write(Level::warning, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace zoetrope::log
