// Euler steps along the flow, in three forms.
//
// "euler": FlowMatchEulerDiscreteScheduler of Diffusers. The next sample lies
// (next sigma - sigma) * velocity away; with its setting stochastic_sampling, it steps as "lcm".
// "lcm": FlowMatchLCMScheduler. The picture that the model expects gets fresh noise of the next
// level (Luo et al. 2023, arXiv 2310.04378), for models distilled to a few steps.
// "euler-ancestral": a step further down than the next level, then noise up to it, as ComfyUI does
// for rectified flows (its sampler euler_ancestral with eta and s_noise 1).
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "denoise/flow_schedule.h"
#include "denoise/stepping.h"

namespace zoetrope {
namespace {

enum class Noise { none, all_of_it, ancestral };

class FlowEuler final : public Scheduler {
public:
    FlowEuler(std::string_view name, Noise noise, FlowSettings settings)
        : name_(name), noise_(noise), settings_(std::move(settings)) {}

    void set_timesteps(int num_inference_steps) override {
        schedule_ = flow_schedule(settings_, num_inference_steps);
        next_step_ = 0;
    }

    const std::vector<float>& timesteps() const override { return schedule_.timesteps; }
    const std::vector<float>& sigmas() const override { return schedule_.sigmas; }
    std::string_view name() const override { return name_; }
    int num_train_timesteps() const override { return settings_.num_train_timesteps; }

    at::Tensor step(const at::Tensor& velocity, int step, const at::Tensor& sample,
                    at::Generator& generator) override {
        check_step(name_, step, next_step_, schedule_.timesteps.size());
        check_step_tensors(velocity, sample);
        const float sigma = schedule_.sigmas[static_cast<std::size_t>(step)];
        const float next = schedule_.sigmas[static_cast<std::size_t>(step) + 1];
        ++next_step_;
        const at::Tensor v = velocity.to(at::kFloat);
        if (noise_ == Noise::none) return sample + v * (next - sigma);

        const at::Tensor picture = sample - v * sigma;
        if (noise_ == Noise::ancestral) {
            return ancestral_step(picture, sigma, next, sample, generator);
        }
        return picture * (1.0F - next) + noise_like(sample, generator) * next;
    }

    SchedulerState state() const override { return {.next_step = next_step_}; }

    void restore(const SchedulerState& state) override {
        check_state(name_, state, {.num_steps = schedule_.timesteps.size()});
        next_step_ = state.next_step;
    }

private:
    static at::Tensor ancestral_step(const at::Tensor& picture, float sigma, float next,
                                     const at::Tensor& sample, at::Generator& generator) {
        if (next == 0) return picture;
        // The level that the Euler step goes down to, and the noise that leads from there to
        // `next`: scaled by alpha / alpha_down, the picture has its weight of level `next`, and the
        // variances of the scaled and the fresh noise add up to next^2.
        const float down = next * (1.0F + (next / sigma - 1.0F));  // rounded as there
        const float alpha = 1.0F - next, alpha_down = 1.0F - down;
        const float variance =
            next * next - down * down * (alpha * alpha) / (alpha_down * alpha_down);
        const float fresh = std::sqrt(std::max(variance, 0.0F));  // below 0 by rounding only
        const at::Tensor stepped = sample * (down / sigma) + picture * (1.0F - down / sigma);
        return stepped * (alpha / alpha_down) + noise_like(sample, generator) * fresh;
    }

    std::string_view name_;
    Noise noise_;
    FlowSettings settings_;
    Schedule schedule_;
    int next_step_ = 0;
};

std::unique_ptr<Scheduler> make(std::string_view name, Noise noise, const SchedulerConfig& config) {
    return std::make_unique<FlowEuler>(name, noise, read_flow_settings(config, name));
}

}  // namespace

std::unique_ptr<Scheduler> make_flow_euler(const SchedulerConfig& config) {
    const bool stochastic = config.flag("stochastic_sampling", false);
    return make("euler", stochastic ? Noise::all_of_it : Noise::none, config);
}

std::unique_ptr<Scheduler> make_flow_lcm(const SchedulerConfig& config) {
    constexpr std::string_view kName = "lcm";
    // Larger latents from step to step, which the loop's one size does not allow.
    if (config.has("scale_factors")) config.refuse("scale_factors", kName, "null");
    return make(kName, Noise::all_of_it, config);
}

std::unique_ptr<Scheduler> make_euler_ancestral(const SchedulerConfig& config) {
    return make("euler-ancestral", Noise::ancestral, config);
}

}  // namespace zoetrope
