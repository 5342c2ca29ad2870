// What a run did and cost: timings per stage and step, memory predicted and measured, the seed. One
// per run.
#pragma once

#include "base/progress.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <map>
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

struct Report {
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
    std::vector<StageTime> stages;     // in the order they ran
    std::vector<double> step_seconds;  // denoising, per step
    MemoryPlan memory;
    std::int64_t measured_peak_bytes = 0;  // highest resident set of the process during the run
    std::vector<std::string> warnings;
    std::vector<Adapter> adapters;

    void add_stage(Stage stage, double seconds);
};

nlohmann::json to_json(const Report& report);

}  // namespace zoetrope
