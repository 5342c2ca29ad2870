// A request: everything that decides what is generated, and nothing about how a shell got it.
//
// Plain values with the defaults of a user who says nothing. std::nullopt means "the model's own
// default"; resolve() in engine.h fills those in and rounds sizes.
#pragma once

#include "plan/segments.h"
#include "preprocess/preprocess.h"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope {

enum class Task { automatic, t2v, t2i, i2v, flf2v, v2v, vace, animate, replace };
std::string_view name_of(Task task);
bool is_driven(Task task);  // by the videos of a moving person: animate, replace
// "t2v", "text-to-video", ... Errors: bad_request with the names accepted.
Task parse_task(std::string_view text);

// Limits beyond which a request is a typing error rather than a wish.
inline constexpr int kLargestSide = 1 << 14;  // pixels
inline constexpr int kMostFrames = 1 << 17;
inline constexpr int kMostSteps = 1000;  // the time steps that Wan was trained on
inline constexpr int kMostOutputs = 1024;

enum class OutputType { video, latent, tensor };
OutputType parse_output_type(std::string_view text);

// What of a segment's last frames conditions the next: the frames, encoded anew, or their latents
// as they were denoised.
enum class Carry { pixels, latents };
std::string_view name_of(Carry carry);
Carry parse_carry(std::string_view text);

// Frames that two segments share: last hands out the earlier segment's and drops the later one's
// (Wan2.2's and Diffusers' way, which carries the last frames over); linear and cosine go over from
// one to the other.
enum class OverlapFusion { last, linear, cosine };
std::string_view name_of(OverlapFusion fusion);
OverlapFusion parse_overlap_fusion(std::string_view text);

struct JoinOptions {
    Carry carry = Carry::pixels;
    OverlapFusion fusion = OverlapFusion::last;
    bool color_match = false;  // a segment gets the colours of the frames that it goes on from
};

struct Request {
    Task task = Task::automatic;
    std::string prompt;
    std::optional<std::string> negative_prompt;

    // Pictures and videos; empty: none.
    std::filesystem::path image, last_image;              // first and last frame
    std::vector<std::filesystem::path> reference_images;  // vace
    std::filesystem::path video;  // v2v: the source; vace: the control; animate: the driving clip
    std::filesystem::path mask_video;                                // vace: white is made anew
    std::filesystem::path pose_video, face_video, background_video;  // animate, replace
    std::optional<double> strength;            // v2v: part of the steps that is run, default 0.8
    std::optional<double> conditioning_scale;  // vace: weight of the control, default 1

    // animate, replace: how `video` is looked at. The engine adds inputs, rate, length and threads.
    preprocess::Options preprocessing;
    bool own_area = false;           // preprocessing.area is the user's; else an embedded model's
    std::string preprocessing_flag;  // one that was given, for messages; empty: none

    // Long videos; unset: the task's own way.
    std::optional<std::string> segment_policy;  // off, vanilla, auto, auto_lim, exact
    std::optional<int> segment_length, segment_max_length, segment_overlap;  // frames
    std::optional<Carry> carry;                                              // default: pixels
    std::optional<OverlapFusion> overlap_fusion;                             // default: last
    bool color_match = false;
    // Whether a segment is decoded beside the denoising of the next, where the next needs none of
    // its frames; unset: where the two have devices of their own. Results are the same.
    std::optional<bool> decode_behind;
    // animate, replace: carry (a border at each scene change of the driving video) or restart;
    // unset: scene changes are not looked for
    std::optional<std::string> cut_policy;

    // Those that an earlier process cut the same run into; taken where they are of its length.
    std::optional<plan::SegmentPlan> earlier_segments;

    std::optional<int> height;      // pixels
    std::optional<int> width;       // pixels
    std::optional<int> num_frames;  // 4n + 1
    std::optional<double> fps;      // frames per second of the written video

    std::optional<int> num_inference_steps;
    std::optional<double> guidance_scale;
    std::optional<double> guidance_scale_2;  // of the low-noise expert
    std::optional<double> boundary_ratio;
    std::string scheduler = "auto";
    std::optional<double> flow_shift;
    std::optional<std::string> sigma_schedule;  // simple, beta, karras or exponential
    // Noise levels of the steps as they are, from high to low; they also say how many steps run.
    std::optional<std::vector<double>> sigmas;

    std::optional<std::uint64_t> seed;  // unset: drawn, reported and stored
    int num_outputs = 1;
    std::filesystem::path latents;  // initial noise instead of the seed

    OutputType output_type = OutputType::video;
};

}  // namespace zoetrope
