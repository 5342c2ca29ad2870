// DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095), multistep, on flow schedules: the picture that
// the model expects is taken as a polynomial in lambda of up to three past outputs.
//
// Coefficients are tensors of no dimensions in float32 on the CPU, as in Diffusers, so that they
// have the same rounding.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/pow.h>

#include <algorithm>

#include "base/error.h"
#include "denoise/scheduler_config.h"
#include "denoise/stepping.h"

namespace zoetrope {
namespace {

constexpr std::string_view kName = "dpm++";

struct Settings {
    int num_train_timesteps = 1000;
    double flow_shift = 1.0;
    // Unset: zero. Else the first level of the training schedule, which has nothing to do with
    // flows, but is what Diffusers ends at for final_sigmas_type "sigma_min".
    std::optional<double> final_sigma;
    int solver_order = 2;
    bool heun = false;  // second order: heun, else midpoint
    bool lower_order_final = true;
    bool euler_at_final = false;
};

Settings read_settings(const SchedulerConfig& config) {
    config.require_flow(kName);
    const std::string algorithm = config.text("algorithm_type", "dpmsolver++");
    if (algorithm != "dpmsolver++" && algorithm != "deis") {  // Diffusers too reads deis so
        config.refuse("algorithm_type", kName,
                      "\"dpmsolver++\" (its stochastic form is not built yet)");
    }
    // With these Diffusers leaves the levels above 1, where a flow has no logarithm: all NaN.
    for (const char* key :
         {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"}) {
        if (config.flag(key, false)) config.refuse(key, kName, "false");
    }
    Settings settings{.num_train_timesteps = config.num_train_timesteps(),
                      .flow_shift = config.shift("flow_shift"),
                      .solver_order = config.solver_order(kName),
                      .lower_order_final = config.flag("lower_order_final", true),
                      .euler_at_final = config.flag("euler_at_final", false)};
    if (!config.final_sigma_is_zero(kName)) {
        settings.final_sigma = training_sigma_ends(config.betas(kName)).min;
    }
    const std::string type = config.text("solver_type", "midpoint");
    // UniPC's types, found in configs that were UniPC's, mean midpoint as in Diffusers.
    constexpr std::string_view kTypes[] = {"midpoint", "heun", "logrho", "bh1", "bh2"};
    if (std::ranges::find(kTypes, type) == std::end(kTypes)) {
        config.refuse("solver_type", kName, "\"midpoint\" or \"heun\"");
    }
    settings.heun = type == "heun";
    return settings;
}

Schedule lay_out(const Settings& settings, int steps) {
    const int train = settings.num_train_timesteps;
    std::vector<double> sigmas = linspace(1, 1.0 / train, steps + 1);
    for (double& sigma : sigmas) sigma = 1.0 - sigma;
    shift_sigmas(sigmas, settings.flow_shift);
    std::ranges::reverse(sigmas);
    sigmas.pop_back();
    return integer_schedule(sigmas, settings.final_sigma.value_or(0), train);
}

class DpmSolver final : public Scheduler {
public:
    explicit DpmSolver(const Settings& settings) : settings_(settings) {}

    void set_timesteps(int num_inference_steps) override {
        check_step_count(num_inference_steps, settings_.num_train_timesteps);
        schedule_ = lay_out(settings_, num_inference_steps);
        begin_at(0);
    }

    const std::vector<float>& timesteps() const override { return schedule_.timesteps; }
    const std::vector<float>& sigmas() const override { return schedule_.sigmas; }
    std::string_view name() const override { return kName; }
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

at::Tensor DpmSolver::advance(int k, int order, const at::Tensor& sample) const {
    const auto at_step = [this](int i) {
        return flow_level(schedule_.sigmas[static_cast<std::size_t>(i)]);
    };
    const FlowLevel t = at_step(k + 1);
    const FlowLevel s0 = at_step(k);
    const at::Tensor h = t.lambda - s0.lambda;
    const at::Tensor decay = at::exp(-h) - 1.0;
    const at::Tensor* m = &outputs_.back();  // m[0], m[-1], m[-2]: newest first

    const at::Tensor first = (t.sigma / s0.sigma) * sample - (t.alpha * decay) * m[0];
    if (order == 1) return first;

    const FlowLevel s1 = at_step(k - 1);
    const at::Tensor r0 = (s0.lambda - s1.lambda) / h;
    const at::Tensor d1_0 = (1.0 / r0) * (m[0] - m[-1]);
    const at::Tensor heun = t.alpha * (decay / h + 1.0);
    if (order == 2) {
        return settings_.heun ? first + heun * d1_0 : first - 0.5 * (t.alpha * decay) * d1_0;
    }

    const FlowLevel s2 = at_step(k - 2);
    const at::Tensor r1 = (s1.lambda - s2.lambda) / h;
    const at::Tensor d1_1 = (1.0 / r1) * (m[-1] - m[-2]);
    const at::Tensor d1 = d1_0 + (r0 / (r0 + r1)) * (d1_0 - d1_1);
    const at::Tensor d2 = (1.0 / (r0 + r1)) * (d1_0 - d1_1);
    return first + heun * d1 - (t.alpha * ((decay + h) / at::pow(h, 2) - 0.5)) * d2;
}

at::Tensor DpmSolver::step(const at::Tensor& velocity, int step, const at::Tensor& sample,
                           at::Generator&) {
    check_step(kName, step, next_step_, schedule_.timesteps.size());
    check_step_tensors(velocity, sample);

    const double sigma = schedule_.sigmas[static_cast<std::size_t>(step)];
    std::ranges::rotate(outputs_, outputs_.begin() + 1);
    outputs_.back() = sample - velocity.to(at::kFloat) * sigma;

    at::Tensor next = advance(step, order_of(step), sample);
    lower_order_nums_ = std::min(lower_order_nums_ + 1, settings_.solver_order);
    ++next_step_;
    return next;
}

void DpmSolver::restore(const SchedulerState& state) {
    check_state(kName, state,
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
    return std::make_unique<DpmSolver>(read_settings(config));
}

}  // namespace zoetrope
