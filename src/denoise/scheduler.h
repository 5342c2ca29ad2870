// Schedulers: the time steps of a run, and the step from noisier to cleaner latents.
//
// A scheduler knows no model. It is made from a model's scheduler_config.json (and the user's
// choice), told the number of steps, then step() is called once per time step in order. All
// arithmetic is float32 on the latents' device; the schedule itself is computed as Diffusers
// computes it, in the same order and precision. A scheduler belongs to one run and one thread. Its
// history can be taken out and put back (checkpoints).
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <nlohmann/json_fwd.hpp>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope {

// What a scheduler carries from step to step.
struct SchedulerState {
    int next_step = 0;
    int lower_order_nums = 0;         // UniPC, DPM++: steps counted towards the solver's order
    std::vector<at::Tensor> tensors;  // history, oldest first; undefined where not yet there
    std::vector<double> numbers;      // whatever else, in an order of the scheduler's own
};

class Scheduler {
public:
    virtual ~Scheduler() = default;

    // Lays out the schedule for a run and forgets all history. The number of time steps is that of
    // inference steps, but for Heun's method 2n - 1: it asks the model twice. Errors: bad_request
    // for less than 1 step or more than the number of training steps.
    virtual void set_timesteps(int num_inference_steps) = 0;

    // What the model is given at each step: cut to integers where the scheduler does so. One per
    // call of step().
    virtual const std::vector<float>& timesteps() const = 0;
    // Noise level before each step, and after the last: one more than timesteps().
    virtual const std::vector<float>& sigmas() const = 0;

    // One step. velocity: the model's output, sample: the latents, both [B, C, F, H, W] (velocity
    // of any float dtype, sample fp32) -> fp32. `step` must be the next one; `generator` is drawn
    // from by stochastic schedulers only. Errors: internal when called out of order.
    virtual at::Tensor step(const at::Tensor& velocity, int step, const at::Tensor& sample,
                            at::Generator& generator) = 0;

    // restore() comes after set_timesteps() of the same run; the next step is then
    // state.next_step. A state with nothing but next_step begins a run there without history
    // (video-to-video). Errors: io for a state of another scheduler or run.
    virtual SchedulerState state() const = 0;
    virtual void restore(const SchedulerState& state) = 0;

    // Its name in --scheduler: "unipc", "euler", "dpm++", ...
    virtual std::string_view name() const = 0;
    virtual int num_train_timesteps() const { return 1000; }
};

struct SchedulerOptions {
    std::string name = "auto";         // --scheduler; auto: the class that the config names
    std::optional<double> flow_shift;  // --flow-shift; unset: the config's
    // --sigma-schedule: simple, beta, karras or exponential; unset: the config's. All spread the
    // scheduler's own noise levels between the first and the last, but for karras with unipc,
    // which is Diffusers' use_karras_sigmas.
    std::optional<std::string> sigma_schedule;
    // --sigmas: the noise levels of a run from its first step on, as they are, neither shifted nor
    // spread; a 0 at the end may be left out. For step-distilled models.
    std::optional<std::vector<double>> sigmas;
};

// config: scheduler_config.json of the model (its _class_name decides for "auto"; settings that fit
// carry over to another scheduler, as Diffusers' from_config does). Errors: bad_request for an
// unknown name or sigma schedule (the message lists those there are) and for sigmas that are no
// falling list, unsupported for a class or a setting that is not built (named).
std::unique_ptr<Scheduler> make_scheduler(const nlohmann::json& config,
                                          const SchedulerOptions& options);

// Names that make_scheduler takes.
std::vector<std::string> scheduler_names();

}  // namespace zoetrope
