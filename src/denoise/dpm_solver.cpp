// DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095), multistep, on flow schedules: the picture that
// the model expects is taken as a polynomial in lambda of up to three past outputs. "dpm++-sde" is
// its form for the stochastic equation: it decays twice as fast and draws noise at every step.
//
// Two schedules of noise levels: that of Diffusers' DPMSolverMultistepScheduler ("dpm++"), and that
// of FlowDPMSolverMultistepScheduler in the original Wan repositories ("flow-dpm++").
//
// Coefficients are tensors of no dimensions in float32 on the CPU, as in Diffusers, so that they
// have the same rounding.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/sqrt.h>

#include <algorithm>

#include "base/error.h"
#include "denoise/scheduler_config.h"
#include "denoise/stepping.h"

namespace zoetrope {
namespace {

struct Settings {
    std::string_view name;
    bool original_levels = false;  // those of the original Wan repositories
    bool stochastic = false;
    int num_train_timesteps = 1000;
    double flow_shift = 1.0;
    // Unset: zero. Else the first level of the training schedule, which has nothing to do with
    // flows, but is what Diffusers ends at for final_sigmas_type "sigma_min".
    std::optional<double> final_sigma;
    SigmaSpacing spacing = SigmaSpacing::simple;
    std::vector<double> sigmas;  // the user's levels in place of all this
    int solver_order = 2;
    bool heun = false;  // second order: heun, else midpoint
    bool lower_order_final = true;
    bool euler_at_final = false;
};

bool reads_stochastic(const SchedulerConfig& config) {
    return config.text("algorithm_type", "dpmsolver++") == "sde-dpmsolver++";
}

// What both schedules share.
Settings read_solver(const SchedulerConfig& config, std::string_view name) {
    if (config.flag("thresholding", false)) config.refuse("thresholding", name, "false");
    const std::string algorithm = config.text("algorithm_type", "dpmsolver++");
    constexpr std::string_view kAlgorithms[] = {"dpmsolver++", "sde-dpmsolver++",
                                                "deis"};  // Diffusers too reads deis so
    if (std::ranges::find(kAlgorithms, algorithm) == std::end(kAlgorithms)) {
        config.refuse("algorithm_type", name, "\"dpmsolver++\" or \"sde-dpmsolver++\"");
    }
    Settings settings{.name = name,
                      .stochastic = reads_stochastic(config),
                      .num_train_timesteps = config.num_train_timesteps(),
                      .spacing = config.asked_spacing().value_or(SigmaSpacing::simple),
                      .sigmas = config.asked_sigmas(),
                      .solver_order = config.solver_order(name),
                      .lower_order_final = config.flag("lower_order_final", true),
                      .euler_at_final = config.flag("euler_at_final", false)};
    const std::string type = config.text("solver_type", "midpoint");
    // UniPC's types, found in configs that were UniPC's, mean midpoint as in Diffusers.
    constexpr std::string_view kTypes[] = {"midpoint", "heun", "logrho", "bh1", "bh2"};
    if (std::ranges::find(kTypes, type) == std::end(kTypes)) {
        config.refuse("solver_type", name, "\"midpoint\" or \"heun\"");
    }
    settings.heun = type == "heun";
    return settings;
}

Schedule lay_out(const Settings& settings, int steps) {
    const int train = settings.num_train_timesteps;
    check_step_count(steps, train, settings.sigmas);
    std::vector<double> sigmas = settings.sigmas;
    if (sigmas.empty()) {
        if (settings.original_levels) {
            sigmas = linspace(1, 0, steps + 1);
        } else {
            sigmas = linspace(1, 1.0 / train, steps + 1);
            for (double& sigma : sigmas) sigma = 1.0 - sigma;
            std::ranges::reverse(sigmas);
        }
        sigmas.pop_back();
        shift_sigmas(sigmas, settings.flow_shift);
        respace_sigmas(sigmas, settings.spacing);
    }
    return integer_schedule(sigmas, settings.final_sigma.value_or(0), train);
}

class DpmSolver final : public Scheduler {
public:
    explicit DpmSolver(Settings settings) : settings_(std::move(settings)) {}

    void set_timesteps(int num_inference_steps) override {
        schedule_ = lay_out(settings_, num_inference_steps);
        begin_at(0);
    }

    const std::vector<float>& timesteps() const override { return schedule_.timesteps; }
    const std::vector<float>& sigmas() const override { return schedule_.sigmas; }
    std::string_view name() const override { return settings_.name; }
    int num_train_timesteps() const override { return settings_.num_train_timesteps; }

    at::Tensor step(const at::Tensor& velocity, int step, const at::Tensor& sample,
                    at::Generator& generator) override;

    SchedulerState state() const override {
        return {
            .next_step = next_step_, .lower_order_nums = lower_order_nums_, .tensors = outputs_};
    }
    void restore(const SchedulerState& state) override;

private:
    void begin_at(int step);
    int order_of(int step) const;
    // From level k to k + 1; outputs_ ends with the model's output at level k.
    at::Tensor advance(int k, int order, const at::Tensor& sample) const;
    // The same for the stochastic equation. noise: like the sample
    at::Tensor advance_stochastic(int k, int order, const at::Tensor& sample,
                                  const at::Tensor& noise) const;
    // Differences of the outputs at levels k, k - 1 (and k - 2 for order 3), for a step of size h
    // in lambda from `s0`.
    struct Slopes {
        at::Tensor first, second;  // D1, D2 of the paper; second for order 3 only
    };
    Slopes slopes(int k, int order, const FlowLevel& s0, const at::Tensor& h) const;
    FlowLevel level(int k) const {
        return flow_level(schedule_.sigmas[static_cast<std::size_t>(k)]);
    }

    Settings settings_;
    Schedule schedule_;
    int next_step_ = 0;
    int lower_order_nums_ = 0;
    std::vector<at::Tensor> outputs_;  // pictures predicted so far, oldest first, `solver_order`
};

void DpmSolver::begin_at(int step) {
    next_step_ = step;
    lower_order_nums_ = 0;
    outputs_.assign(static_cast<std::size_t>(settings_.solver_order), at::Tensor());
}

int DpmSolver::order_of(int step) const {
    constexpr int kFewSteps = 15;  // Diffusers: below this, lower orders at the end
    const int num_steps = static_cast<int>(schedule_.timesteps.size());
    const bool lowers = settings_.lower_order_final && num_steps < kFewSteps;
    int order = std::min(settings_.solver_order, lower_order_nums_ + 1);
    if (step == num_steps - 2 && lowers) order = std::min(order, 2);
    if (step == num_steps - 1 && (settings_.euler_at_final || lowers || !settings_.final_sigma)) {
        order = 1;
    }
    return order;
}

DpmSolver::Slopes DpmSolver::slopes(int k, int order, const FlowLevel& s0,
                                    const at::Tensor& h) const {
    const at::Tensor* m = &outputs_.back();  // m[0], m[-1], m[-2]: newest first
    const FlowLevel s1 = level(k - 1);
    const at::Tensor r0 = (s0.lambda - s1.lambda) / h;
    const at::Tensor d1_0 = (1.0 / r0) * (m[0] - m[-1]);
    if (order == 2) return {.first = d1_0, .second = {}};

    const FlowLevel s2 = level(k - 2);
    const at::Tensor r1 = (s1.lambda - s2.lambda) / h;
    const at::Tensor d1_1 = (1.0 / r1) * (m[-1] - m[-2]);
    return {.first = d1_0 + (r0 / (r0 + r1)) * (d1_0 - d1_1),
            .second = (1.0 / (r0 + r1)) * (d1_0 - d1_1)};
}

at::Tensor DpmSolver::advance(int k, int order, const at::Tensor& sample) const {
    const FlowLevel t = level(k + 1);
    const FlowLevel s0 = level(k);
    const at::Tensor h = t.lambda - s0.lambda;
    const at::Tensor decay = at::exp(-h) - 1.0;

    const at::Tensor first = (t.sigma / s0.sigma) * sample - (t.alpha * decay) * outputs_.back();
    if (order == 1) return first;

    const Slopes d = slopes(k, order, s0, h);
    if (order == 2 && !settings_.heun) return first - 0.5 * (t.alpha * decay) * d.first;
    const at::Tensor second = first + (t.alpha * (decay / h + 1.0)) * d.first;
    if (order == 2) return second;
    return second - (t.alpha * ((decay + h) / at::pow(h, 2) - 0.5)) * d.second;
}

at::Tensor DpmSolver::advance_stochastic(int k, int order, const at::Tensor& sample,
                                         const at::Tensor& noise) const {
    const FlowLevel t = level(k + 1);
    const FlowLevel s0 = level(k);
    const at::Tensor h = t.lambda - s0.lambda;
    const at::Tensor growth = 1.0 - at::exp(-2.0 * h);

    at::Tensor next =
        (t.sigma / s0.sigma * at::exp(-h)) * sample + (t.alpha * growth) * outputs_.back();
    if (order > 1) {
        const Slopes d = slopes(k, order, s0, h);
        if (order == 2 && !settings_.heun) {
            next = next + 0.5 * (t.alpha * growth) * d.first;
        } else {
            next = next + (t.alpha * (growth / (-2.0 * h) + 1.0)) * d.first;
        }
        if (order == 3) {
            next = next + (t.alpha * ((growth - 2.0 * h) / at::pow(2.0 * h, 2) - 0.5)) * d.second;
        }
    }
    return next + t.sigma * at::sqrt(growth) * noise;
}

at::Tensor DpmSolver::step(const at::Tensor& velocity, int step, const at::Tensor& sample,
                           at::Generator& generator) {
    check_step(settings_.name, step, next_step_, schedule_.timesteps.size());
    check_step_tensors(velocity, sample);

    const double sigma = schedule_.sigmas[static_cast<std::size_t>(step)];
    std::ranges::rotate(outputs_, outputs_.begin() + 1);
    outputs_.back() = sample - velocity.to(at::kFloat) * sigma;

    const int order = order_of(step);
    at::Tensor next = settings_.stochastic
                          ? advance_stochastic(step, order, sample, noise_like(sample, generator))
                          : advance(step, order, sample);
    lower_order_nums_ = std::min(lower_order_nums_ + 1, settings_.solver_order);
    ++next_step_;
    return next;
}

void DpmSolver::restore(const SchedulerState& state) {
    check_state(settings_.name, state,
                {.num_steps = schedule_.timesteps.size(),
                 .solver_order = settings_.solver_order,
                 .tensors = outputs_.size()});
    begin_at(state.next_step);
    if (state.tensors.empty()) return;
    lower_order_nums_ = state.lower_order_nums;
    outputs_ = state.tensors;
}

}  // namespace

std::unique_ptr<Scheduler> make_dpm_solver(const SchedulerConfig& config) {
    const std::string_view name = reads_stochastic(config) ? "dpm++-sde" : "dpm++";
    config.require_flow(name);
    if (!config.asked_spacing()) {
        // With these Diffusers leaves the levels above 1, where a flow has no logarithm: all NaN.
        for (const char* key :
             {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"}) {
            if (config.flag(key, false)) config.refuse(key, name, "false");
        }
    }
    Settings settings = read_solver(config, name);
    settings.flow_shift = config.shift("flow_shift");
    if (!config.final_sigma_is_zero(name)) {
        settings.final_sigma = training_sigma_ends(config.betas(name)).min;
    }
    return std::make_unique<DpmSolver>(std::move(settings));
}

std::unique_ptr<Scheduler> make_flow_dpm_solver(const SchedulerConfig& config) {
    constexpr std::string_view kName = "flow-dpm++";
    if (!config.final_sigma_is_zero(kName)) {  // an error in Wan's own code too
        config.refuse("final_sigmas_type", kName, "\"zero\"");
    }
    Settings settings = read_solver(config, kName);
    if (settings.stochastic && settings.solver_order == 3) {  // Wan's code has no such step
        config.refuse("solver_order", kName, "1 or 2 with algorithm_type \"sde-dpmsolver++\"");
    }
    settings.original_levels = true;
    settings.flow_shift = config.shift("shift");
    return std::make_unique<DpmSolver>(std::move(settings));
}

}  // namespace zoetrope
