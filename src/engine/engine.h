// The engine: a model's parts joined into stages, and the only room that knows the whole story.
//
// The parts can be called alone (encode_text, encode_visual, draw_noise, denoise, decode);
// generate() is their composition. An Engine owns its model's parts and decides which of them are
// in memory: a part is loaded when its stage begins and, unless `keep_resident`, let go when the
// stage ends. One Engine runs one call at a time (not thread-safe); operators use all threads.
// Errors: zoetrope::Error only, with a sentence for the user.
#pragma once

#include "base/frames.h"
#include "base/progress.h"
#include "engine/adapters.h"
#include "engine/model_folder.h"
#include "engine/report.h"
#include "engine/request.h"
#include "media/frame_sequence.h"
#include "plan/cost.h"
#include "plan/segments.h"

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace zoetrope {

class DrivingClip;
struct SegmentHooks;  // segment_run.h

struct EngineOptions {
    std::string dtype =
        "auto";  // bf16, fp16 or fp32 of all parts; auto: bf16 where the device computes in it
    std::string quantization = "none";  // of the transformer's matrices; int8, int8-weight-only
    std::string device = "cpu";
    std::int64_t max_memory = 0;  // bytes; 0: no limit but the machine's
    int threads = 0;              // of operators on the CPU, process-wide; 0: the usable cores
    bool keep_resident = false;   // parts stay loaded between calls (a server)

    std::vector<AdapterChoice> adapters;
    std::string lora_mode = "runtime";    // or "merged"
    std::filesystem::path lora_registry;  // empty: the one beside the embedded models
    bool lora_allow_unmatched = false;    // leave out what an adapter has too much

    std::filesystem::path cost_folder;  // of calibrations; empty: plan::cache_folder()
    // Segments that are denoised in less time say little about the machine, and runs do not store
    // them.
    double cost_least_seconds = 5;
    // Nor are those of a run whose threads waited for cores longer than this part of the time that
    // they ran: other programs' load was measured then. A quiet run waits for 2 %.
    double cost_most_waiting = 0.1;

    bool operator==(const EngineOptions&) const = default;
};

// A request's pictures and videos: 8-bit frames in the sizes of their files. Copies share the
// videos and the place in them.
struct VisualInputs {
    std::optional<Frame> image, last_image;
    std::vector<Frame> reference_images;
    FrameSequence video, mask;  // a mask of one frame is for all of the video's
    FrameSequence pose, face, background;

    bool empty() const { return !image && reference_images.empty() && video.empty(); }
};

// A request with every default filled in and every size rounded to what the model takes.
struct ResolvedRequest {
    Request request;  // as given
    Task task = Task::t2v;
    int height = 0, width = 0, num_frames = 0;
    double fps = 0;
    int num_inference_steps = 0;
    double guidance_scale = 0, guidance_scale_2 = 0;
    std::optional<double> boundary_ratio;  // unset: one expert does all steps
    std::string negative_prompt;
    double strength = 1, conditioning_scale = 1;
    plan::SegmentPlan segments;  // one segment at least
    JoinOptions joins;
    bool decode_behind = false;           // a segment is decoded while the next is denoised
    std::vector<int> cuts;                // animate, replace: first frames of new shots
    std::vector<double> segment_seconds;  // predicted, one per segment
    std::string cost_source;              // of that prediction
    int first_step = 0, last_step = 0;    // of the scheduler's time steps: [first, last)
    VisualInputs inputs;
    // animate and replace with `video`: where the inputs' pose, face, background and mask come from
    // while generate() runs.
    std::shared_ptr<DrivingClip> clip;
    std::uint64_t seed = 0;
    std::vector<std::string> warnings;  // one sentence each: what was rounded or replaced

    bool guidance() const {
        return guidance_scale > 1;
    }  // for both experts, as Diffusers decides it
};

// Embeddings of the prompt and, with guidance, of the negative prompt.
struct TextEmbeddings {
    at::Tensor prompt;    // [1, 512, text_dim] compute dtype, zeros behind the real tokens
    at::Tensor negative;  // the same; undefined without guidance
};

// Pictures and videos as the denoiser takes them; undefined where the run has none. On the CPU.
struct VisualConditions {
    at::Tensor image;         // [n, 257, image_dim]: CLIP's embeddings of n pictures
    at::Tensor channels;      // [1, 4 + z, F, h, w] fp32: which frames are given, and their latents
    at::Tensor known_frames;  // [1, z, n, h, w] fp32: the first latent frames themselves
    at::Tensor kept_frames;   // the same, for models that are told of none (DenoiseOptions)
    at::Tensor control;       // [1, 2 z + 64, references + F, h, w] fp32
    at::Tensor source;        // [1, z, F, h, w] fp32: the video that is changed
    at::Tensor pose;          // [1, z, F, h, w] fp32
    at::Tensor faces;         // [1, 3, frames, size, size] fp32 in [-1, 1]
};

// Takes finished frames in order: output b, frames [3, n, H, W] fp32 in [0, 1] on the CPU.
// generate() calls it from a thread of its own, which is done with it when generate() returns.
using FrameCallback = std::function<void(int output, const at::Tensor& frames)>;

class Engine {
public:
    // Reads configs and file headers, no weights. Errors: not_found, io, unsupported.
    Engine(ModelFolder model, const EngineOptions& options);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    const ModelFolder& model() const;
    std::string dtype() const;  // "bf16": what the parts compute in
    std::string quantization() const;
    std::string device() const;  // "cpu", "cuda:0"

    // Puts other adapters in the place of those of the options. What is in memory stays there, and
    // takes as long as reading them. Errors: as of the constructor; the adapters are then as
    // before.
    void set_adapters(const std::vector<AdapterChoice>& choices);
    const std::vector<AdapterFile>& adapters() const;
    std::string lora_mode() const;
    // What became of them, by transformer.
    std::vector<Report::Adapter> adapter_reports() const;

    // Fills in defaults and checks the request against the model. Errors: bad_request, unsupported.
    ResolvedRequest resolve(const Request& request) const;

    // What memory the run will take, by stage, in bytes. Numbers only, nothing is loaded.
    MemoryPlan plan_memory(const ResolvedRequest& request) const;

    TextEmbeddings encode_text(const ResolvedRequest& request, const RunControl& control,
                               Report& report);

    VisualConditions encode_visual(const ResolvedRequest& request, const RunControl& control,
                                   Report& report);

    // The noise that Diffusers draws for that seed: [num_outputs, C, F, h, w] fp32. Or the user's
    // latents file. F counts a frame for each reference picture.
    at::Tensor draw_noise(const ResolvedRequest& request) const;

    // Steps [from_step, to_step) of the schedule over latents [B, C, F, h, w] fp32 -> the same.
    // Started in the middle, multistep schedulers begin with a first-order step.
    at::Tensor denoise(const ResolvedRequest& request, const TextEmbeddings& text,
                       const VisualConditions& visual, int from_step, int to_step,
                       const at::Tensor& latents, const RunControl& control, Report& report);

    // Latents -> frames, chunk by chunk; all frames of output 0 come before those of output 1.
    void decode(const at::Tensor& latents, const FrameCallback& sink, const RunControl& control,
                Report& report);

    // encode_text, encode_visual, draw_noise, denoise, decode, for one segment after the other.
    // Without a sink (output type latent), nothing is decoded but what the next segment needs.
    // -> the last segment's denoised latents [B, C, F, h, w] fp32
    at::Tensor generate(const ResolvedRequest& request, const FrameCallback& sink,
                        const RunControl& control, Report& report);
    // The same, watched after every segment and step, or begun where an earlier run was saved.
    at::Tensor generate(const ResolvedRequest& request, const FrameCallback& sink,
                        const RunControl& control, Report& report, const SegmentHooks& hooks);

    // Puts what segments cost here in the place of what is stored of it, for predictions. Errors:
    // those of plan::fit and plan::store_calibration.
    plan::CostModel store_cost(std::span<const plan::Sample> samples) const;

    struct Parts;  // parts.h, private to the engine's sources

private:
    at::Tensor run_segments(const ResolvedRequest& request, const FrameCallback& sink,
                            const RunControl& control, Report& report, const SegmentHooks& hooks);

    std::unique_ptr<Parts> parts_;
};

// [3, n, H, W] in [0, 1] -> n frames, rounded as Diffusers' export does.
std::vector<Frame> to_frames(const at::Tensor& video);

}  // namespace zoetrope
