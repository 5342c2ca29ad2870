#include "denoise/stepping.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/log.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scalar_tensor.h>

#include <algorithm>

#include "base/error.h"

namespace zoetrope {

FlowLevel flow_level(float sigma) {
    const at::Tensor s = at::scalar_tensor(sigma, at::kFloat);
    const at::Tensor alpha = 1 - s;
    return {.alpha = alpha, .sigma = s, .lambda = at::log(alpha) - at::log(s)};
}

void check_step(std::string_view scheduler, int step, int next_step, std::size_t num_steps) {
    ZT_CHECK(step == next_step && static_cast<std::size_t>(step) < num_steps, internal,
             "the {} scheduler was called for step {}, while the next one is {} of {}", scheduler,
             step, next_step, num_steps);
}

void check_step_tensors(const at::Tensor& velocity, const at::Tensor& sample) {
    ZT_CHECK(sample.defined() && sample.scalar_type() == at::kFloat, internal,
             "a scheduler's sample must be float32");
    ZT_CHECK(velocity.defined() && velocity.is_floating_point() &&
                 velocity.sizes() == sample.sizes() && velocity.device() == sample.device(),
             internal, "a scheduler's velocity must be like its sample in shape and device");
}

at::Tensor noise_like(const at::Tensor& sample, at::Generator& generator) {
    ZT_CHECK(generator.defined(), internal, "a stochastic scheduler needs a generator");
    return at::randn(sample.sizes(), generator, sample.options().device(generator.device()))
        .to(sample.device());
}

void check_state(std::string_view scheduler, const SchedulerState& state, const StateShape& want) {
    const int counted = state.lower_order_nums;
    bool fits = state.next_step >= 0 && static_cast<std::size_t>(state.next_step) <= want.num_steps;
    if (!state.tensors.empty() || !state.numbers.empty()) {
        fits = fits && state.tensors.size() == want.tensors &&
               state.numbers.size() == want.numbers && counted >= 0 &&
               counted <= std::min(want.solver_order, state.next_step);
        for (int i = 1; fits && i <= counted; ++i) {
            fits = state.tensors[static_cast<std::size_t>(want.solver_order - i)].defined();
        }
    }
    ZT_CHECK(fits, io,
             "the saved scheduler state (step {}, {} tensors, {} outputs counted) does not belong "
             "to a run of {} steps with the {} scheduler",
             state.next_step, state.tensors.size(), counted, want.num_steps, scheduler);
}

}  // namespace zoetrope
