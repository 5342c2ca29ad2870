// Inside of denoise/: a scheduler_config.json as the schedulers read it, and the constructors that
// the table in schedulers.cpp names.
//
// A setting that is absent or null has the default of the class that reads it, as in Diffusers'
// from_config. A setting that no scheduler here can honour is refused by name, never ignored.
#pragma once

#include <nlohmann/json.hpp>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "denoise/scheduler.h"
#include "denoise/sigmas.h"

namespace zoetrope {

// Borrows nothing: it holds a copy of the settings. All readers' errors: io where a value has
// another type than the setting.
class SchedulerConfig {
public:
    explicit SchedulerConfig(nlohmann::json settings);

    double number(const std::string& key, double otherwise) const;
    std::optional<double> number(const std::string& key) const;
    int integer(const std::string& key, int otherwise) const;
    bool flag(const std::string& key, bool otherwise) const;
    std::string text(const std::string& key, const std::string& otherwise) const;
    std::vector<int> integers(const std::string& key) const;
    bool has(const std::string& key) const;

    void set(const std::string& key, nlohmann::json value) { settings_[key] = std::move(value); }

    // --sigma-schedule and --sigmas, which come before what the file says.
    void ask(std::optional<SigmaSpacing> spacing, std::vector<double> sigmas);
    const std::optional<SigmaSpacing>& asked_spacing() const { return asked_spacing_; }
    const std::vector<double>& asked_sigmas() const { return asked_sigmas_; }  // may be empty

    // Error: unsupported, with the setting's value and what `scheduler` accepts.
    [[noreturn]] void refuse(const std::string& key, std::string_view scheduler,
                             std::string_view accepted) const;

    // Readers that every scheduler shares.
    int num_train_timesteps() const;
    double shift(const std::string& key) const;    // default 1; errors: bad_request
    std::optional<double> shift_terminal() const;  // unset for null and 0
    bool final_sigma_is_zero(std::string_view scheduler) const;
    int solver_order(std::string_view scheduler) const;  // default 2
    BetaSettings betas(std::string_view scheduler) const;
    // Refuses what makes no flow schedule: use_flow_sigmas off, another prediction_type,
    // thresholding.
    void require_flow(std::string_view scheduler) const;

private:
    const nlohmann::json* find(const std::string& key) const;

    nlohmann::json settings_;
    std::optional<SigmaSpacing> asked_spacing_;
    std::vector<double> asked_sigmas_;
};

std::unique_ptr<Scheduler> make_unipc(const SchedulerConfig& config);
std::unique_ptr<Scheduler> make_flow_unipc(const SchedulerConfig& config);
std::unique_ptr<Scheduler> make_dpm_solver(const SchedulerConfig& config);
std::unique_ptr<Scheduler> make_flow_dpm_solver(const SchedulerConfig& config);
std::unique_ptr<Scheduler> make_flow_euler(const SchedulerConfig& config);
std::unique_ptr<Scheduler> make_euler_ancestral(const SchedulerConfig& config);
std::unique_ptr<Scheduler> make_flow_heun(const SchedulerConfig& config);
std::unique_ptr<Scheduler> make_flow_lcm(const SchedulerConfig& config);

}  // namespace zoetrope
