#include "engine/driving_clip.h"

#include "base/error.h"
#include "base/log.h"
#include "preprocess/cache.h"

#include <sys/resource.h>

#include <algorithm>
#include <system_error>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using preprocess::Track;

constexpr int kNiceness = 10;   // of the clip's threads: the model's go first
constexpr int kReserve = 8;     // frames kept behind the place of reading, beyond what is known
constexpr int kFaceSide = 512;  // pixels

}  // namespace

DrivingClip::DrivingClip(preprocess::Options options) : options_(std::move(options)) {
    if (open_kept()) return;
    const preprocess::ClipLength length = preprocess::length_of(options_);
    ZT_CHECK(length.frames <= kMostFrames, bad_request,
             "--video has {} frames: accepted are {}, or give --num-frames", length.frames,
             kMostFrames);
    frames_ = static_cast<int>(length.frames);
    damage_ = length.damage;
}

// The videos of an earlier run; whether they are there and whole.
bool DrivingClip::open_kept() {
    const fs::path folder = preprocess::kept_result(options_);
    if (folder.empty()) return false;
    try {
        for (int track = 0; track < tracks_of(options_); ++track)
            kept_tracks_[track] =
                FrameSequence::open(folder / preprocess::file_name_of(static_cast<Track>(track)));
        kept_ = preprocess::report_of(options_, folder);
    } catch (const Error& error) {
        log::warning("the kept videos of the driving clip cannot be used: {}", error.what());
        return false;
    }
    frames_ = kept_tracks_[0].size();
    kept_->frames = frames_;
    return true;
}

std::int64_t DrivingClip::working_bytes() const {
    if (kept_) return 0;
    // Measured with MediaPipe's networks: OpenVINO and six small networks, and what encoders and
    // decoders hold; larger networks are held as they are and packed.
    constexpr std::int64_t kBase = std::int64_t{256} << 20;
    std::int64_t networks = 0;
    for (const fs::path& file : {options_.detector, options_.pose, options_.segmenter}) {
        std::error_code ignored;
        if (fs::is_regular_file(file, ignored))
            networks += 2 * static_cast<std::int64_t>(fs::file_size(file, ignored));
    }
    // Frames under way, each with what is drawn of it.
    constexpr std::int64_t kFramesAhead = 14, kFramesPerThread = 3;
    return kBase + networks +
           (kFramesAhead + kFramesPerThread * options_.threads) * tracks_of(options_) * 3 *
               options_.area;
}

void DrivingClip::attach(VisualInputs& inputs, const plan::SegmentPlan& segments) {
    FrameSequence* into[] = {&inputs.pose, &inputs.face, &inputs.background, &inputs.mask};
    if (!kept_) {
        const std::int64_t pixels = std::max<std::int64_t>(options_.area, kFaceSide * kFaceSide);
        feed_ = std::make_shared<FrameFeed>(
            FeedOptions{.tracks = tracks_of(options_),
                        .size = frames_,
                        .ahead = segments.longest(frames_),
                        .back = segments.overlap + segments.padded_frames + kReserve,
                        .frame_bytes = 3 * pixels});
    }
    for (int track = 0; track < tracks_of(options_); ++track)
        *into[track] = kept_ ? kept_tracks_[track] : FrameSequence(feed_, track);
}

DrivingClip::Run::Run(DrivingClip* clip, int first, const RunControl& control)
    : clip_(clip), outer_(control) {
    control_.stop = control.stop;
    control_.on_progress = [this](const Progress& progress) {
        const std::lock_guard lock(reporting_);
        outer_.report(progress);
    };
    if (clip_ == nullptr || clip_->kept_) return;
    clip_control_.stop = stop_clip_.get_token();
    // While the model computes, its own progress is what counts.
    clip_control_.on_progress = [this](const Progress& progress) {
        if (!clip_->feed_->reader_waits()) return;
        const std::lock_guard lock(reporting_);
        outer_.report(progress);
    };
    const fs::path folder = fs::temp_directory_path() / "zoetrope-clip";
    remove_stale(folder);
    folder_.emplace(folder);
    clip_->feed_->restart(first);
    thread_ = std::jthread([this] { work(); });
}

void DrivingClip::Run::work() {
    // On Linux this is the thread's alone, and its children's.
    ::setpriority(PRIO_PROCESS, 0, kNiceness);
    FrameFeed& feed = *clip_->feed_;
    const std::stop_callback stopped(outer_.stop, [this] { stop_clip_.request_stop(); });
    preprocess::Options options = clip_->options_;
    options.output = folder_->path();
    preprocess::Listener listener;
    listener.frame = [&feed](Track track, Frame frame) {
        feed.push(static_cast<int>(track), std::move(frame));
    };
    listener.person_seen = [&feed] { feed.release(); };
    try {
        result_ = preprocess::run(options, clip_control_, listener);
        feed.end();
    } catch (...) {
        error_ = std::current_exception();
        feed.fail(error_);
    }
}

void DrivingClip::Run::stop() {
    if (!thread_.joinable()) return;
    stop_clip_.request_stop();
    clip_->feed_->stop();
    thread_.join();
}

DrivingClip::Run::~Run() { stop(); }

void DrivingClip::Run::finish(Report& report) {
    if (clip_ == nullptr) return;
    report.preprocessing.emplace();
    if (clip_->kept_) {
        report.preprocessing->clip = *clip_->kept_;
        return;
    }
    clip_->feed_->drain();
    thread_.join();
    report.preprocessing->model_waited = clip_->feed_->reader_waited();
    report.preprocessing->clip_waited = clip_->feed_->filler_waited();
    report.preprocessing->clip = std::move(result_);
    report.preprocessing->clip.files.clear();
    if (!error_) return;
    try {  // all that the model needed had come
        std::rethrow_exception(error_);
    } catch (const Error& error) {
        if (error.kind() == ErrorKind::cancelled) throw;
        log::warning("the driving clip's videos are not kept: {}", error.what());
    }
}

}  // namespace zoetrope
