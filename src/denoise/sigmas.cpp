#include "denoise/sigmas.h"

#include "base/choices.h"
#include "denoise/beta_quantile.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cumprod.h>
#include <ATen/ops/linspace.h>

#include <cmath>

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

std::vector<double> beta_sigmas(double sigma_max, double sigma_min, int count) {
    constexpr double kAlpha = 0.6, kBeta = 0.6;  // Diffusers' and the paper's
    std::vector<double> sigmas = linspace(0, 1, count);
    for (double& s : sigmas) {
        s = sigma_min + beta_quantile(1 - s, kAlpha, kBeta) * (sigma_max - sigma_min);
    }
    return sigmas;
}

SigmaSpacing parse_sigma_spacing(std::string_view name) {
    constexpr Choices<SigmaSpacing, 4> kSpacings = {{{SigmaSpacing::simple, "simple"},
                                                     {SigmaSpacing::beta, "beta"},
                                                     {SigmaSpacing::karras, "karras"},
                                                     {SigmaSpacing::exponential, "exponential"}}};
    return parse_choice(kSpacings, "--sigma-schedule", name);
}

std::vector<double> spaced_sigmas(SigmaSpacing spacing, double sigma_max, double sigma_min,
                                  int count) {
    switch (spacing) {
        case SigmaSpacing::karras: return karras_sigmas(sigma_max, sigma_min, count);
        case SigmaSpacing::exponential: return exponential_sigmas(sigma_max, sigma_min, count);
        case SigmaSpacing::beta: return beta_sigmas(sigma_max, sigma_min, count);
        case SigmaSpacing::simple: break;
    }
    fail(ErrorKind::internal, "the simple spacing is each scheduler's own");
}

void respace_sigmas(std::vector<double>& sigmas, SigmaSpacing spacing) {
    if (spacing == SigmaSpacing::simple) return;
    sigmas = spaced_sigmas(spacing, sigmas.front(), sigmas.back(), static_cast<int>(sigmas.size()));
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

void check_step_count(int num_inference_steps, int num_train_timesteps,
                      std::span<const double> asked) {
    ZT_CHECK(num_inference_steps >= 1 && num_inference_steps <= num_train_timesteps, bad_request,
             "--num-inference-steps is {}: accepted are 1 to {}", num_inference_steps,
             num_train_timesteps);
    ZT_CHECK(asked.empty() || static_cast<std::size_t>(num_inference_steps) == asked.size(),
             bad_request,
             "--num-inference-steps is {} and --sigmas gives the levels of {}: leave one of them "
             "out",
             num_inference_steps, asked.size());
}

std::vector<double> checked_sigmas(std::vector<double> sigmas) {
    if (!sigmas.empty() && sigmas.back() == 0) sigmas.pop_back();
    ZT_CHECK(!sigmas.empty(), bad_request,
             "--sigmas has no noise level above 0: as many as steps are wanted, such as "
             "1,0.9,0.75,0.5");
    double above = 1;
    for (std::size_t i = 0; i < sigmas.size(); ++i) {
        const double sigma = sigmas[i];
        ZT_CHECK(sigma > 0 && sigma <= 1, bad_request,
                 "--sigmas has {}: noise levels lie above 0, up to 1", sigma);
        // In float32, as the schedulers step.
        ZT_CHECK(i == 0 || static_cast<float>(sigma) < static_cast<float>(above), bad_request,
                 "--sigmas has {} after {}: noise levels fall from step to step", sigma, above);
        above = sigma;
    }
    return sigmas;
}

}  // namespace zoetrope
