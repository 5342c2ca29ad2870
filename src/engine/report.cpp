#include "engine/report.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace zoetrope {

std::int64_t MemoryPlan::StageMemory::total() const {
    std::int64_t sum = 0;
    for (const auto& [name, bytes] : parts) sum += bytes;
    return sum;
}

std::int64_t MemoryPlan::peak() const {
    std::int64_t most = 0;
    for (const auto& stage : stages) most = std::max(most, stage.total());
    return most;
}

void Report::add_stage(Stage stage, double seconds) {
    stages.push_back({std::string(name_of(stage)), seconds});
}

nlohmann::json to_json(const Report& report) {
    nlohmann::json stages = nlohmann::json::array();
    double total = 0;
    for (const auto& stage : report.stages) {
        stages.push_back({{"name", stage.stage}, {"seconds", stage.seconds}});
        total += stage.seconds;
    }
    nlohmann::json plan = nlohmann::json::array();
    for (const auto& stage : report.memory.stages) {
        plan.push_back({{"stage", stage.stage}, {"bytes", stage.total()}, {"parts", stage.parts}});
    }
    nlohmann::json adapters = nlohmann::json::array();
    for (const auto& adapter : report.adapters) {
        adapters.push_back({{"name", adapter.name},
                            {"file", adapter.file},
                            {"expert", adapter.expert},
                            {"strength", adapter.strength},
                            {"rank", adapter.rank},
                            {"targets", adapter.targets},
                            {"seconds", adapter.seconds}});
    }
    return {{"stages", stages},
            {"total_seconds", total},
            {"step_seconds", report.step_seconds},
            {"memory",
             {{"predicted_peak_bytes", report.memory.peak()},
              {"measured_peak_bytes", report.measured_peak_bytes},
              {"predicted", plan}}},
            {"adapters", adapters},
            {"warnings", report.warnings}};
}

}  // namespace zoetrope
