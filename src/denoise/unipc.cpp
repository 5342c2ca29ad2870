// UniPC (Zhao et al. 2023, arXiv 2302.04867) on flow schedules: a predictor of order p, corrected
// once the model was asked at the point that it predicted.
//
// Two schedules of noise levels: that of Diffusers' UniPCMultistepScheduler ("unipc"), and that of
// FlowUniPCMultistepScheduler in the original Wan repositories ("flow-unipc").
//
// Coefficients are tensors of no dimensions in float32 on the CPU, since that is how Diffusers
// computes them: h_phi_k below subtracts nearly equal numbers, and its last bits show in the video.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/expm1.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "denoise/scheduler_config.h"
#include "denoise/stepping.h"

namespace zoetrope {
namespace {

struct Settings {
    std::string_view name;
    bool original_levels = false;  // those of the original Wan repositories
    int num_train_timesteps = 1000;
    double flow_shift = 1.0;
    std::optional<double> shift_terminal;
    bool final_sigma_is_zero = true;
    std::optional<SigmaEnds> karras;  // set: Karras levels between these in place of flow levels
    SigmaSpacing spacing = SigmaSpacing::simple;  // of the flow levels
    std::vector<double> sigmas;                   // the user's levels in place of all this
    int solver_order = 2;
    bool bh1 = false;  // B(h) = h; else bh2, B(h) = exp(h) - 1
    bool lower_order_final = true;
    std::vector<int> disable_corrector;  // steps after which no corrector runs
};

// Diffusers' use_karras_sigmas, which is spaced in the noise levels of its training schedule.
std::optional<SigmaEnds> read_karras(const SchedulerConfig& config, std::string_view name) {
    if (const auto& asked = config.asked_spacing()) {
        if (*asked != SigmaSpacing::karras) return std::nullopt;
    } else {
        // With these two Diffusers leaves the levels above 1, where a flow has no logarithm: all
        // NaN.
        for (const char* key : {"use_exponential_sigmas", "use_beta_sigmas"}) {
            if (config.flag(key, false)) config.refuse(key, name, "false");
        }
        if (!config.flag("use_karras_sigmas", false)) return std::nullopt;
    }
    SigmaEnds ends = training_sigma_ends(config.betas(name));
    ends.min = config.number("sigma_min", ends.min);
    ends.max = config.number("sigma_max", ends.max);
    ZT_CHECK(ends.min > 0 && ends.min <= ends.max, io,
             "scheduler_config.json: sigma_min is {} and sigma_max {}: accepted is 0 < sigma_min "
             "<= sigma_max",
             ends.min, ends.max);
    return ends;
}

// What both schedules share.
Settings read_solver(const SchedulerConfig& config, std::string_view name) {
    if (config.flag("thresholding", false)) config.refuse("thresholding", name, "false");
    // Diffusers has no flow prediction for predict_x0 = false, nor has Wan a use for the others.
    if (!config.flag("predict_x0", true)) config.refuse("predict_x0", name, "true");
    if (config.has("solver_p")) config.refuse("solver_p", name, "null");
    if (config.flag("use_dynamic_shifting", false)) {
        config.refuse("use_dynamic_shifting", name, "false (Wan's pipelines give it no mu)");
    }
    Settings settings{.name = name,
                      .num_train_timesteps = config.num_train_timesteps(),
                      .final_sigma_is_zero = config.final_sigma_is_zero(name),
                      .spacing = config.asked_spacing().value_or(SigmaSpacing::simple),
                      .sigmas = config.asked_sigmas(),
                      .solver_order = config.solver_order(name),
                      .lower_order_final = config.flag("lower_order_final", true),
                      .disable_corrector = config.integers("disable_corrector")};
    const std::string type = config.text("solver_type", "bh2");
    // DPM++'s types, found in configs that were another scheduler's, mean bh2 as in Diffusers.
    constexpr std::string_view kTypes[] = {"bh1", "bh2", "midpoint", "heun", "logrho"};
    if (std::ranges::find(kTypes, type) == std::end(kTypes)) {
        config.refuse("solver_type", name, "\"bh1\" or \"bh2\"");
    }
    settings.bh1 = type == "bh1";
    // A step of higher order to sigma 0, where the step size is infinite, is 0 * infinity.
    if (!settings.lower_order_final && settings.final_sigma_is_zero && settings.solver_order > 1) {
        config.refuse("lower_order_final", name,
                      "true where final_sigmas_type is \"zero\" and solver_order above 1");
    }
    return settings;
}

std::vector<double> flow_levels(const Settings& settings, int steps) {
    const int train = settings.num_train_timesteps;
    std::vector<double> sigmas;
    if (settings.original_levels) {
        // Wan keeps the highest level of training in float32.
        sigmas = linspace(static_cast<float>(1 - 1.0 / train), 0, steps + 1);
    } else {
        sigmas = linspace(1, 1.0 / train, steps + 1);
    }
    sigmas.pop_back();
    shift_sigmas(sigmas, settings.flow_shift);
    if (settings.shift_terminal) stretch_to_terminal(sigmas, *settings.shift_terminal);
    respace_sigmas(sigmas, settings.spacing);
    return sigmas;
}

Schedule lay_out(const Settings& settings, int steps) {
    const int train = settings.num_train_timesteps;
    check_step_count(steps, train, settings.sigmas);
    std::vector<double> sigmas;
    if (!settings.sigmas.empty()) {
        sigmas = settings.sigmas;
    } else if (settings.karras) {
        sigmas = karras_sigmas(settings.karras->max, settings.karras->min, steps);
        for (double& sigma : sigmas) sigma = sigma / (sigma + 1);
    } else {
        sigmas = flow_levels(settings, steps);
    }
    constexpr double kEps = 1e-6;  // Diffusers'; keeps log(1 - sigma) finite
    if (std::abs(sigmas.front() - 1) < kEps) sigmas.front() -= kEps;
    const double last = settings.final_sigma_is_zero ? 0 : sigmas.back();
    return integer_schedule(sigmas, last, train);
}

class UniPc final : public Scheduler {
public:
    explicit UniPc(Settings settings) : settings_(std::move(settings)) {}

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

    SchedulerState state() const override;
    void restore(const SchedulerState& state) override;

private:
    // What predictor and corrector share for the step from level k to k + 1.
    struct Terms {
        at::Tensor base;                      // the step of order 1: like the sample
        at::Tensor scale;                     // [] alpha * B(h)
        std::vector<at::Tensor> differences;  // order - 1 of them, like the sample
        at::Tensor rows;                      // [order, order] R of the paper
        at::Tensor values;                    // [order] b of the paper
    };

    void begin_at(int step);
    // outputs_ must end with the model's output at level k.
    Terms terms(int k, int order, const at::Tensor& from) const;
    at::Tensor predict(int k, int order, const at::Tensor& from) const;
    at::Tensor correct(int k, int order, const at::Tensor& from, const at::Tensor& output) const;

    Settings settings_;
    Schedule schedule_;
    int next_step_ = 0;
    int lower_order_nums_ = 0;
    int last_order_ = 1;               // order of the predictor that made the current sample
    std::vector<at::Tensor> outputs_;  // pictures predicted so far, oldest first, `solver_order`
    at::Tensor last_sample_;           // what the last predictor started from; undefined at first
};

void UniPc::begin_at(int step) {
    next_step_ = step;
    lower_order_nums_ = 0;
    last_order_ = 1;
    outputs_.assign(static_cast<std::size_t>(settings_.solver_order), at::Tensor());
    last_sample_.reset();
}

UniPc::Terms UniPc::terms(int k, int order, const at::Tensor& from) const {
    const auto at_step = [this](int i) { return schedule_.sigmas[static_cast<std::size_t>(i)]; };
    const FlowLevel t = flow_level(at_step(k + 1));
    const FlowLevel s0 = flow_level(at_step(k));
    const at::Tensor h = t.lambda - s0.lambda;
    const at::Tensor& m0 = outputs_.back();

    Terms terms;
    std::vector<at::Tensor> rks;
    for (int i = 1; i < order; ++i) {
        const at::Tensor rk = (flow_level(at_step(k - i)).lambda - s0.lambda) / h;
        const at::Tensor& mi = outputs_[outputs_.size() - 1 - static_cast<std::size_t>(i)];
        terms.differences.push_back((mi - m0) / rk);
        rks.push_back(rk);
    }
    rks.push_back(at::ones({}, at::kFloat));
    const at::Tensor rk = at::stack(rks);

    const at::Tensor hh = -h;
    const at::Tensor h_phi_1 = at::expm1(hh);
    const at::Tensor b_h = settings_.bh1 ? hh : h_phi_1;
    at::Tensor h_phi_k = h_phi_1 / hh - 1;
    int factorial = 1;
    std::vector<at::Tensor> rows, values;
    for (int i = 1; i <= order; ++i) {
        rows.push_back(at::pow(rk, i - 1));
        values.push_back(h_phi_k * factorial / b_h);
        factorial *= i + 1;
        h_phi_k = h_phi_k / hh - 1.0 / factorial;
    }
    terms.rows = at::stack(rows);
    terms.values = at::stack(values);
    terms.base = t.sigma / s0.sigma * from - t.alpha * h_phi_1 * m0;
    terms.scale = t.alpha * b_h;
    return terms;
}

// sum of weights[i] * differences[i]
at::Tensor weighted(const at::Tensor& weights, const std::vector<at::Tensor>& differences) {
    at::Tensor sum = weights[0] * differences[0];
    for (std::size_t i = 1; i < differences.size(); ++i) {
        sum = sum + weights[static_cast<std::int64_t>(i)] * differences[i];
    }
    return sum;
}

at::Tensor UniPc::predict(int k, int order, const at::Tensor& from) const {
    const Terms t = terms(k, order, from);
    // Order 1 has no differences. Diffusers adds scale * 0 all the same, which for bh1 on the step
    // to sigma 0 is infinity * 0; leaving it out is the same number everywhere else.
    if (order == 1) return t.base;
    const at::Tensor rhos = order == 2 ? at::ones({1}, at::kFloat) * 0.5
                                       : at::linalg_solve(t.rows.slice(0, 0, -1).slice(1, 0, -1),
                                                          t.values.slice(0, 0, -1));
    return t.base - t.scale * weighted(rhos, t.differences);
}

at::Tensor UniPc::correct(int k, int order, const at::Tensor& from,
                          const at::Tensor& output) const {
    const Terms t = terms(k, order, from);
    const at::Tensor rhos =
        order == 1 ? at::ones({1}, at::kFloat) * 0.5 : at::linalg_solve(t.rows, t.values);
    at::Tensor sum = rhos[-1] * (output - outputs_.back());
    if (order > 1) sum = weighted(rhos, t.differences) + sum;
    return t.base - t.scale * sum;
}

at::Tensor UniPc::step(const at::Tensor& velocity, int step, const at::Tensor& sample,
                       at::Generator&) {
    const int num_steps = static_cast<int>(schedule_.timesteps.size());
    check_step(settings_.name, step, next_step_, schedule_.timesteps.size());
    check_step_tensors(velocity, sample);

    // The picture that the model expects at the end of the flow.
    const double sigma = schedule_.sigmas[static_cast<std::size_t>(step)];
    const at::Tensor output = sample - velocity.to(at::kFloat) * sigma;

    at::Tensor from = sample;
    const bool corrects =
        last_sample_.defined() && std::ranges::find(settings_.disable_corrector, step - 1) ==
                                      settings_.disable_corrector.end();
    if (corrects) from = correct(step - 1, last_order_, last_sample_, output);

    std::ranges::rotate(outputs_, outputs_.begin() + 1);
    outputs_.back() = output;

    int order = settings_.solver_order;
    if (settings_.lower_order_final) order = std::min(order, num_steps - step);
    order = std::min(order, lower_order_nums_ + 1);
    at::Tensor next = predict(step, order, from);

    last_order_ = order;
    last_sample_ = from;
    lower_order_nums_ = std::min(lower_order_nums_ + 1, settings_.solver_order);
    ++next_step_;
    return next;
}

SchedulerState UniPc::state() const {
    SchedulerState state{.next_step = next_step_,
                         .lower_order_nums = lower_order_nums_,
                         .tensors = outputs_,
                         .numbers = {static_cast<double>(last_order_)}};
    state.tensors.push_back(last_sample_);
    return state;
}

void UniPc::restore(const SchedulerState& state) {
    check_state(settings_.name, state,
                {.num_steps = schedule_.timesteps.size(),
                 .solver_order = settings_.solver_order,
                 .tensors = outputs_.size() + 1,
                 .numbers = 1});
    begin_at(state.next_step);
    if (state.tensors.empty()) return;
    lower_order_nums_ = state.lower_order_nums;
    last_order_ = static_cast<int>(state.numbers[0]);
    ZT_CHECK(last_order_ >= 1 && last_order_ <= std::max(lower_order_nums_, 1) &&
                 state.tensors.back().defined() == (lower_order_nums_ > 0),
             io, "the saved scheduler state is broken: order {} after {} steps", last_order_,
             lower_order_nums_);
    outputs_.assign(state.tensors.begin(), state.tensors.end() - 1);
    last_sample_ = state.tensors.back();
}

}  // namespace

std::unique_ptr<Scheduler> make_unipc(const SchedulerConfig& config) {
    constexpr std::string_view kName = "unipc";
    config.require_flow(kName);
    Settings settings = read_solver(config, kName);
    settings.flow_shift = config.shift("flow_shift");
    settings.shift_terminal = config.shift_terminal();
    settings.karras = read_karras(config, kName);
    return std::make_unique<UniPc>(std::move(settings));
}

std::unique_ptr<Scheduler> make_flow_unipc(const SchedulerConfig& config) {
    constexpr std::string_view kName = "flow-unipc";
    Settings settings = read_solver(config, kName);
    if (!settings.final_sigma_is_zero) {  // an error in Wan's own code too
        config.refuse("final_sigmas_type", kName, "\"zero\"");
    }
    settings.original_levels = true;
    settings.flow_shift = config.shift("shift");
    return std::make_unique<UniPc>(std::move(settings));
}

}  // namespace zoetrope
