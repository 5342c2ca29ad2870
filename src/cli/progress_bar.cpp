#include "cli/progress_bar.h"

#include "base/sizes.h"
#include "cli/flags.h"

#include <fmt/core.h>

#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace zoetrope::cli {
namespace {

constexpr int kBarWidth = 24;   // characters
constexpr int kTextWidth = 56;  // of a line around its bar: stage, counts, pace, time left

constexpr double kQuietSeconds = 60;  // between lines where there is no terminal

// What a stage counts.
std::string_view unit_of(Stage stage) {
    switch (stage) {
        case Stage::download: return "MiB";
        case Stage::encode_text: return "prompt";
        case Stage::denoise: return "step";
        case Stage::decode: return "chunk";
        default: return "part";
    }
}

std::string pace_of(const Progress& progress) {
    if (progress.step == 0 || progress.seconds <= 0) return "";
    if (progress.stage == Stage::download) {
        return fmt::format("{:.1f} MiB/s", progress.step / progress.seconds);
    }
    const double seconds = progress.seconds / progress.step;
    const std::string_view unit = unit_of(progress.stage);
    return seconds < 1 ? fmt::format("{:.0f}ms/{}", 1000 * seconds, unit)
                       : fmt::format("{}/{}", format_seconds(seconds), unit);
}

std::string time_left(const Progress& progress) {
    if (progress.predicted_seconds_left < 0 || progress.step >= progress.steps) return "";
    return fmt::format("{} left", format_seconds(progress.predicted_seconds_left));
}

}  // namespace

std::string bar_line(const Progress& progress, int width) {
    const int steps = std::max(progress.steps, 1);
    const int filled = std::clamp(progress.step * width / steps, 0, width);
    std::string line =
        fmt::format("{:<12} [{}{}] {:>3}/{}", name_of(progress.stage), std::string(filled, '#'),
                    std::string(width - filled, '-'), progress.step, progress.steps);
    if (progress.segments > 1)
        line += fmt::format("  segment {}/{}", progress.segment + 1, progress.segments);
    if (const auto pace = pace_of(progress); !pace.empty()) line += "  " + pace;
    if (const auto left = time_left(progress); !left.empty()) line += "  " + left;
    return line;
}

ProgressBar::~ProgressBar() {
    if (line_open_) std::fputc('\n', stderr);
}

void ProgressBar::show(const Progress& progress) {
    const bool done = progress.step >= progress.steps;
    if (terminal_) {
        // A line that wraps could not be overwritten.
        const std::size_t columns = terminal_width(STDERR_FILENO, 80);
        const int bar = std::clamp(static_cast<int>(columns) - kTextWidth, 4, kBarWidth);
        const std::string line = bar_line(progress, bar).substr(0, columns - 1);
        std::fputs(fmt::format("\r\x1b[K{}{}", line, done ? "\n" : "").c_str(), stderr);
        line_open_ = !done;
    } else if (done) {
        const bool counted = progress.steps != 1 && progress.stage != Stage::download;
        const std::string_view plural = counted ? "s" : "";
        std::fputs(fmt::format("{}: {} {}{} in {}, {}\n", name_of(progress.stage), progress.steps,
                               unit_of(progress.stage), plural, format_seconds(progress.seconds),
                               pace_of(progress))
                       .c_str(),
                   stderr);
    } else if (progress.step > 0 && progress.seconds - said_at_ >= kQuietSeconds) {
        said_at_ = progress.seconds;
        std::fputs(fmt::format("{}: {} {} of {}, {}, {}\n", name_of(progress.stage),
                               unit_of(progress.stage), progress.step, progress.steps,
                               pace_of(progress), time_left(progress))
                       .c_str(),
                   stderr);
    }
    if (done || progress.step == 0) said_at_ = 0;
    std::fflush(stderr);
}

}  // namespace zoetrope::cli
