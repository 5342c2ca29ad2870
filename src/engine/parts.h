// A model's parts as the engine holds them: layers with their weights, loaded and let go as stages
// come and end.
//
// Private to the engine's sources. Opening a part reads the file headers and checks every name and
// shape; a weight is read when a lease asks for it.
#pragma once

#include "denoise/dit.h"
#include "denoise/loop.h"
#include "denoise/scheduler.h"
#include "engine/engine.h"
#include "engine/tasks.h"
#include "plan/cost.h"
#include "text/tokenizer.h"
#include "text/umt5.h"
#include "vae/vae.h"
#include "vision/clip.h"
#include "vision/pixels.h"
#include "weights/adapters.h"
#include "weights/layouts.h"
#include "weights/params.h"

#include <array>
#include <functional>
#include <span>
#include <vector>

namespace zoetrope {

// Tokens of a prompt with its end, to which embeddings are padded: WanPipeline's
// max_sequence_length.
constexpr std::int64_t kTextLength = 512;

// Layers, their weights, and a lease on them while the part is to stay in memory; on those that
// its file holds packed the layers' own leases, one layer at a time.
template <typename Layers>
struct Part {
    Layers layers;
    std::unique_ptr<Residency> residency;
    std::optional<Lease> resident;  // destroyed before `residency`

    void keep() {
        if (!resident) resident.emplace(residency->lease_kept());
    }
};

// layer_options: what the layers take beside their config.
template <typename Layers, typename Config, typename... Options>
std::unique_ptr<Part<Layers>> open_part(const char* component, ComponentKind kind,
                                        const std::filesystem::path& path, const Config& config,
                                        const ResidencyOptions& compute,
                                        const Options&... layer_options) {
    Weights weights(component, open_canonical(kind, path));
    Layers layers(config, weights, layer_options...);
    weights.check();
    auto residency = std::make_unique<Residency>(std::move(weights), compute);
    return std::make_unique<Part<Layers>>(
        Part<Layers>{std::move(layers), std::move(residency), std::nullopt});
}

// ModelFolder::tokenizer: files of a tokenizer, or a file of weights that carries one.
Tokenizer open_tokenizer(const std::filesystem::path& path);

// What a run of the loop is watched by, and where it begins.
struct LoopHooks {
    std::function<void(const LoopState&)> after_step;  // may be empty
    const LoopState* begin = nullptr;  // the state that an earlier run left, in place of the noise
};

struct Engine::Parts {
    ModelFolder model;
    EngineOptions options;
    ResidencyOptions compute;      // device and dtype of the text encoder
    ResidencyOptions dit_compute;  // and of the transformers
    ResidencyOptions vae_compute;  // and of the VAE
    DitConfig dit_config;
    std::optional<DitConfig> dit_2_config;
    VaeConfig vae_config;
    Umt5Config text_config;
    std::int64_t process_bytes = 0;  // resident before any weight was read

    std::unique_ptr<Part<Umt5Encoder>> text;
    std::optional<Tokenizer> tokenizer;
    std::unique_ptr<Part<Dit>> transformer, transformer_2;
    std::unique_ptr<Part<Vae>> vae;
    std::unique_ptr<Part<ClipVision>> image_encoder;

    ModelKind kind() const;
    // Errors: io, unsupported, not_found where the parts do not fit each other.
    void check_channels() const;
    // Latent frames that are denoised at a time for that many frames of video.
    std::int64_t latent_frames(const ResolvedRequest& request, int frames) const;
    // With its time steps set.
    std::unique_ptr<Scheduler> scheduler_of(const ResolvedRequest& request) const;
    // Of the noise for a segment of that many frames: [B, z, F, h, w].
    std::vector<std::int64_t> noise_shape(const ResolvedRequest& request, int frames) const;
    // Steps [from_step, to_step), or [hooks.begin->step, to_step); the generator goes on.
    at::Tensor run_loop(const ResolvedRequest& request, const TextEmbeddings& prompts,
                        const VisualConditions& visual, int from_step, int to_step,
                        const at::Tensor& latents, at::Generator& generator,
                        const RunControl& control, Report& report, const LoopHooks& hooks = {});
    // Pictures and videos of a segment that carries nothing over.
    VisualConditions encode_window(const ResolvedRequest& request, const plan::Segment& segment,
                                   const RunControl& control, Report& report);
    // CLIP's embeddings of the first picture and the last, where the model takes both.
    // -> [n, tokens, image_dim]
    at::Tensor encode_pictures(const VisualInputs& inputs);
    // Of one picture, or two; without any, what stands for none.
    at::Tensor encode_pictures(const Frame* first, const Frame* last);
    // What image-to-video models take beside the noise: which frames are given (the first `given`,
    // and perhaps the last), and the latents of all. -> [1, temporal + z, F, h, w] fp32
    at::Tensor channels_of(const at::Tensor& latents, std::int64_t num_frames, std::int64_t given,
                           bool last) const;

    // Checks the flags of segments and joins, cuts the run into segments and predicts their
    // seconds. All else is resolved. window: frames that the model makes at a time by default
    void plan_segments(ResolvedRequest& resolved, int window) const;
    // The run in units of work, for predictions.
    plan::Workload workload_of(const ResolvedRequest& request) const;
    // What a unit of work costs here: as calibrated, else a default.
    struct Cost {
        plan::CostModel model;
        std::string source;
    };
    Cost cost_model(std::vector<std::string>& warnings) const;
    plan::CalibrationKey calibration_key() const;
    std::filesystem::path cost_folder() const;
    // Stores a run's measured segments, unless what is stored predicts them well or the run was
    // disturbed.
    void learn_cost(const Report& report) const;

    MemoryPlan::StageMemory plan_visual(const ResolvedRequest& request);

    std::vector<AdapterFile> adapters;
    AdapterMode adapter_mode = AdapterMode::runtime;
    std::array<std::vector<Report::Adapter>, 2> adapter_reports;  // high noise, low noise

    // The files of these adapters. Errors: those of find_adapters().
    std::vector<AdapterFile> find_adapters(std::span<const AdapterChoice> choices) const;
    // Reads `adapters` into a transformer that is open.
    void apply_adapters(bool low_noise);

    // Open where they are not.
    Part<ClipVision>& open_image_encoder();
    Part<Umt5Encoder>& open_text();
    Part<Dit>& open_dit(bool low_noise);
    Part<Vae>& open_vae();
    // Lets a part go, unless parts stay resident.
    template <typename Layers>
    void close(std::unique_ptr<Part<Layers>>& part) {
        if (options.keep_resident || hold) return;
        part.reset();
        release_memory();
    }

    double load_seconds = 0;  // spent on opening transformers, of all runs
    bool hold = false;        // parts stay until it is false again: a run of several segments

private:
    static void release_memory();
};

}  // namespace zoetrope
