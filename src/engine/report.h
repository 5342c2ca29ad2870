// What a run did and cost: timings per stage and step, memory predicted and measured, the seed. One
// per run.
#pragma once

#include "base/progress.h"
#include "engine/request.h"
#include "plan/cost.h"
#include "plan/segments.h"
#include "preprocess/preprocess.h"

#include <nlohmann/json_fwd.hpp>

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace zoetrope {

// Predicted peak of each stage on one device, bytes: what is held at once, by name.
struct MemoryPlan {
    struct StageMemory {
        std::string stage;                          // "encode_text", "denoise", "decode"
        std::map<std::string, std::int64_t> parts;  // "weights", "activations", ...
        std::int64_t total() const;
    };
    std::vector<StageMemory> stages;
    std::int64_t peak() const;
};

// Colours of frames: of each channel (red, green, blue; values in [0, 1] as they are shown, gamma
// encoded) the mean, and the standard deviation, which is the contrast.
struct ColorStatistics {
    std::array<double, 3> mean{};
    std::array<double, 3> deviation{};
};

struct Report {
    // What a join does to the colours. `before` and `after`: as many frames as the segments share,
    // on either side of the join.
    struct Drift {
        int join = 0;   // 1: between the first two segments
        int frame = 0;  // of the written video: the later segment's first new one
        ColorStatistics before, after;
        ColorStatistics segment;  // all new frames of the later segment
        ColorStatistics first;    // all frames of the shot's first segment
        // The later segment's own version of the frames it shares less the earlier one's, before
        // colours are matched: the same content, so what differs is drift alone.
        std::array<double, 3> overlap_mean_difference{};
    };
    struct StageTime {
        std::string stage;
        double seconds = 0;
    };
    // An adapter in a transformer.
    struct Adapter {
        std::string name;  // as it was given
        std::string file;
        std::string expert;  // "high" or "low" of a model that has two, else "both"
        double strength = 1;
        std::int64_t rank = 0;     // the largest
        std::int64_t targets = 0;  // parameters that it changes
        double seconds = 0;        // reading and applying
    };
    // Into which segments the run was cut, and the seconds of each: encoding, denoising and
    // decoding, without the reading of weights.
    struct Plan {
        plan::SegmentPlan segments;
        JoinOptions joins;
        std::vector<int> cuts;  // scene changes found
        std::vector<double> predicted;
        std::vector<double> measured;  // 0: not run
        std::string cost_source;       // of the predictions

        double predicted_seconds() const;
        double seconds() const;
    };
    // Seconds for which each stage of this process's segments was at work. Stages overlap; what is
    // missing to `seconds`, they were idle. prepare: conditions and noise; write: frames handed
    // out.
    struct Pipeline {
        double seconds = 0;  // from the first segment's beginning to its last frame's writing
        double prepare = 0, denoise = 0, decode = 0, write = 0;
        double waited = 0;  // that the thread of the model stood still for the frames behind it
        // Of the process's threads together: on cores, and waiting for one that others had. 0 where
        // the kernel does not tell.
        double cpu_running = 0, cpu_waiting = 0;
    };
    // Of a driving clip.
    struct Preprocessing {
        preprocess::Report clip;  // without files, which were temporary
        double model_waited = 0;  // seconds, for frames of the clip
        double clip_waited = 0;   // seconds, for frames to be used, over all of its threads
    };
    // Where a run went on that an earlier process had begun.
    struct Resumed {
        int segment = 0;
        int step = 0;  // of the scheduler's time steps, the first one that was run
    };
    // In the order they ran, those of earlier processes first; what these did and lost is not in
    // it.
    std::vector<StageTime> stages;
    std::vector<double> step_seconds;   // denoising, per step
    std::vector<Resumed> resumed_from;  // once for each time that the run went on
    MemoryPlan memory;
    std::int64_t measured_peak_bytes = 0;  // highest resident set of the process during the run
    std::vector<std::string> warnings;
    std::vector<Adapter> adapters;
    std::vector<Drift> drift;  // one per join
    Plan plan;
    Pipeline pipeline;
    std::vector<plan::Sample> samples;  // of the segments that ran here from end to end
    std::optional<Preprocessing> preprocessing;

    void add_stage(Stage stage, double seconds);
};

nlohmann::json to_json(const Report& report);

// Whether other programs took so much of the cores that the times say little: more than this part
// of the time that the threads ran.
bool is_disturbed(const Report::Pipeline& pipeline, double most_waiting);

// Of the pipeline in one line.
std::string pipeline_summary(const Report& report);

// What the joins do to the colours at most: of the channels the one that changes most.
struct WorstDrift {
    int joins = 0;
    double mean = 0, contrast = 1;                        // behind a join less, or over, before it
    double from_first_mean = 0, from_first_contrast = 1;  // the last segment against the first
};
std::optional<WorstDrift> worst_drift(const Report& report);  // nothing without joins

// The joins' drift in one sentence; empty without joins.
std::string drift_summary(const Report& report);

}  // namespace zoetrope
