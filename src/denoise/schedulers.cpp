// The table of schedulers, and how one model's settings become another scheduler's.
#include <algorithm>
#include <array>
#include <string>

#include "base/error.h"
#include "denoise/scheduler_config.h"

namespace zoetrope {
namespace {

struct Row {
    std::string_view name;        // in --scheduler
    std::string_view class_name;  // in scheduler_config.json
    std::string_view shift_key;   // the setting that holds the flow shift
    std::unique_ptr<Scheduler> (*make)(const SchedulerConfig&);
};

// Of rows with the same class, a config that names it takes the first.
constexpr std::array kSchedulers = {
    Row{"unipc", "UniPCMultistepScheduler", "flow_shift", make_unipc},
    Row{"dpm++", "DPMSolverMultistepScheduler", "flow_shift", make_dpm_solver},
    Row{"dpm++-sde", "DPMSolverMultistepScheduler", "flow_shift", make_dpm_solver},
    Row{"euler", "FlowMatchEulerDiscreteScheduler", "shift", make_flow_euler},
    Row{"euler-ancestral", "FlowMatchEulerDiscreteScheduler", "shift", make_euler_ancestral},
    Row{"heun", "FlowMatchHeunDiscreteScheduler", "shift", make_flow_heun},
    Row{"lcm", "FlowMatchLCMScheduler", "shift", make_flow_lcm},
    Row{"flow-unipc", "FlowUniPCMultistepScheduler", "shift", make_flow_unipc},
    Row{"flow-dpm++", "FlowDPMSolverMultistepScheduler", "shift", make_flow_dpm_solver},
};

std::string accepted_names() {
    std::string names = "auto";
    for (const Row& row : kSchedulers) names += fmt::format(", {}", row.name);
    return names;
}

const Row& row_of_class(std::string_view class_name) {
    const auto row = std::ranges::find(kSchedulers, class_name, &Row::class_name);
    if (row != kSchedulers.end()) return *row;
    std::vector<std::string_view> classes;
    for (const Row& known : kSchedulers) {
        if (classes.empty() || classes.back() != known.class_name) {
            classes.push_back(known.class_name);
        }
    }
    fail(ErrorKind::unsupported,
         "scheduler_config.json names the class \"{}\", which is not built: built are {}; "
         "--scheduler chooses one in its place",
         class_name, fmt::join(classes, ", "));
}

const Row& row_of_name(std::string_view name) {
    const auto row = std::ranges::find(kSchedulers, name, &Row::name);
    if (row != kSchedulers.end()) return *row;
    fail(ErrorKind::bad_request, "--scheduler is \"{}\": accepted are {}", name, accepted_names());
}

// The settings of `from` as `to` reads them. As in Diffusers' from_config, what both know carries
// over and the rest has its defaults, with two differences: the flow shift carries over although
// some call it "shift" and others "flow_shift" (from_config loses it, so that the same model would
// run unshifted), and a config of a flow class turns on what makes a flow model of UniPC and DPM++.
void carry_over(SchedulerConfig& config, std::string_view from_class, const Row& to) {
    const bool flow_class = from_class.starts_with("Flow");
    const std::string from_key = flow_class ? "shift" : "flow_shift";
    config.set(std::string(to.shift_key), config.number(from_key, 1.0));
    if (flow_class) {
        config.set("use_flow_sigmas", true);
        config.set("prediction_type", "flow_prediction");
    }
}

}  // namespace

std::unique_ptr<Scheduler> make_scheduler(const nlohmann::json& json,
                                          const SchedulerOptions& options) {
    SchedulerConfig config(json);
    const std::string class_name = config.text("_class_name", "(none)");
    const Row& row = options.name == "auto" ? row_of_class(class_name) : row_of_name(options.name);
    if (row.class_name != class_name) carry_over(config, class_name, row);
    // By name, "dpm++" is the deterministic solver, whatever the config says.
    if (options.name == "dpm++") config.set("algorithm_type", "dpmsolver++");
    if (options.name == "dpm++-sde") config.set("algorithm_type", "sde-dpmsolver++");
    if (options.flow_shift) config.set(std::string(row.shift_key), *options.flow_shift);
    std::optional<SigmaSpacing> spacing;
    if (options.sigma_schedule) spacing = parse_sigma_spacing(*options.sigma_schedule);
    std::vector<double> sigmas;
    if (options.sigmas) {
        ZT_CHECK(!options.flow_shift && !spacing, bad_request,
                 "--sigmas gives the noise levels as they are, so that --flow-shift and "
                 "--sigma-schedule have nothing to do: leave {} out",
                 options.flow_shift ? "--flow-shift" : "--sigma-schedule");
        sigmas = checked_sigmas(*options.sigmas);
    }
    config.ask(spacing, std::move(sigmas));
    return row.make(config);
}

std::vector<std::string> scheduler_names() {
    std::vector<std::string> names = {"auto"};
    for (const Row& row : kSchedulers) names.emplace_back(row.name);
    return names;
}

}  // namespace zoetrope
