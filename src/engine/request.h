// A request: everything that decides what is generated, and nothing about how a shell got it.
//
// Plain values with the defaults of a user who says nothing. std::nullopt means "the model's own
// default"; resolve() in engine.h fills those in and rounds sizes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace zoetrope {

enum class Task { automatic, t2v, t2i, i2v, flf2v, v2v, vace, animate, replace };
std::string_view name_of(Task task);
// "t2v", "text-to-video", ... Errors: bad_request with the names accepted.
Task parse_task(std::string_view text);

// Limits beyond which a request is a typing error rather than a wish.
inline constexpr int kLargestSide = 1 << 14;  // pixels
inline constexpr int kMostFrames = 1 << 17;
inline constexpr int kMostSteps = 1000;  // the time steps that Wan was trained on
inline constexpr int kMostOutputs = 1024;

enum class OutputType { video, latent, tensor };
OutputType parse_output_type(std::string_view text);

struct Request {
    Task task = Task::automatic;
    std::string prompt;
    std::optional<std::string> negative_prompt;

    // Pictures and videos; empty: none.
    std::filesystem::path image, last_image;              // first and last frame
    std::vector<std::filesystem::path> reference_images;  // vace
    std::filesystem::path video;                          // v2v: the source; vace: the control
    std::filesystem::path mask_video;                     // vace: white is made anew
    std::filesystem::path pose_video, face_video, background_video;  // animate, replace
    std::optional<double> strength;            // v2v: part of the steps that is run, default 0.8
    std::optional<double> conditioning_scale;  // vace: weight of the control, default 1

    // Long videos; unset: the task's own way.
    std::optional<std::string> segment_policy;  // off, vanilla, auto, auto_lim, exact
    std::optional<int> segment_length, segment_max_length, segment_overlap;  // frames

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
