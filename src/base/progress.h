// Progress, cancellation and timing as values: what every stage reports, to whom, and how it is
// told to stop.
//
// A RunControl is passed down by reference. The engine calls its sink from the thread that runs the
// stage, never from two threads at once; a sink must return quickly and must not throw. Bars,
// server events and workflow clients are sinks.
#pragma once

#include <functional>
#include <stop_token>
#include <string_view>

namespace zoetrope {

enum class Stage { download, load, encode_text, encode_image, preprocess, denoise, decode, write };

// "download", "load", "encode_text", ... as the report's keys have them.
std::string_view name_of(Stage stage);

struct Progress {
    Stage stage = Stage::load;
    int step = 0;     // steps finished; 0 announces the stage
    int steps = 1;    // steps in all
    int segment = 0;  // index from 0
    int segments = 1;
    double seconds = 0;                  // since the stage began
    double predicted_seconds_left = -1;  // of this stage; negative: not known yet
};

using ProgressSink = std::function<void(const Progress&)>;

struct RunControl {
    ProgressSink on_progress;  // may be empty
    std::stop_token stop;      // default: never asked to stop

    void report(const Progress& progress) const {
        if (on_progress) on_progress(progress);
    }

    // Throws Error{cancelled} once a stop was requested. Called between steps, blocks and chunks.
    void throw_if_stopped() const;
};

}  // namespace zoetrope
