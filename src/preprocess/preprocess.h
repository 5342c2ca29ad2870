// The first stage of Wan-Animate: a driving clip, and a picture of the character, become the pose
// and face videos that the model is driven by, and for replacement the background and mask videos.
//
// Writes src_pose.mp4, src_face.mp4, with `replace` src_bg.mp4 and src_mask.mp4, with a picture
// src_ref.png, into a folder that it makes: the names that the Wan2.2 repository uses. Each file is
// complete or absent. Frames are decoded, looked at, drawn and encoded by `threads` threads in all
// (FFmpeg's decoder has threads of its own); memory does not grow with the clip's length. The same
// inputs, options and thread count give the same files. Any thread may call run(), several at once.
// Errors: bad_request (options, no person in the picture, a bad frame with BadFrames::stop),
// not_found, io, unsupported, cancelled.
#pragma once

#include "base/progress.h"
#include "preprocess/identity.h"
#include "preprocess/mask.h"
#include "preprocess/pipeline.h"

#include <cstdint>
#include <filesystem>
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
    std::string networks;  // "mediapipe" or "onnx"
    std::vector<BadFrame> bad_frames;
    std::vector<std::int64_t> cuts;   // frames with which a new shot begins
    std::int64_t crowded_frames = 0;  // with several people
    std::string damage;               // why the clip ends early; empty where it is whole
    PipelineReport pipeline;
    bool from_cache = false;  // then only frames and files are known
    std::vector<std::filesystem::path> files;
};

// Reports Stage::preprocess to the control's sink, frame by frame.
Report run(const Options& options, const RunControl& control);

// The networks in a process_checkpoint folder (det/yolov10m.onnx, pose2d/vitpose_h_wholebody.onnx):
// sets Options::detector and Options::pose. Errors: not_found.
void use_process_checkpoint(const std::filesystem::path& folder, Options& options);

}  // namespace zoetrope::preprocess
