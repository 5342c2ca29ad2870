// Noise levels of flow schedules, laid out as Diffusers does with numpy: the same operations in the
// same order, in float64, so that rounding to float32 at the end gives the same bits.
//
// Pure functions on plain values; any thread. Sigmas run from noise (1) to picture (0).
#pragma once

#include <span>
#include <string_view>
#include <vector>

namespace zoetrope {

// What a scheduler hands out: n time steps and n + 1 noise levels.
struct Schedule {
    std::vector<float> timesteps;
    std::vector<float> sigmas;
};

// numpy.linspace: `count` values from `start` to `stop`, both included.
std::vector<double> linspace(double start, double stop, int count);

// Moves every level towards noise: shift * s / (1 + (shift - 1) * s).
void shift_sigmas(std::vector<double>& sigmas, double shift);

// Stretches the schedule so that it ends at `terminal`. Errors: bad_request where it is a single
// step at sigma 1, which cannot be stretched.
void stretch_to_terminal(std::vector<double>& sigmas, double terminal);

// Karras et al. 2022 (arXiv 2206.00364), equation 5 with rho = 7.
std::vector<double> karras_sigmas(double sigma_max, double sigma_min, int count);

// Evenly spaced in log(sigma).
std::vector<double> exponential_sigmas(double sigma_max, double sigma_min, int count);

// scipy.stats.beta.ppf(1 - numpy.linspace(0, 1, count), 0.6, 0.6) between the ends: dense at both
// of them (Lee et al. 2024, arXiv 2407.12173).
std::vector<double> beta_sigmas(double sigma_max, double sigma_min, int count);

// How levels lie between the first and the last.
enum class SigmaSpacing { simple, karras, exponential, beta };  // simple: as the scheduler has them
// "simple", "karras", ... Errors: bad_request with the names accepted.
SigmaSpacing parse_sigma_spacing(std::string_view name);
std::vector<double> spaced_sigmas(SigmaSpacing spacing, double sigma_max, double sigma_min,
                                  int count);  // not for simple
// Spreads the levels anew between the first and the last; `simple` leaves them.
void respace_sigmas(std::vector<double>& sigmas, SigmaSpacing spacing);

// The noise schedule that Diffusers' UniPC and DPM++ keep beside the flow schedule; with Wan only
// its two ends are ever used.
struct BetaSettings {
    int num_train_timesteps = 1000;
    double start = 0.0001;
    double end = 0.02;
    bool scaled_linear = false;  // linear in sqrt(beta); else linear in beta
};
struct SigmaEnds {
    double min = 0;
    double max = 0;
};
// sqrt((1 - a) / a) of the first and the last training step, a = cumulated product of 1 - beta.
SigmaEnds training_sigma_ends(const BetaSettings& betas);

// Appends `last` and rounds to float32; time steps are sigma * num_train_timesteps cut to integers,
// as UniPC and DPM++ give them to the model.
Schedule integer_schedule(std::span<const double> sigmas, double last, int num_train_timesteps);

// asked: the levels of --sigmas, or none. Errors: bad_request outside of 1 ... num_train_timesteps,
// and where levels were asked for and are not as many.
void check_step_count(int num_inference_steps, int num_train_timesteps,
                      std::span<const double> asked);

// The levels of --sigmas as schedulers take them: without the 0 at the end. Errors: bad_request
// where they are none, do not fall from step to step, or lie outside of 0 ... 1.
std::vector<double> checked_sigmas(std::vector<double> sigmas);

}  // namespace zoetrope
