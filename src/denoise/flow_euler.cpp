// Euler steps along the flow, as FlowMatchEulerDiscreteScheduler of Diffusers: the next sample lies
// (next sigma - sigma) * velocity away.
//
// Trap of the schedule: the shift is applied twice. The levels of training are shifted, the steps
// are spread evenly between their ends, and the result is shifted again.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/randn.h>

#include "base/error.h"
#include "denoise/scheduler_config.h"
#include "denoise/stepping.h"

namespace zoetrope {
namespace {

constexpr std::string_view kName = "euler";

enum class Spacing { linear, karras, exponential };

struct Settings {
    int num_train_timesteps = 1000;
    double shift = 1.0;
    std::optional<double> shift_terminal;
    Spacing spacing = Spacing::linear;
    std::optional<double> sigma_min, sigma_max;  // ends of Karras and exponential levels
    bool stochastic = false;
};

Settings read_settings(const SchedulerConfig& config) {
    if (config.flag("invert_sigmas", false)) config.refuse("invert_sigmas", kName, "false");
    if (config.flag("use_dynamic_shifting", false)) {
        config.refuse("use_dynamic_shifting", kName, "false (Wan's pipelines give it no mu)");
    }
    if (config.flag("use_beta_sigmas", false)) config.refuse("use_beta_sigmas", kName, "false");
    const bool karras = config.flag("use_karras_sigmas", false);
    const bool exponential = config.flag("use_exponential_sigmas", false);
    if (karras && exponential) {
        config.refuse("use_exponential_sigmas", kName, "false beside use_karras_sigmas");
    }
    Settings settings{.num_train_timesteps = config.num_train_timesteps(),
                      .shift = config.shift("shift"),
                      .shift_terminal = config.shift_terminal(),
                      .spacing = karras        ? Spacing::karras
                                 : exponential ? Spacing::exponential
                                               : Spacing::linear,
                      .sigma_min = config.number("sigma_min"),
                      .sigma_max = config.number("sigma_max"),
                      .stochastic = config.flag("stochastic_sampling", false)};
    for (const auto& sigma : {settings.sigma_min, settings.sigma_max}) {
        ZT_CHECK(!sigma || (*sigma > 0 && *sigma <= 1), io,
                 "scheduler_config.json: sigma_min or sigma_max is {}: accepted are numbers above "
                 "0, up to 1",
                 *sigma);
    }
    return settings;
}

// Diffusers shifts the levels of training in float32.
double shifted_training_sigma(int timestep, const Settings& settings) {
    const float sigma =
        static_cast<float>(timestep) / static_cast<float>(settings.num_train_timesteps);
    const float numerator = static_cast<float>(settings.shift) * sigma;
    return numerator / (1.0F + static_cast<float>(settings.shift - 1) * sigma);
}

Schedule lay_out(const Settings& settings, int steps) {
    const int train = settings.num_train_timesteps;
    std::vector<double> sigmas = linspace(shifted_training_sigma(train, settings) * train,
                                          shifted_training_sigma(1, settings) * train, steps);
    for (double& sigma : sigmas) sigma /= train;
    shift_sigmas(sigmas, settings.shift);
    if (settings.shift_terminal) stretch_to_terminal(sigmas, *settings.shift_terminal);
    if (settings.spacing != Spacing::linear) {
        const double max = settings.sigma_max.value_or(sigmas.front());
        const double min = settings.sigma_min.value_or(sigmas.back());
        sigmas = settings.spacing == Spacing::karras ? karras_sigmas(max, min, steps)
                                                     : exponential_sigmas(max, min, steps);
    }
    Schedule schedule;
    for (const double sigma : sigmas) {
        schedule.sigmas.push_back(static_cast<float>(sigma));
        schedule.timesteps.push_back(schedule.sigmas.back() * static_cast<float>(train));
    }
    schedule.sigmas.push_back(0);
    return schedule;
}

class FlowEuler final : public Scheduler {
public:
    explicit FlowEuler(const Settings& settings) : settings_(settings) {}

    void set_timesteps(int num_inference_steps) override {
        check_step_count(num_inference_steps, settings_.num_train_timesteps);
        schedule_ = lay_out(settings_, num_inference_steps);
        next_step_ = 0;
    }

    const std::vector<float>& timesteps() const override { return schedule_.timesteps; }
    const std::vector<float>& sigmas() const override { return schedule_.sigmas; }
    std::string_view name() const override { return kName; }
    int num_train_timesteps() const override { return settings_.num_train_timesteps; }

    at::Tensor step(const at::Tensor& velocity, int step, const at::Tensor& sample,
                    at::Generator& generator) override {
        check_step(kName, step, next_step_, schedule_.timesteps.size());
        check_step_tensors(velocity, sample);
        const float sigma = schedule_.sigmas[static_cast<std::size_t>(step)];
        const float next = schedule_.sigmas[static_cast<std::size_t>(step) + 1];
        ++next_step_;
        const at::Tensor v = velocity.to(at::kFloat);
        if (!settings_.stochastic) return sample + v * (next - sigma);

        ZT_CHECK(generator.defined(), internal, "stochastic sampling needs a generator");
        const at::Tensor noise =
            at::randn(sample.sizes(), generator, sample.options().device(generator.device()));
        const at::Tensor picture = sample - v * sigma;
        return picture * (1.0F - next) + noise.to(sample.device()) * next;
    }

    SchedulerState state() const override { return {.next_step = next_step_}; }

    void restore(const SchedulerState& state) override {
        check_state(kName, state, {.num_steps = schedule_.timesteps.size()});
        next_step_ = state.next_step;
    }

private:
    Settings settings_;
    Schedule schedule_;
    int next_step_ = 0;
};

}  // namespace

std::unique_ptr<Scheduler> make_flow_euler(const SchedulerConfig& config) {
    return std::make_unique<FlowEuler>(read_settings(config));
}

}  // namespace zoetrope
