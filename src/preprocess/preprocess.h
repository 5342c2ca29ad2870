// The first stage of Wan-Animate: a driving clip, and a picture of the character, become the pose
// and face videos that the model is driven by, and for replacement the background and mask videos.
//
// Writes src_pose.mp4, src_face.mp4, with `replace` src_bg.mp4 and src_mask.mp4, with a picture
// src_ref.png, into a folder that it makes: the names that the Wan2.2 repository uses. Each file is
// complete or absent. Frames are decoded, looked at, drawn and encoded by `threads` threads in all;
// memory does not grow with the clip's length. The same inputs and options give the same files.
// Any thread may call run(), several at once.
// Errors: bad_request (options, no person in the picture, a bad frame with BadFrames::stop),
// not_found, io, unsupported, cancelled.
#pragma once

#include "base/progress.h"
#include "preprocess/identity.h"
#include "preprocess/mask.h"
#include "preprocess/pipeline.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace zoetrope::preprocess {

struct Options {
    std::filesystem::path video;             // the driving clip, or a folder of pictures
    std::filesystem::path image;             // the character; may be empty
    std::filesystem::path edited_reference;  // the character in a plain pose, for retargeting
    std::filesystem::path output;            // a folder
    bool replace = false;
    bool retarget = false;
    std::int64_t area = 1280 * 720;  // pixels, the most that a frame may have
    double fps = 30;                 // 0: the clip's own
    PersonChoice person;
    BadFrames bad_frames = BadFrames::hold;
    MaskOptions mask;
    std::filesystem::path detector;  // YOLOv10 and ViTPose, ONNX; both or neither
    std::filesystem::path pose;
    std::filesystem::path mediapipe;  // the folder of MediaPipe's networks
    std::filesystem::path segmenter;  // ONNX, for masks; empty: the body network's outlines
    std::int64_t max_frames = 0;      // of the videos, from the first; 0: all
    int threads = 1;
    std::filesystem::path cache;  // where results are kept; empty: nowhere
};

struct BadFrame {
    std::int64_t frame = 0;
    std::string reason;
};

struct Report {
    std::int64_t frames = 0;
    double fps = 0;
    int width = 0;  // of the pose video
    int height = 0;
    std::string networks;              // "mediapipe" or "onnx"
    std::vector<BadFrame> bad_frames;  // without the person followed
    std::int64_t filled_frames = 0;    // of them: another frame's pose stands in
    std::int64_t empty_frames = 0;     // of them: nothing is drawn
    std::vector<std::int64_t> cuts;    // frames with which a new shot begins
    std::int64_t crowded_frames = 0;   // with several people
    std::string damage;                // why the clip ends early; empty where it is whole
    PipelineReport pipeline;
    bool from_cache = false;  // then only frames and files are known
    std::vector<std::filesystem::path> files;
};

// The videos that are made, and what a run tells of them while it makes them.
enum class Track { pose, face, background, mask };
inline constexpr int kTracks = 4;
// "src_pose.mp4", ...
const char* file_name_of(Track track);
// How many of them a run makes: without `replace` the first two.
int tracks_of(const Options& options);

struct Listener {
    // A frame as a reader of the finished file will see it. Each track's in their order; frames of
    // several tracks may come from several threads at once. May wait: the run then waits too.
    std::function<void(Track, Frame)> frame;
    // The person is seen, for the first time.
    std::function<void()> person_seen;
    // What was found in a frame, in their order: points are in pixels of the clip's frames, with
    // `replace` of the videos'.
    std::function<void(const JoinedFrame&)> joined;
};

// Throws unless the clip is there and the options go together. The functions below begin with it.
void check(const Options& options);

// Reports Stage::preprocess to the control's sink, frame by frame.
Report run(const Options& options, const RunControl& control, const Listener& listener = {});

// How long the videos will be. Decodes the clip once from end to end.
struct ClipLength {
    std::int64_t frames = 0;
    double fps = 0;
    std::string damage;  // why the clip ends early; empty where it is whole
};
ClipLength length_of(const Options& options);

// How each of the videos' frames shares out its colours, for scene changes. Decodes the clip once.
std::vector<ColorShares> colors_of(const Options& options);

// The folder in options.cache with what run() would make, from an earlier run; empty where there is
// none. It is then the newest, and so the last to be removed.
std::filesystem::path kept_result(const Options& options);
// What is known of it: the frames and the files.
Report report_of(const Options& options, const std::filesystem::path& folder);

// The networks in a process_checkpoint folder (det/yolov10m.onnx, pose2d/vitpose_h_wholebody.onnx):
// sets Options::detector and Options::pose. Errors: not_found.
void use_process_checkpoint(const std::filesystem::path& folder, Options& options);

}  // namespace zoetrope::preprocess
