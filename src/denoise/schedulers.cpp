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

constexpr std::array kSchedulers = {
    Row{"unipc", "UniPCMultistepScheduler", "flow_shift", make_unipc},
    Row{"dpm++", "DPMSolverMultistepScheduler", "flow_shift", make_dpm_solver},
    Row{"euler", "FlowMatchEulerDiscreteScheduler", "shift", make_flow_euler},
};

constexpr std::array<std::string_view, 6> kNotBuiltYet = {
    "dpm++-sde", "euler-ancestral", "heun", "lcm", "flow-unipc", "flow-dpm++"};

std::string accepted_names() {
    std::string names = "auto";
    for (const Row& row : kSchedulers) names += fmt::format(", {}", row.name);
    return names;
}

const Row& row_of_class(std::string_view class_name) {
    const auto row = std::ranges::find(kSchedulers, class_name, &Row::class_name);
    if (row != kSchedulers.end()) return *row;
    std::vector<std::string_view> classes;
    for (const Row& known : kSchedulers) classes.push_back(known.class_name);
    fail(ErrorKind::unsupported,
         "scheduler_config.json names the class \"{}\", which is not built: built are {}; "
         "--scheduler chooses one in its place",
         class_name, fmt::join(classes, ", "));
}

const Row& row_of_name(std::string_view name) {
    const auto row = std::ranges::find(kSchedulers, name, &Row::name);
    if (row != kSchedulers.end()) return *row;
    if (std::ranges::find(kNotBuiltYet, name) != kNotBuiltYet.end()) {
        fail(ErrorKind::unsupported, "--scheduler {} is not built yet: accepted are {}", name,
             accepted_names());
    }
    fail(ErrorKind::bad_request, "--scheduler is \"{}\": accepted are {}", name, accepted_names());
}

// The settings of `from` as `to` reads them. As in Diffusers' from_config, what both know carries
// over and the rest has its defaults, with two differences: the flow shift carries over although
// FlowMatchEuler calls it "shift" and the others "flow_shift" (from_config loses it, so that the
// same model would run unshifted), and a config of a FlowMatch class turns on what makes a flow
// model of UniPC and DPM++.
void carry_over(SchedulerConfig& config, std::string_view from_class, const Row& to) {
    const bool flow_class = from_class.starts_with("FlowMatch");
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
    if (options.flow_shift) config.set(std::string(row.shift_key), *options.flow_shift);
    return row.make(config);
}

std::vector<std::string> scheduler_names() {
    std::vector<std::string> names = {"auto"};
    for (const Row& row : kSchedulers) names.emplace_back(row.name);
    names.insert(names.end(), kNotBuiltYet.begin(), kNotBuiltYet.end());
    return names;
}

}  // namespace zoetrope
