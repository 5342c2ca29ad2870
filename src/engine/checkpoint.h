// A run that survives its process: what it needs to go on, written into a state folder between two
// steps and between two segments.
//
// The text and the pictures are encoded again when a run goes on, which gives the same numbers and
// takes seconds; what takes hours, the steps, is kept. The steps of a segment are saved once the
// segment before is finished and saved: until then that one would be made again from its own last
// step. A run that goes on gives the bytes that it would have given. One thread, but for the frames
// that go to the output. Errors: those of StateFolder; bad_request where the run that goes on is
// not the one that was begun.
#pragma once

#include "denoise/loop.h"
#include "engine/engine.h"
#include "engine/output.h"
#include "engine/segment_run.h"
#include "engine/state_folder.h"

#include <optional>
#include <vector>

namespace zoetrope {

// Both kinds of state as tensors and values, and back. Errors: io for values that are none.
std::vector<NamedTensor> tensors_of(const LoopState& state);
nlohmann::json values_of(const LoopState& state);
LoopState loop_state_of(const SavedState& saved);
std::vector<NamedTensor> tensors_of(const Carried& carried);
nlohmann::json values_of(const Carried& carried);
Carried carried_of(const SavedState& saved);

// What the folder's run has decided for itself and another process might decide otherwise: its
// seed, where none is given, and its segments, which follow from what this machine was last
// measured at. Nothing where no run began.
void take_up(Request& request, const StateFolder& folder);

// What the folder's run is: begins it, or (resume) sees that it is this one. Errors: bad_request
// for an unfinished run without resume, and for another run with it.
void begin_or_resume(StateFolder& folder, bool resume, const ResolvedRequest& request,
                     const nlohmann::json& fingerprint);

class Checkpoint {
public:
    // every: steps between saves. All of these live longer than this object.
    Checkpoint(StateFolder& folder, int every, const ResolvedRequest& request, Report& report,
               Output& output);

    // What Engine::generate() is to be given: where the folder's state begins the run, and how it
    // is saved. Brings report and output to that point.
    SegmentHooks hooks();

    // Saves the last step, where it is newer than what the folder has: for runs that end early.
    void save_pending();

private:
    struct Pending {
        int segment = 0;
        LoopState state;
        ReportMark mark;
    };
    void restore(SegmentHooks& hooks);
    void after_step(int segment, const LoopState& state);
    void after_segment(const Carried& carried, const ReportMark& mark);
    void save_loop(const Pending& step);
    nlohmann::json report_so_far(const ReportMark& mark, double seconds_in_loop) const;
    void restore_report(const nlohmann::json& saved);

    StateFolder& folder_;
    int every_;
    const ResolvedRequest& request_;
    Report& report_;
    Output& output_;
    int segment_ = 0;                 // the first that is not finished
    std::size_t loop_begin_ = 0;      // of report_.step_seconds: its first step in this process
    double seconds_before_ = 0;       // of its steps in earlier processes
    std::optional<Pending> pending_;  // the last step, where it is not saved
};

}  // namespace zoetrope
