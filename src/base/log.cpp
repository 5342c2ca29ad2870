#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace zoetrope::log {
namespace {

spdlog::logger& logger() {
    static const auto instance = [] {
        auto created = std::make_shared<spdlog::logger>(
            "zoetrope", std::make_shared<spdlog::sinks::stderr_sink_mt>());
        created->set_pattern("%v");
        return created;
    }();
    return *instance;
}

spdlog::level::level_enum to_spdlog(Level level) {
    switch (level) {
        case Level::debug: return spdlog::level::debug;
        case Level::info: return spdlog::level::info;
        case Level::warning: return spdlog::level::warn;
        case Level::silent: return spdlog::level::off;
    }
    return spdlog::level::info;
}

}  // namespace

void set_level(Level level) { logger().set_level(to_spdlog(level)); }

void write(Level level, std::string_view line) {
    if (level == Level::warning) {
        logger().warn("warning: {}", line);
    } else {
        logger().log(to_spdlog(level), "{}", line);
    }
}

}  // namespace zoetrope::log
