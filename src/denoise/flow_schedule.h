// Inside of denoise/: the schedule of Diffusers' FlowMatch classes, which differ in their steps
// only.
//
// Trap: the shift is applied twice. The levels of training are shifted, the steps are spread evenly
// between their ends, and the result is shifted again.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "denoise/scheduler_config.h"
#include "denoise/sigmas.h"

namespace zoetrope {

struct FlowSettings {
    int num_train_timesteps = 1000;
    double shift = 1.0;
    std::optional<double> shift_terminal;
    SigmaSpacing spacing = SigmaSpacing::simple;
    std::optional<double> sigma_min, sigma_max;  // ends of the other spacings; unset: the levels'
    std::vector<double> sigmas;                  // the user's levels in place of all this
};
FlowSettings read_flow_settings(const SchedulerConfig& config, std::string_view scheduler);

// Pure; any thread. Errors: bad_request for a number of steps that does not fit.
Schedule flow_schedule(const FlowSettings& settings, int steps);

}  // namespace zoetrope
