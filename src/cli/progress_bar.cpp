#include "cli/progress_bar.h"

#include "base/sizes.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>

namespace zoetrope::cli {
namespace {

constexpr int kBarWidth = 24;  // characters

std::string pace_of(const Progress& progress) {
    if (progress.step == 0 || progress.seconds <= 0) return "";
    return fmt::format("{}/step", format_seconds(progress.seconds / progress.step));
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
    if (progress.predicted_seconds_left >= 0 && progress.step < progress.steps) {
        line += fmt::format("  {} left", format_seconds(progress.predicted_seconds_left));
    }
    return line;
}

ProgressBar::~ProgressBar() {
    if (line_open_) std::fputc('\n', stderr);
}

void ProgressBar::show(const Progress& progress) {
    const bool done = progress.step >= progress.steps;
    if (terminal_) {
        std::fputs(
            fmt::format("\r\x1b[K{}{}", bar_line(progress, kBarWidth), done ? "\n" : "").c_str(),
            stderr);
        line_open_ = !done;
    } else if (done) {
        const std::string pace = pace_of(progress);
        std::fputs(fmt::format("{}: {} in {}{}\n", name_of(progress.stage), progress.steps,
                               format_seconds(progress.seconds), pace.empty() ? "" : ", " + pace)
                       .c_str(),
                   stderr);
    }
    std::fflush(stderr);
}

}  // namespace zoetrope::cli
