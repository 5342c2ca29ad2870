// A row of stages that frames pass through, worked off by a fixed number of threads.
//
// Every thread takes the task nearest to the end that can be done: so encoding, drawing, inference
// and decoding share the cores as each needs them, and one thread alone does all. Stages in order
// see the items one by one, in the order of the source, never two at once; other stages see several
// items at once. At most `slots` items are under way, which bounds the memory. Work is given a
// slot's number: the caller keeps its data per slot. The calling thread works too; all threads have
// ended when run_pipeline returns. The first exception ends the run and is thrown again.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

namespace zoetrope::preprocess {

struct PipelineStage {
    std::string name;
    bool in_order = false;
    std::function<void(std::size_t slot)> work;
    // A stage that holds items back (it looks ahead): how many of the source's items may go on
    // after this one was worked on; `ended` once there are no more, when all must be let go. Only
    // for stages in order.
    std::function<std::int64_t(std::int64_t seen, bool ended)> released;
};

struct PipelineOptions {
    int threads = 1;
    std::size_t slots = 4;  // more than any stage holds back
    std::stop_token stop;   // asked between tasks; the run then ends early without an error
};

struct StageTime {
    std::string name;
    double seconds = 0;  // of work, over all threads
};

struct PipelineReport {
    std::int64_t items = 0;
    double seconds = 0;             // wall time
    double idle_seconds = 0;        // threads waiting for something to do, over all threads
    std::vector<StageTime> stages;  // "source" first
};

// source: fills a slot with the next item; false at the end. Never called by two threads at once.
PipelineReport run_pipeline(const PipelineOptions& options,
                            const std::function<bool(std::size_t slot)>& source,
                            const std::vector<PipelineStage>& stages);

}  // namespace zoetrope::preprocess
