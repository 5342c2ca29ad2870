// Progress for people, on stderr: a bar per stage on a terminal; without one a line per stage, and
// one a minute while a stage lasts.
#pragma once

#include "base/progress.h"

#include <string>

namespace zoetrope::cli {

class ProgressBar {
public:
    // `terminal`: whether stderr is one that understands carriage returns.
    explicit ProgressBar(bool terminal) : terminal_(terminal) {}
    ~ProgressBar();  // ends an open line

    void show(const Progress& progress);

private:
    bool terminal_;
    bool line_open_ = false;
    double said_at_ = 0;  // seconds into the stage at the last line without a terminal
};

// "denoise  [#####-----]  12/25  1.3 s/step  16.9s left"
std::string bar_line(const Progress& progress, int width);

}  // namespace zoetrope::cli
