// The denoising loop: steps x experts x guidance. Takes latents from one noise level to another.
//
// The loop leases a block's parameters, runs it for every guidance branch, and gives them back;
// whether that costs anything is Residency's affair. It owns the state of a run (LoopState), which
// is all that a checkpoint needs. One thread at a time.
#pragma once

#include "base/progress.h"
#include "denoise/dit.h"
#include "denoise/scheduler.h"
#include "weights/params.h"

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace zoetrope {

// Which of two experts: Wan2.2 A14B has one for high noise levels and one for low ones.
enum class ExpertKind { high_noise, low_noise };

// A DiT with its weights. The loop does not own it.
struct Expert {
    const Dit* dit = nullptr;
    Residency* residency = nullptr;
};

struct DenoiseOptions {
    // Gives the expert when its steps begin; the one asked for before may be let go then.
    std::function<Expert(ExpertKind)> expert;
    bool two_experts = false;
    double boundary_ratio = 0;    // high noise while timestep >= boundary_ratio * training steps
    double guidance_scale = 1;    // of the (high-noise) expert
    double guidance_scale_2 = 1;  // of the low-noise expert
    at::Tensor text;              // [1, Lt, text_dim] compute dtype
    at::Tensor negative;          // the same; undefined: no guidance, one pass per step
    // What both branches share; as in Conditions, undefined where the model takes none.
    at::Tensor image;
    at::Tensor channels;
    at::Tensor control;
    double control_scale = 1;
    at::Tensor pose;
    at::Tensor faces;  // the branch without guidance sees faces that are all -1
    // [1, C, n, H, W] fp32: the first n latent frames are known, stay as they are and are given to
    // the model as time step 0 (Wan2.2 TI2V). Undefined: none.
    at::Tensor known_frames;
    // [1, C, n, H, W] fp32: what the first n latent frames become, for models that are not told of
    // it: before each step they are put at its noise level, (1 - sigma) kept + sigma noise, and the
    // model makes the others fit (RePaint, Lugmayr et al. 2022, without resampling, and with one
    // noise for all steps, as Diffusers' inpainting pipelines have it). Undefined: none.
    at::Tensor kept_frames;
    at::Tensor kept_noise;  // the same shape: those frames of the initial noise
};

// Everything that a run carries from step to step.
struct LoopState {
    int step = 0;        // the next one
    at::Tensor latents;  // [B, C, F, H, W] fp32
    SchedulerState scheduler;
    at::Tensor generator;  // state of the random generator, for stochastic schedulers
};

class DenoiseLoop {
public:
    // The scheduler has its time steps set. Noise of stochastic schedulers comes from `generator`.
    DenoiseLoop(DenoiseOptions options, std::unique_ptr<Scheduler> scheduler,
                at::Generator generator);

    const Scheduler& scheduler() const { return *scheduler_; }

    // A fresh state that begins at `step` (0: pure noise).
    LoopState begin(at::Tensor latents, int step = 0) const;

    // Runs steps until state.step == to_step; after each one calls on_step (may be empty) with the
    // seconds it took. Reports progress of Stage::denoise; stops between blocks when asked to
    // (Error{cancelled}, state as after the last whole step).
    void run(LoopState& state, int to_step, const RunControl& control,
             const std::function<void(double seconds)>& on_step);

private:
    struct Branch {
        at::Tensor text;
        std::optional<Dit::Prepared> prepared;
    };

    void use(ExpertKind kind, const at::Tensor& latents);
    // The latents with the known frames in their place.
    at::Tensor with_known_frames(const at::Tensor& latents) const;
    // The latents with the kept frames in theirs, at that noise level.
    at::Tensor with_kept_frames(const at::Tensor& latents, double sigma) const;
    // Velocity of all samples, guidance applied: [B, C, F, H, W] fp32.
    at::Tensor velocity(const at::Tensor& latents, float timestep, double guidance_scale,
                        const RunControl& control);

    DenoiseOptions options_;
    std::unique_ptr<Scheduler> scheduler_;
    at::Generator generator_;
    std::optional<ExpertKind> in_use_;
    Expert expert_;
    std::vector<Branch> branches_;
};

}  // namespace zoetrope
