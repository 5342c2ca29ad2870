#include "denoise/sigmas.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cumprod.h>
#include <ATen/ops/linspace.h>

#include <cmath>

#include "base/error.h"

namespace zoetrope {

std::vector<double> linspace(double start, double stop, int count) {
    std::vector<double> values(static_cast<std::size_t>(count), start);
    if (count < 2) return values;
    const double step = (stop - start) / (count - 1);
    for (int i = 0; i < count; ++i) values[static_cast<std::size_t>(i)] = i * step + start;
    values.back() = stop;
    return values;
}

void shift_sigmas(std::vector<double>& sigmas, double shift) {
    for (double& sigma : sigmas) sigma = shift * sigma / (1 + (shift - 1) * sigma);
}

void stretch_to_terminal(std::vector<double>& sigmas, double terminal) {
    const double scale = (1 - sigmas.back()) / (1 - terminal);
    ZT_CHECK(scale > 0, bad_request,
             "shift_terminal is {}, which needs a schedule of 2 steps or more: got {}", terminal,
             sigmas.size());
    for (double& sigma : sigmas) sigma = 1 - (1 - sigma) / scale;
}

std::vector<double> karras_sigmas(double sigma_max, double sigma_min, int count) {
    constexpr double kRho = 7.0;
    const double min_root = std::pow(sigma_min, 1 / kRho);
    const double max_root = std::pow(sigma_max, 1 / kRho);
    std::vector<double> sigmas = linspace(0, 1, count);
    for (double& s : sigmas) s = std::pow(max_root + s * (min_root - max_root), kRho);
    return sigmas;
}

std::vector<double> exponential_sigmas(double sigma_max, double sigma_min, int count) {
    std::vector<double> sigmas = linspace(std::log(sigma_max), std::log(sigma_min), count);
    for (double& s : sigmas) s = std::exp(s);
    return sigmas;
}

SigmaEnds training_sigma_ends(const BetaSettings& betas) {
    const double start = betas.scaled_linear ? std::sqrt(betas.start) : betas.start;
    const double end = betas.scaled_linear ? std::sqrt(betas.end) : betas.end;
    at::Tensor beta = at::linspace(start, end, betas.num_train_timesteps, at::kFloat);
    if (betas.scaled_linear) beta = beta * beta;
    const at::Tensor alphas = at::cumprod(1.0 - beta, 0);
    const at::Tensor sigmas = ((1.0 - alphas) / alphas).sqrt();
    return {.min = sigmas[0].item<float>(), .max = sigmas[-1].item<float>()};
}

Schedule integer_schedule(std::span<const double> sigmas, double last, int num_train_timesteps) {
    Schedule schedule;
    for (const double sigma : sigmas) {
        schedule.timesteps.push_back(static_cast<float>(std::trunc(sigma * num_train_timesteps)));
        schedule.sigmas.push_back(static_cast<float>(sigma));
    }
    schedule.sigmas.push_back(static_cast<float>(last));
    return schedule;
}

void check_step_count(int num_inference_steps, int num_train_timesteps) {
    ZT_CHECK(num_inference_steps >= 1 && num_inference_steps <= num_train_timesteps, bad_request,
             "--num-inference-steps is {}: accepted are 1 to {}", num_inference_steps,
             num_train_timesteps);
}

}  // namespace zoetrope
