// A driving clip on its way into an Animate model.
//
// Private to the engine's sources. resolve() makes one: the clip is decoded once, so that its
// length and its damage are known before any work, or the videos that an earlier run made of it are
// found. While a DrivingClip::Run lives, threads of lower priority than the model's turn the clip
// into pose, face, background and mask videos, at most a segment ahead of what the run reads of
// them. The frames are those that `zoetrope preprocess` writes, as a reader of its files sees them.
// Owns its temporary files; those of a run that was killed the next one removes. One Run at a time.
// Errors: those of preprocess::run.
#pragma once

#include "base/partial_file.h"
#include "engine/engine.h"
#include "engine/report.h"
#include "media/frame_feed.h"
#include "preprocess/preprocess.h"

#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace zoetrope {

class DrivingClip {
public:
    // options: complete but for `output`.
    explicit DrivingClip(preprocess::Options options);

    int frames() const { return frames_; }
    // Whether an earlier run made its videos.
    bool is_kept() const { return kept_.has_value(); }
    // Why the clip ends early; empty where it is whole.
    const std::string& damage() const { return damage_; }

    // What making the videos takes beside the frames that wait to be read; nothing where they are
    // there.
    std::int64_t working_bytes() const;

    // How each frame shares out its colours, for scene changes. Decodes the clip once more.
    std::vector<preprocess::ColorShares> colors() const { return preprocess::colors_of(options_); }

    // Puts the clip's videos into the inputs. segments: in which they will be read.
    void attach(VisualInputs& inputs, const plan::SegmentPlan& segments);

    class Run;

private:
    bool open_kept();

    preprocess::Options options_;
    int frames_ = 0;
    std::string damage_;
    std::optional<preprocess::Report> kept_;  // of an earlier run
    FrameSequence kept_tracks_[preprocess::kTracks];
    std::shared_ptr<FrameFeed> feed_;  // without one
};

class DrivingClip::Run {
public:
    // clip: may be null, where nothing is to be done. first: the first frame that will be read.
    Run(DrivingClip* clip, int first, const RunControl& control);
    ~Run();  // stops what still runs
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

    // The run's own; never calls the sink at the same time as the clip's threads do.
    const RunControl& control() const { return control_; }

    // Waits for the rest of the clip, so that its videos are kept for the next run, and reports.
    void finish(Report& report);

private:
    void work();
    void stop();

    DrivingClip* clip_;
    const RunControl& outer_;
    std::mutex reporting_;
    RunControl control_, clip_control_;
    std::stop_source stop_clip_;
    std::optional<PartialFolder> folder_;  // for the files, which the cache copies
    preprocess::Report result_;
    std::exception_ptr error_;
    std::jthread thread_;
};

}  // namespace zoetrope
