#include "denoise/scheduler_config.h"

#include <cmath>

#include "base/error.h"

namespace zoetrope {
namespace {

[[noreturn]] void wrong_type(const std::string& key, const nlohmann::json& value,
                             std::string_view wanted) {
    fail(ErrorKind::io, "scheduler_config.json: {} is {}, which is not {}", key, value.dump(),
         wanted);
}

}  // namespace

SchedulerConfig::SchedulerConfig(nlohmann::json settings) : settings_(std::move(settings)) {
    ZT_CHECK(settings_.is_object(), io, "scheduler_config.json is not a JSON object");
}

const nlohmann::json* SchedulerConfig::find(const std::string& key) const {
    const auto found = settings_.find(key);
    return found == settings_.end() || found->is_null() ? nullptr : &*found;
}

bool SchedulerConfig::has(const std::string& key) const { return find(key) != nullptr; }

std::optional<double> SchedulerConfig::number(const std::string& key) const {
    const nlohmann::json* value = find(key);
    if (!value) return std::nullopt;
    if (!value->is_number()) wrong_type(key, *value, "a number");
    return value->get<double>();
}

double SchedulerConfig::number(const std::string& key, double otherwise) const {
    return number(key).value_or(otherwise);
}

int SchedulerConfig::integer(const std::string& key, int otherwise) const {
    const nlohmann::json* value = find(key);
    if (!value) return otherwise;
    if (!value->is_number_integer()) wrong_type(key, *value, "a whole number");
    const double wide = value->get<double>();  // integers of json may be unsigned 64-bit
    if (std::abs(wide) > 1e9) wrong_type(key, *value, "a number below 10^9");
    return static_cast<int>(wide);
}

bool SchedulerConfig::flag(const std::string& key, bool otherwise) const {
    const nlohmann::json* value = find(key);
    if (!value) return otherwise;
    if (!value->is_boolean()) wrong_type(key, *value, "true or false");
    return value->get<bool>();
}

std::string SchedulerConfig::text(const std::string& key, const std::string& otherwise) const {
    const nlohmann::json* value = find(key);
    if (!value) return otherwise;
    if (!value->is_string()) wrong_type(key, *value, "a string");
    return value->get<std::string>();
}

std::vector<int> SchedulerConfig::integers(const std::string& key) const {
    const nlohmann::json* value = find(key);
    if (!value) return {};
    if (!value->is_array()) wrong_type(key, *value, "a list");
    std::vector<int> list;
    for (const nlohmann::json& item : *value) {
        if (!item.is_number_integer()) wrong_type(key, *value, "a list of whole numbers");
        list.push_back(item.get<int>());
    }
    return list;
}

void SchedulerConfig::ask(std::optional<SigmaSpacing> spacing, std::vector<double> sigmas) {
    asked_spacing_ = spacing;
    asked_sigmas_ = std::move(sigmas);
}

void SchedulerConfig::refuse(const std::string& key, std::string_view scheduler,
                             std::string_view accepted) const {
    const nlohmann::json* value = find(key);
    fail(ErrorKind::unsupported,
         "scheduler_config.json has {} = {}, which the {} scheduler does not do: accepted is {}",
         key, value ? value->dump() : "(absent)", scheduler, accepted);
}

int SchedulerConfig::num_train_timesteps() const {
    const int count = integer("num_train_timesteps", 1000);
    ZT_CHECK(count >= 2 && count <= 100000, io,
             "scheduler_config.json: num_train_timesteps is {}: accepted are 2 to 100000", count);
    return count;
}

double SchedulerConfig::shift(const std::string& key) const {
    const double shift = number(key, 1.0);
    // Beyond these, neighbouring noise levels are the same number in float32.
    ZT_CHECK(shift >= 0.001 && shift <= 1000, bad_request,
             "the flow shift is {}: accepted are 0.001 to 1000", shift);
    return shift;
}

std::optional<double> SchedulerConfig::shift_terminal() const {
    const std::optional<double> terminal = number("shift_terminal");
    if (!terminal || *terminal == 0) return std::nullopt;
    ZT_CHECK(*terminal > 0 && *terminal < 1, io,
             "scheduler_config.json: shift_terminal is {}: accepted are numbers between 0 and 1",
             *terminal);
    return terminal;
}

bool SchedulerConfig::final_sigma_is_zero(std::string_view scheduler) const {
    const std::string type = text("final_sigmas_type", "zero");
    if (type != "zero" && type != "sigma_min") {
        refuse("final_sigmas_type", scheduler, "\"zero\" or \"sigma_min\"");
    }
    return type == "zero";
}

int SchedulerConfig::solver_order(std::string_view scheduler) const {
    const int order = integer("solver_order", 2);
    if (order < 1 || order > 3) refuse("solver_order", scheduler, "1, 2 or 3");
    return order;
}

BetaSettings SchedulerConfig::betas(std::string_view scheduler) const {
    if (has("trained_betas")) refuse("trained_betas", scheduler, "null");
    if (flag("rescale_betas_zero_snr", false)) {
        refuse("rescale_betas_zero_snr", scheduler, "false");
    }
    const std::string schedule = text("beta_schedule", "linear");
    if (schedule != "linear" && schedule != "scaled_linear") {
        refuse("beta_schedule", scheduler, "\"linear\" or \"scaled_linear\"");
    }
    const BetaSettings betas{.num_train_timesteps = num_train_timesteps(),
                             .start = number("beta_start", 0.0001),
                             .end = number("beta_end", 0.02),
                             .scaled_linear = schedule == "scaled_linear"};
    ZT_CHECK(betas.start > 0 && betas.start <= betas.end && betas.end < 1, io,
             "scheduler_config.json: beta_start is {} and beta_end {}: accepted is 0 < beta_start "
             "<= beta_end < 1",
             betas.start, betas.end);
    return betas;
}

void SchedulerConfig::require_flow(std::string_view scheduler) const {
    if (!flag("use_flow_sigmas", false)) refuse("use_flow_sigmas", scheduler, "true");
    if (text("prediction_type", "epsilon") != "flow_prediction") {
        refuse("prediction_type", scheduler, "\"flow_prediction\"");
    }
}

}  // namespace zoetrope
