// Inside of denoise/: what the schedulers' step() and restore() share.
//
// Functions without state; any thread.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <string_view>

#include "denoise/scheduler.h"

namespace zoetrope {

// A noise level of a flow: alpha = 1 - sigma, lambda = log(alpha) - log(sigma). Each fp32 [] on the
// CPU: numbers as tensors, so that they are rounded as Diffusers rounds them.
struct FlowLevel {
    at::Tensor alpha, sigma, lambda;
};
FlowLevel flow_level(float sigma);

// Checks of every step(). Errors: internal where `step` is not the next one, or the tensors do not
// fit: sample fp32, velocity of any float dtype and the same shape and device.
void check_step(std::string_view scheduler, int step, int next_step, std::size_t num_steps);
void check_step_tensors(const at::Tensor& velocity, const at::Tensor& sample);

// Standard normal noise [as sample] fp32, drawn from `generator` and moved to the sample's device.
// Errors: internal without a generator.
at::Tensor noise_like(const at::Tensor& sample, at::Generator& generator);

// What a scheduler's state must look like.
struct StateShape {
    std::size_t num_steps = 0;  // of the run
    int solver_order = 0;       // as many outputs come first among the tensors
    std::size_t tensors = 0;
    std::size_t numbers = 0;
};
// Checks of every restore(): the state fits the run, or has no history at all (tensors and numbers
// empty), for a run that begins at state.next_step. Errors: io.
void check_state(std::string_view scheduler, const SchedulerState& state, const StateShape& want);

}  // namespace zoetrope
