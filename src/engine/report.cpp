#include "engine/report.h"

#include "engine/preprocessing.h"

#include <nlohmann/json.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace zoetrope {
namespace {

constexpr double kFlat = 1e-6;  // a deviation below it is none

std::array<double, 3> difference(const std::array<double, 3>& a, const std::array<double, 3>& b) {
    return {a[0] - b[0], a[1] - b[1], a[2] - b[2]};
}

// Of contrasts; 1 where there is none to begin with.
std::array<double, 3> ratio(const std::array<double, 3>& a, const std::array<double, 3>& b) {
    std::array<double, 3> ratios{};
    for (std::size_t c = 0; c < 3; ++c) ratios[c] = b[c] < kFlat ? 1 : a[c] / b[c];
    return ratios;
}

nlohmann::json to_json(const ColorStatistics& colors) {
    return {{"mean", colors.mean}, {"std", colors.deviation}};
}

nlohmann::json to_json(const Report::Drift& drift) {
    return {{"join", drift.join},
            {"frame", drift.frame},
            {"mean_difference", difference(drift.after.mean, drift.before.mean)},
            {"contrast_ratio", ratio(drift.after.deviation, drift.before.deviation)},
            {"mean_difference_from_first", difference(drift.segment.mean, drift.first.mean)},
            {"contrast_ratio_to_first", ratio(drift.segment.deviation, drift.first.deviation)},
            {"overlap_mean_difference", drift.overlap_mean_difference},
            {"before", to_json(drift.before)},
            {"after", to_json(drift.after)}};
}

nlohmann::json to_json(const Report::Plan& plan) {
    const plan::SegmentPlan& cut = plan.segments;
    nlohmann::json segments = nlohmann::json::array();
    for (std::size_t i = 0; i < cut.segments.size(); ++i) {
        const plan::Segment& segment = cut.segments[i];
        segments.push_back({{"start", segment.start},
                            {"length", segment.length},
                            {"carried_frames", segment.carried_frames},
                            {"padded_frames", segment.padded_frames},
                            {"restart", segment.restart},
                            {"predicted_seconds", plan.predicted[i]},
                            {"seconds", plan.measured[i]}});
    }
    return {{"policy", plan::name_of(cut.policy)},
            {"overlap", cut.overlap},
            {"carry", name_of(plan.joins.carry)},
            {"overlap_fusion", name_of(plan.joins.fusion)},
            {"color_match", plan.joins.color_match},
            {"cuts", plan.cuts},
            {"generated_frames", cut.generated_frames},
            {"denoised_frames", cut.denoised_frames},
            {"padded_frames", cut.padded_frames},
            {"dropped_frames", cut.dropped_frames},
            {"segments", segments},
            {"predicted_seconds", plan.predicted_seconds()},
            {"seconds", plan.seconds()},
            {"cost_source", plan.cost_source}};
}

using StageSeconds = std::pair<const char*, double>;

std::array<StageSeconds, 4> stages_of(const Report::Pipeline& pipeline) {
    return {{{"prepare", pipeline.prepare},
             {"denoise", pipeline.denoise},
             {"decode", pipeline.decode},
             {"write", pipeline.write}}};
}

nlohmann::json to_json(const Report::Pipeline& pipeline) {
    nlohmann::json json = {{"seconds", pipeline.seconds},
                           {"waited_seconds", pipeline.waited},
                           {"cpu_running_seconds", pipeline.cpu_running},
                           {"cpu_waiting_seconds", pipeline.cpu_waiting}};
    for (const auto& [stage, busy] : stages_of(pipeline)) {
        json["stages"][stage] = {{"busy_seconds", busy}, {"idle_seconds", pipeline.seconds - busy}};
    }
    return json;
}

// The number that is farthest from `centre`.
double farthest(const std::array<double, 3>& numbers, double centre, double so_far) {
    for (const double number : numbers) {
        if (std::abs(number - centre) > std::abs(so_far - centre)) so_far = number;
    }
    return so_far;
}

}  // namespace

double Report::Plan::predicted_seconds() const {
    return std::accumulate(predicted.begin(), predicted.end(), 0.0);
}

double Report::Plan::seconds() const {
    return std::accumulate(measured.begin(), measured.end(), 0.0);
}

bool is_disturbed(const Report::Pipeline& pipeline, double most_waiting) {
    return pipeline.cpu_waiting > most_waiting * pipeline.cpu_running;
}

std::string pipeline_summary(const Report& report) {
    const Report::Pipeline& pipeline = report.pipeline;
    std::string line = fmt::format("seconds at work (idle) of {:.1f}: ", pipeline.seconds);
    for (const auto& [stage, busy] : stages_of(pipeline))
        line += fmt::format("{} {:.1f} ({:.1f}), ", stage, busy, pipeline.seconds - busy);
    return line + fmt::format("{:.1f} waiting for frames behind", pipeline.waited);
}

std::optional<WorstDrift> worst_drift(const Report& report) {
    if (report.drift.empty()) return std::nullopt;
    const Report::Drift& last = report.drift.back();
    WorstDrift worst{
        .joins = static_cast<int>(report.drift.size()),
        .from_first_mean = farthest(difference(last.segment.mean, last.first.mean), 0, 0),
        .from_first_contrast = farthest(ratio(last.segment.deviation, last.first.deviation), 1, 1)};
    for (const Report::Drift& drift : report.drift) {
        worst.mean = farthest(difference(drift.after.mean, drift.before.mean), 0, worst.mean);
        worst.contrast =
            farthest(ratio(drift.after.deviation, drift.before.deviation), 1, worst.contrast);
    }
    return worst;
}

std::string drift_summary(const Report& report) {
    const std::optional<WorstDrift> worst = worst_drift(report);
    if (!worst) return {};
    return fmt::format(
        "drift over {} join{}: a channel's mean changes by {:+.4f} and its contrast {:.3f} times "
        "at most; last segment against first {:+.4f}, {:.3f} times",
        worst->joins, worst->joins == 1 ? "" : "s", worst->mean, worst->contrast,
        worst->from_first_mean, worst->from_first_contrast);
}

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
    nlohmann::json memory = nlohmann::json::array();
    for (const auto& stage : report.memory.stages) {
        memory.push_back(
            {{"stage", stage.stage}, {"bytes", stage.total()}, {"parts", stage.parts}});
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
    nlohmann::json drift = nlohmann::json::array();
    for (const auto& join : report.drift) drift.push_back(to_json(join));
    nlohmann::json resumed = nlohmann::json::array();
    for (const auto& from : report.resumed_from)
        resumed.push_back({{"segment", from.segment}, {"step", from.step}});
    nlohmann::json json = {{"stages", stages},
                           {"resumed_from", resumed},
                           {"total_seconds", total},
                           {"step_seconds", report.step_seconds},
                           {"memory",
                            {{"predicted_peak_bytes", report.memory.peak()},
                             {"measured_peak_bytes", report.measured_peak_bytes},
                             {"predicted", memory}}},
                           {"adapters", adapters},
                           {"plan", to_json(report.plan)},
                           {"pipeline", to_json(report.pipeline)},
                           {"drift", drift},
                           {"warnings", report.warnings}};
    if (report.preprocessing) {
        json["preprocessing"] = to_json(report.preprocessing->clip);
        json["preprocessing"]["model_waited_seconds"] = report.preprocessing->model_waited;
        json["preprocessing"]["clip_waited_seconds"] = report.preprocessing->clip_waited;
    }
    return json;
}

}  // namespace zoetrope
