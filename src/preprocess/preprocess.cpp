#include "preprocess/preprocess.h"

#include "base/error.h"
#include "media/reader.h"
#include "media/writer.h"
#include "preprocess/cache.h"
#include "preprocess/estimator.h"
#include "preprocess/face_box.h"
#include "preprocess/frame_rate.h"
#include "preprocess/kept_results.h"
#include "preprocess/picture.h"
#include "preprocess/pose_drawing.h"
#include "preprocess/retarget.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <optional>
#include <utility>

namespace zoetrope::preprocess {
namespace fs = std::filesystem;
namespace {

constexpr int kQuality = 8;  // constant rate factor of H.264: no loss that an eye would see
constexpr int kFewestPixels = 64 * 64;
// Several would decode several frames at once, and where a damaged clip then ends is chance: a run
// counts on the length that was found before.
constexpr int kDecoderThreads = 1;

// The data of one frame on its way.
struct Slot {
    Frame frame;
    FrameAnalysis analysis;
    JoinedFrame joined;
    Frame pose, face, background, mask;
};

std::unique_ptr<PersonEstimator> make_estimator(const Options& options) {
    const EstimatorOptions how{.threads = options.threads,
                               .masks = options.replace && options.segmenter.empty()};
    auto people = options.detector.empty()
                      ? make_mediapipe_estimator(options.mediapipe, how)
                      : make_onnx_estimator(options.detector, options.pose, options.mediapipe, how);
    if (options.segmenter.empty()) return people;
    return make_segmented_estimator(std::move(people), options.segmenter, options.threads);
}

// The work on one clip; one object per run.
class Run {
public:
    Run(const Options& options, const RunControl& control, const Listener& listener,
        const PersonEstimator& estimator)
        : options_(options),
          control_(control),
          listener_(listener),
          estimator_(estimator),
          reader_(options.video, {.threads = kDecoderThreads}),
          fps_(options.fps > 0 ? options.fps : reader_.info().fps),
          sampler_([this] { return reader_.read(); }, reader_.info().fps, options.fps),
          joiner_(options.person, options.bad_frames, fps_ > 0 ? fps_ : 1) {
        if (!(fps_ > 0)) fps_ = 1;  // a picture
        if (options.fps > 0)
            frames_expected_ = static_cast<std::int64_t>(reader_.info().seconds * fps_);
        else
            frames_expected_ = reader_.info().frames;
        if (options.max_frames > 0)
            frames_expected_ = std::min(frames_expected_, options.max_frames);
        // Joining holds some back, and every thread has some in hand.
        slots_.resize(
            static_cast<std::size_t>(IdentityJoiner::kLookAhead + 3 * options.threads + 2));
    }

    Report work() {
        started_ = std::chrono::steady_clock::now();
        prepare_sizes();
        open_writers();
        const auto stages = make_stages();
        PipelineOptions pipeline{
            .threads = options_.threads, .slots = slots_.size(), .stop = control_.stop};
        const auto fill = [this](std::size_t slot) { return read_into(slots_[slot]); };
        report_progress();
        report_.pipeline = run_pipeline(pipeline, fill, stages);
        control_.throw_if_stopped();
        ZT_CHECK(report_.frames > 0, io, "{}: no frame could be read", options_.video.string());
        ZT_CHECK(
            report_.bad_frames.size() < static_cast<std::size_t>(report_.frames), bad_request,
            "nobody was found in any of the {} frames of {}: is a person to be seen, and large "
            "enough?",
            report_.frames, options_.video.string());
        for (auto* writer : {&pose_, &face_, &background_, &mask_}) {
            if (!*writer) continue;
            for (auto& file : (*writer)->finish()) report_.files.push_back(std::move(file));
        }
        write_reference();
        report_.damage = reader_.damage();
        report_.fps = fps_;
        report_.width = size_.width;
        report_.height = size_.height;
        report_.networks = options_.detector.empty() ? "mediapipe" : "onnx";
        return std::move(report_);
    }

private:
    bool read_into(Slot& slot) {
        control_.throw_if_stopped();
        if (options_.max_frames > 0 && read_ == options_.max_frames) return false;
        auto frame = first_ ? std::exchange(first_, std::nullopt) : sampler_.next();
        if (!frame) return false;
        ++read_;
        slot = {};
        slot.frame = std::move(*frame);
        return true;
    }

    // The first frame and the picture say how large the videos become.
    void prepare_sizes() {
        first_ = sampler_.next();
        ZT_CHECK(first_, io, "{}: no frame could be read", options_.video.string());
        frame_size_ = {first_->width, first_->height};
        if (options_.replace) frame_size_ = size_by_area(frame_size_, options_.area);
        size_ = options_.replace ? frame_size_ : size_by_area(frame_size_, options_.area);
        if (options_.image.empty()) return;
        reference_ = read_picture(options_.image);
        if (options_.replace) return;
        const Frame reference = resize_by_area(reference_, options_.area);
        size_ = {reference.width, reference.height};
        if (!options_.retarget) return;
        character_ = posed(reference, "--image");
        if (options_.edited_reference.empty()) return;
        const Frame edited = read_picture(options_.edited_reference);
        edited_ = posed(padded_resize(edited, size_.width, size_.height), "--edited-reference");
    }

    PosedPicture posed(const Frame& picture, const char* flag) const {
        const auto people = estimator_.find(picture);
        ZT_CHECK(!people.empty(), bad_request,
                 "{}: nobody was found in that picture, whose proportions --retarget needs", flag);
        return {people.front().points, {picture.width, picture.height}};
    }

    void open_writers() {
        const auto open = [this](std::optional<VideoWriter>& writer, Track track) {
            WriteOptions how{.fps = fps_, .crf = kQuality, .quick = true};
            if (listener_.frame)
                how.echo = [this, track](Frame frame) { listener_.frame(track, std::move(frame)); };
            writer.emplace(options_.output / file_name_of(track), how);
        };
        open(pose_, Track::pose);
        open(face_, Track::face);
        if (!options_.replace) return;
        open(background_, Track::background);
        open(mask_, Track::mask);
    }

    std::vector<PipelineStage> make_stages() {
        std::vector<PipelineStage> stages;
        stages.push_back({.name = "infer", .work = [this](std::size_t i) { infer(slots_[i]); }});
        stages.push_back({.name = "join",
                          .in_order = true,
                          .work = [this](std::size_t i) { join(i); },
                          .released = [this](std::int64_t, bool ended) { return release(ended); }});
        stages.push_back({.name = "draw", .work = [this](std::size_t i) { draw(slots_[i]); }});
        const auto encode = [&](const char* name, VideoWriter& writer, Frame Slot::*frame) {
            stages.push_back(
                {.name = name, .in_order = true, .work = [this, &writer, frame](std::size_t i) {
                     writer.write(slots_[i].*frame);
                     slots_[i].*frame = {};
                 }});
        };
        encode("encode pose", *pose_, &Slot::pose);
        encode("encode face", *face_, &Slot::face);
        if (background_) encode("encode background", *background_, &Slot::background);
        if (mask_) encode("encode mask", *mask_, &Slot::mask);
        stages.push_back({.name = "report", .in_order = true, .work = [this](std::size_t i) {
                              note(slots_[i].joined);
                              report_progress();
                          }});
        return stages;
    }

    void infer(Slot& slot) const {
        if (options_.replace && Size{slot.frame.width, slot.frame.height} != frame_size_)
            slot.frame = resize_by_area(slot.frame, options_.area);
        slot.analysis.people = estimator_.find(slot.frame);
        slot.analysis.colors = color_shares_of(slot.frame);
        slot.analysis.width = slot.frame.width;
        slot.analysis.height = slot.frame.height;
    }

    void join(std::size_t i) {
        const auto& people = slots_[i].analysis.people;
        const auto sure = std::count_if(people.begin(), people.end(),
                                        [](const Person& person) { return person.sure; });
        if (sure > 1) ++report_.crowded_frames;
        waiting_.push_back(i);
        joiner_.push(std::move(slots_[i].analysis));
    }

    // Hands the joined frames to their slots.
    std::int64_t release(bool ended) {
        if (ended) joiner_.end();
        while (released_ < joiner_.ready()) {
            const JoinedFrame& joined = slots_[waiting_.front()].joined = joiner_.take();
            waiting_.pop_front();
            ++released_;
            if (character_ && !retargeter_ && joined.person)
                retargeter_.emplace(PosedPicture{joined.person->points, frame_size_}, *character_,
                                    edited_);
        }
        return released_;
    }

    void draw(Slot& slot) const {
        const auto& person = slot.joined.person;
        if (retargeter_) {
            slot.pose = Frame(size_.width, size_.height);
            if (person) draw_pose(slot.pose, retargeter_->fit(person->points));
        } else {
            Frame canvas(slot.frame.width, slot.frame.height);
            if (person) draw_pose(canvas, drawn_pose_of(person->points));
            slot.pose = padded_resize(canvas, size_.width, size_.height);
        }
        slot.face = face_of(slot);
        if (!options_.replace) return;
        const Mask mask =
            augmented(person ? mask_of(person->mask, slot.frame.width, slot.frame.height)
                             : Mask(slot.frame.width, slot.frame.height),
                      options_.mask);
        slot.background = blanked(slot.frame, mask);
        slot.mask = frame_of(mask);
        slot.frame = {};
    }

    // Black where no face was seen so far.
    static Frame face_of(const Slot& slot) {
        const Frame& frame = slot.frame;
        if (slot.joined.face) {
            const Box& box = *slot.joined.face;
            const auto inside = [](float v, int end) {
                return static_cast<int>(std::clamp(v, 0.0F, static_cast<float>(end)));
            };
            const int x0 = inside(box.x0, frame.width);
            const int x1 = inside(box.x1, frame.width);
            const int y0 = inside(box.y0, frame.height);
            const int y1 = inside(box.y1, frame.height);
            if (x0 < x1 && y0 < y1)
                return resize_linear(cropped(frame, x0, y0, x1, y1), kFaceSide, kFaceSide);
        }
        return Frame(kFaceSide, kFaceSide);
    }

    void note(const JoinedFrame& joined) {
        ++report_.frames;
        if (listener_.joined) listener_.joined(joined);
        if (!joined.found) {
            report_.bad_frames.push_back({joined.frame, joined.why_not});
            ++(joined.person ? report_.filled_frames : report_.empty_frames);
        }
        if (joined.found && !std::exchange(seen_, true) && listener_.person_seen)
            listener_.person_seen();
        if (joined.cut) report_.cuts.push_back(joined.frame);
    }

    void report_progress() const {
        const double seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
        const std::int64_t all = std::max(frames_expected_, report_.frames);
        Progress progress{.stage = Stage::preprocess,
                          .step = static_cast<int>(report_.frames),
                          .steps = static_cast<int>(std::max<std::int64_t>(all, 1)),
                          .seconds = seconds};
        if (report_.frames > 0)
            progress.predicted_seconds_left = seconds / static_cast<double>(report_.frames) *
                                              static_cast<double>(all - report_.frames);
        control_.report(progress);
    }

    void write_reference() {
        if (options_.image.empty()) return;
        VideoWriter writer(options_.output / "src_ref.png", {});
        writer.write(reference_);
        for (auto& file : writer.finish()) report_.files.push_back(std::move(file));
    }

    const Options& options_;
    const RunControl& control_;
    const Listener& listener_;
    const PersonEstimator& estimator_;
    VideoReader reader_;
    double fps_;
    FrameSampler sampler_;
    IdentityJoiner joiner_;
    std::vector<Slot> slots_;
    std::deque<std::size_t> waiting_;  // slots of the frames that the joiner holds
    std::int64_t released_ = 0;
    std::optional<Frame> first_;
    Size frame_size_;  // of the frames that are looked at
    Size size_;        // of the pose video
    Frame reference_;
    std::optional<PosedPicture> character_;
    std::optional<PosedPicture> edited_;
    std::optional<Retargeter> retargeter_;
    std::optional<VideoWriter> pose_, face_, background_, mask_;
    std::int64_t frames_expected_ = 0;
    std::int64_t read_ = 0;
    bool seen_ = false;  // the person was, in some frame
    std::chrono::steady_clock::time_point started_;
    Report report_;
};

}  // namespace

const char* file_name_of(Track track) {
    switch (track) {
        case Track::pose: return "src_pose.mp4";
        case Track::face: return "src_face.mp4";
        case Track::background: return "src_bg.mp4";
        case Track::mask: return "src_mask.mp4";
    }
    return "";
}

int tracks_of(const Options& options) { return options.replace ? kTracks : 2; }

void check(const Options& options) {
    ZT_CHECK(!options.video.empty(), bad_request, "--video is missing: give the driving clip");
    ZT_CHECK(fs::exists(options.video), not_found,
             "--video is '{}': there is no such file or folder", options.video.string());
    ZT_CHECK(options.area >= kFewestPixels, bad_request,
             "--resolution-area has {} pixels: accepted are {} and more", options.area,
             kFewestPixels);
    ZT_CHECK(!options.retarget || !options.image.empty(), bad_request,
             "--retarget fits the pose to a character: give its picture with --image");
    ZT_CHECK(options.edited_reference.empty() || options.retarget, bad_request,
             "--edited-reference is used by --retarget only: give both or neither");
    ZT_CHECK(!options.retarget || !options.replace, bad_request,
             "--retarget is not for replacement, where the person stays as it is: take one of "
             "them");
    ZT_CHECK(options.detector.empty() == options.pose.empty(), bad_request,
             "--det-model and --pose-model belong together: give both or neither");
    ZT_CHECK(options.segmenter.empty() || options.replace, bad_request,
             "--segmenter draws masks, which only replacement (--replace, --task replace) has: "
             "leave it out");
    ZT_CHECK(options.threads >= 1, bad_request, "--threads is {}: accepted are 1 and more",
             options.threads);
    augmented(Mask(1, 1), options.mask);  // refuses what is out of range
}

Report run(const Options& options, const RunControl& control, const Listener& listener) {
    check(options);
    std::string key;
    if (!options.cache.empty()) {
        key = result_key(options);
        // Who listens waits for frames, which files that are there already do not give.
        if (!listener.frame && !listener.joined &&
            take_from_cache(options.cache, key, options.output))
            return report_of(options, options.output);
    }
    const auto estimator = make_estimator(options);
    Report report = Run(options, control, listener, *estimator).work();
    if (!options.cache.empty()) put_into_cache(options.cache, key, report.files);
    return report;
}

ClipLength length_of(const Options& options) {
    check(options);
    VideoReader reader(options.video, {.threads = kDecoderThreads});
    const auto next = [&]() -> std::optional<TimedFrame> {
        const auto seconds = reader.skip();
        if (!seconds) return std::nullopt;
        return TimedFrame{Frame(), *seconds};
    };
    FrameSampler sampler(next, reader.info().fps, options.fps);
    ClipLength length;
    length.fps = options.fps > 0 ? options.fps : reader.info().fps;
    if (!(length.fps > 0)) length.fps = 1;  // a picture
    while ((options.max_frames == 0 || length.frames < options.max_frames) && sampler.next())
        ++length.frames;
    length.damage = reader.damage();
    return length;
}

std::vector<ColorShares> colors_of(const Options& options) {
    check(options);
    VideoReader reader(options.video, {.threads = kDecoderThreads});
    FrameSampler sampler([&] { return reader.read(); }, reader.info().fps, options.fps);
    std::vector<ColorShares> colors;
    const auto most = static_cast<std::size_t>(options.max_frames);
    while (most == 0 || colors.size() < most) {
        const auto frame = sampler.next();
        if (!frame) break;
        colors.push_back(color_shares_of(*frame));
    }
    return colors;
}

void use_process_checkpoint(const fs::path& folder, Options& options) {
    options.detector = folder / "det" / "yolov10m.onnx";
    options.pose = folder / "pose2d" / "vitpose_h_wholebody.onnx";
    for (const fs::path& file : {options.detector, options.pose}) {
        ZT_CHECK(fs::exists(file), not_found,
                 "{}: there is no such file, which a process_checkpoint folder has", file.string());
    }
}

}  // namespace zoetrope::preprocess
