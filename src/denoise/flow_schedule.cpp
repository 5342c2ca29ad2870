#include "denoise/flow_schedule.h"

#include "base/error.h"

namespace zoetrope {
namespace {

SigmaSpacing spacing_of(const SchedulerConfig& config, std::string_view scheduler) {
    if (config.asked_spacing()) return *config.asked_spacing();
    constexpr std::pair<const char*, SigmaSpacing> kKeys[] = {
        {"use_karras_sigmas", SigmaSpacing::karras},
        {"use_exponential_sigmas", SigmaSpacing::exponential},
        {"use_beta_sigmas", SigmaSpacing::beta}};
    SigmaSpacing spacing = SigmaSpacing::simple;
    for (const auto& [key, value] : kKeys) {
        if (!config.flag(key, false)) continue;
        if (spacing != SigmaSpacing::simple) {
            config.refuse(key, scheduler, "one of these settings at a time");
        }
        spacing = value;
    }
    return spacing;
}

// Diffusers shifts the levels of training in float32.
double shifted_training_sigma(int timestep, const FlowSettings& settings) {
    const float sigma =
        static_cast<float>(timestep) / static_cast<float>(settings.num_train_timesteps);
    const float numerator = static_cast<float>(settings.shift) * sigma;
    return numerator / (1.0F + static_cast<float>(settings.shift - 1) * sigma);
}

std::vector<double> flow_sigmas(const FlowSettings& settings, int steps) {
    if (!settings.sigmas.empty()) return settings.sigmas;
    const int train = settings.num_train_timesteps;
    std::vector<double> sigmas = linspace(shifted_training_sigma(train, settings) * train,
                                          shifted_training_sigma(1, settings) * train, steps);
    for (double& sigma : sigmas) sigma /= train;
    shift_sigmas(sigmas, settings.shift);
    if (settings.shift_terminal) stretch_to_terminal(sigmas, *settings.shift_terminal);
    if (settings.spacing == SigmaSpacing::simple) return sigmas;
    return spaced_sigmas(settings.spacing, settings.sigma_max.value_or(sigmas.front()),
                         settings.sigma_min.value_or(sigmas.back()), steps);
}

}  // namespace

FlowSettings read_flow_settings(const SchedulerConfig& config, std::string_view scheduler) {
    if (config.flag("invert_sigmas", false)) config.refuse("invert_sigmas", scheduler, "false");
    if (config.flag("use_dynamic_shifting", false)) {
        config.refuse("use_dynamic_shifting", scheduler, "false (Wan's pipelines give it no mu)");
    }
    FlowSettings settings{.num_train_timesteps = config.num_train_timesteps(),
                          .shift = config.shift("shift"),
                          .shift_terminal = config.shift_terminal(),
                          .spacing = spacing_of(config, scheduler),
                          .sigma_min = config.number("sigma_min"),
                          .sigma_max = config.number("sigma_max"),
                          .sigmas = config.asked_sigmas()};
    for (const auto& sigma : {settings.sigma_min, settings.sigma_max}) {
        ZT_CHECK(!sigma || (*sigma > 0 && *sigma <= 1), io,
                 "scheduler_config.json: sigma_min or sigma_max is {}: accepted are numbers above "
                 "0, up to 1",
                 *sigma);
    }
    return settings;
}

Schedule flow_schedule(const FlowSettings& settings, int steps) {
    check_step_count(steps, settings.num_train_timesteps, settings.sigmas);
    Schedule schedule;
    for (const double sigma : flow_sigmas(settings, steps)) {
        schedule.sigmas.push_back(static_cast<float>(sigma));
        schedule.timesteps.push_back(schedule.sigmas.back() *
                                     static_cast<float>(settings.num_train_timesteps));
    }
    schedule.sigmas.push_back(0);
    return schedule;
}

}  // namespace zoetrope
