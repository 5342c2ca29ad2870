// Heun's method along the flow, as FlowMatchHeunDiscreteScheduler of Diffusers: an Euler step, the
// model asked again where it leads, and the step repeated with the mean of both slopes.
//
// Each of the two is a step of the loop, the last level has the first alone: 2n - 1 steps for n
// levels. Steps with even numbers are the first of a pair, odd ones the second.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include "base/error.h"
#include "denoise/flow_schedule.h"
#include "denoise/stepping.h"

namespace zoetrope {
namespace {

constexpr std::string_view kName = "heun";

class FlowHeun final : public Scheduler {
public:
    explicit FlowHeun(FlowSettings settings) : settings_(std::move(settings)) {}

    void set_timesteps(int num_inference_steps) override {
        const Schedule levels = flow_schedule(settings_, num_inference_steps);
        schedule_ = {};
        for (std::size_t i = 0; i < levels.timesteps.size(); ++i) {
            for (int twice = i == 0 ? 1 : 0; twice < 2; ++twice) {
                schedule_.timesteps.push_back(levels.timesteps[i]);
                schedule_.sigmas.push_back(levels.sigmas[i]);
            }
        }
        schedule_.sigmas.push_back(levels.sigmas.back());
        begin_at(0);
    }

    const std::vector<float>& timesteps() const override { return schedule_.timesteps; }
    const std::vector<float>& sigmas() const override { return schedule_.sigmas; }
    std::string_view name() const override { return kName; }
    int num_train_timesteps() const override { return settings_.num_train_timesteps; }

    at::Tensor step(const at::Tensor& velocity, int step, const at::Tensor& sample,
                    at::Generator& generator) override;

    SchedulerState state() const override {
        return {.next_step = next_step_, .tensors = {slope_, start_}};
    }
    void restore(const SchedulerState& state) override;

private:
    void begin_at(int step) {
        next_step_ = step;
        slope_.reset();
        start_.reset();
    }
    float sigma(int step) const { return schedule_.sigmas[static_cast<std::size_t>(step)]; }

    FlowSettings settings_;
    Schedule schedule_;  // every level but the first and the end twice
    int next_step_ = 0;
    // Of the first step of a pair, undefined after the second: d sample / d sigma, and the sample.
    at::Tensor slope_, start_;
};

at::Tensor FlowHeun::step(const at::Tensor& velocity, int step, const at::Tensor& sample,
                          at::Generator&) {
    check_step(kName, step, next_step_, schedule_.timesteps.size());
    check_step_tensors(velocity, sample);
    // The slope is the velocity but for rounding; it is computed the way Diffusers does.
    const at::Tensor picture = sample - velocity.to(at::kFloat) * sigma(step);
    const at::Tensor slope = (sample - picture) / sigma(step);
    if (step % 2 == 0) {
        begin_at(step + 1);
        slope_ = slope;
        start_ = sample;
        return sample + slope * (sigma(step + 1) - sigma(step));
    }
    // A run that begins at the second of a pair has nothing to repeat.
    at::Tensor next = sample;
    if (slope_.defined()) {
        next = start_ + (slope_ + slope) * 0.5 * (sigma(step) - sigma(step - 1));
    }
    begin_at(step + 1);
    return next;
}

void FlowHeun::restore(const SchedulerState& state) {
    check_state(kName, state, {.num_steps = schedule_.timesteps.size(), .tensors = 2});
    begin_at(state.next_step);
    if (state.tensors.empty()) return;
    const bool second = state.next_step % 2 == 1;
    ZT_CHECK(state.tensors[0].defined() == second && state.tensors[1].defined() == second, io,
             "the saved scheduler state is broken: step {} of the heun scheduler {} a first slope",
             state.next_step, second ? "needs" : "has no use for");
    slope_ = state.tensors[0];
    start_ = state.tensors[1];
}

}  // namespace

std::unique_ptr<Scheduler> make_flow_heun(const SchedulerConfig& config) {
    return std::make_unique<FlowHeun>(read_flow_settings(config, kName));
}

}  // namespace zoetrope
