#include "engine/checkpoint.h"

#include "base/error.h"
#include "base/log.h"
#include "engine/fingerprint.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

namespace zoetrope {
namespace {

using nlohmann::json;

constexpr const char* kDescription = "description";  // of the run: fingerprint()
constexpr const char* kSegments = "segment_plan";
constexpr const char* kProcessor = "processor";

// A value of a state file. Errors: io where it is not there or of another type.
template <typename T>
T value_of(const json& values, const char* key) {
    try {
        return values.at(key).get<T>();
    } catch (const json::exception&) {
        fail(ErrorKind::io, "the saved state cannot be used: its '{}' is not as it was written",
             key);
    }
}

json json_of(const plan::SegmentPlan& plan) {
    json segments = json::array(), shots = json::array();
    for (const plan::Segment& s : plan.segments)
        segments.push_back(
            {s.start, s.length, s.carried_frames, s.padded_frames, s.restart ? 1 : 0});
    for (const plan::Shot& s : plan.shots)
        shots.push_back({s.start, s.generated_frames, s.source_start, s.source_frames});
    return {{"policy", plan::name_of(plan.policy)},
            {"num_frames", plan.num_frames},
            {"overlap", plan.overlap},
            {"segments", segments},
            {"shots", shots},
            {"generated_frames", plan.generated_frames},
            {"denoised_frames", plan.denoised_frames},
            {"padded_frames", plan.padded_frames},
            {"dropped_frames", plan.dropped_frames},
            {"cost", plan.cost},
            {"warnings", plan.warnings}};
}

plan::SegmentPlan segment_plan_of(const json& values) {
    plan::SegmentPlan plan;
    plan.policy = plan::parse_segment_policy(value_of<std::string>(values, "policy"));
    plan.num_frames = value_of<int>(values, "num_frames");
    plan.overlap = value_of<int>(values, "overlap");
    for (const auto& s : value_of<std::vector<std::array<int, 5>>>(values, "segments"))
        plan.segments.push_back({s[0], s[1], s[2], s[3], s[4] != 0});
    for (const auto& s : value_of<std::vector<std::array<int, 4>>>(values, "shots"))
        plan.shots.push_back({s[0], s[1], s[2], s[3]});
    plan.generated_frames = value_of<int>(values, "generated_frames");
    plan.denoised_frames = value_of<int>(values, "denoised_frames");
    plan.padded_frames = value_of<int>(values, "padded_frames");
    plan.dropped_frames = value_of<int>(values, "dropped_frames");
    plan.cost = value_of<double>(values, "cost");
    plan.warnings = value_of<std::vector<std::string>>(values, "warnings");
    return plan;
}

json json_of(const ColorStatistics& statistics) {
    return {{"mean", statistics.mean}, {"deviation", statistics.deviation}};
}

ColorStatistics statistics_of(const json& values) {
    return {.mean = value_of<std::array<double, 3>>(values, "mean"),
            .deviation = value_of<std::array<double, 3>>(values, "deviation")};
}

std::string scheduler_tensor(std::size_t i) { return fmt::format("scheduler.{}", i); }

at::Tensor tensor_of(const SavedState& saved, const std::string& name) {
    const auto found = saved.tensors.find(name);
    return found == saved.tensors.end() ? at::Tensor() : found->second;
}

}  // namespace

std::vector<NamedTensor> tensors_of(const LoopState& state) {
    std::vector<NamedTensor> tensors = {{"latents", state.latents}, {"generator", state.generator}};
    for (std::size_t i = 0; i < state.scheduler.tensors.size(); ++i) {
        if (state.scheduler.tensors[i].defined())
            tensors.push_back({scheduler_tensor(i), state.scheduler.tensors[i]});
    }
    return tensors;
}

nlohmann::json values_of(const LoopState& state) {
    return {{"step", state.step},
            {"scheduler",
             {{"next_step", state.scheduler.next_step},
              {"lower_order_nums", state.scheduler.lower_order_nums},
              {"tensors", state.scheduler.tensors.size()},
              {"numbers", state.scheduler.numbers}}}};
}

LoopState loop_state_of(const SavedState& saved) {
    constexpr std::size_t kMostTensors = 64;  // more than any scheduler keeps
    LoopState state;
    state.step = value_of<int>(saved.values, "step");
    state.latents = tensor_of(saved, "latents");
    state.generator = tensor_of(saved, "generator");
    const json scheduler = value_of<json>(saved.values, "scheduler");
    state.scheduler.next_step = value_of<int>(scheduler, "next_step");
    state.scheduler.lower_order_nums = value_of<int>(scheduler, "lower_order_nums");
    state.scheduler.numbers = value_of<std::vector<double>>(scheduler, "numbers");
    const auto tensors = value_of<std::size_t>(scheduler, "tensors");
    ZT_CHECK(state.latents.defined() && state.generator.defined() && tensors <= kMostTensors, io,
             "the saved state cannot be used: latents, generator or scheduler are not there");
    for (std::size_t i = 0; i < tensors; ++i)
        state.scheduler.tensors.push_back(tensor_of(saved, scheduler_tensor(i)));
    return state;
}

std::vector<NamedTensor> tensors_of(const Carried& carried) {
    std::vector<NamedTensor> tensors;
    const auto add = [&tensors](const char* name, const at::Tensor& tensor) {
        if (tensor.defined()) tensors.push_back({name, tensor});
    };
    add("tail", carried.tail);
    add("tail_latents", carried.tail_latents);
    add("generator", carried.generator);
    return tensors;
}

nlohmann::json values_of(const Carried& carried) {
    json drift = json::array();
    for (const Report::Drift& join : carried.drift) {
        drift.push_back({{"join", join.join},
                         {"frame", join.frame},
                         {"before", json_of(join.before)},
                         {"after", json_of(join.after)},
                         {"segment", json_of(join.segment)},
                         {"first", json_of(join.first)},
                         {"overlap_mean_difference", join.overlap_mean_difference}});
    }
    return {{"next_segment", carried.next_segment},
            {"frames_given", carried.frames_given},
            {"first", carried.first ? json_of(*carried.first) : json()},
            {"seconds", carried.seconds},
            {"drift", drift}};
}

Carried carried_of(const SavedState& saved) {
    const json& values = saved.values;
    Carried carried;
    carried.next_segment = value_of<int>(values, "next_segment");
    carried.frames_given = value_of<int>(values, "frames_given");
    carried.tail = tensor_of(saved, "tail");
    carried.tail_latents = tensor_of(saved, "tail_latents");
    carried.generator = tensor_of(saved, "generator");
    if (const json first = value_of<json>(values, "first"); !first.is_null())
        carried.first = statistics_of(first);
    carried.seconds = value_of<std::vector<double>>(values, "seconds");
    for (const json& join : value_of<std::vector<json>>(values, "drift")) {
        Report::Drift drift;
        drift.join = value_of<int>(join, "join");
        drift.frame = value_of<int>(join, "frame");
        drift.before = statistics_of(value_of<json>(join, "before"));
        drift.after = statistics_of(value_of<json>(join, "after"));
        drift.segment = statistics_of(value_of<json>(join, "segment"));
        drift.first = statistics_of(value_of<json>(join, "first"));
        drift.overlap_mean_difference =
            value_of<std::array<double, 3>>(join, "overlap_mean_difference");
        carried.drift.push_back(drift);
    }
    return carried;
}

void begin_or_resume(StateFolder& folder, bool resume, const ResolvedRequest& request,
                     const nlohmann::json& fingerprint) {
    const std::string path = folder.path().string();
    const json& stored = folder.run();
    if (!resume) {
        ZT_CHECK(!folder.has_progress(), bad_request,
                 "--state-dir is '{}', which holds an unfinished run: give --resume to go on with "
                 "it, another folder, or remove it to begin anew",
                 path);
    } else if (!stored.is_null()) {
        const auto different = differences(stored.value(kDescription, json()), fingerprint);
        constexpr std::size_t kMost = 3;
        const std::size_t shown = std::min(kMost, different.size());
        ZT_CHECK(
            different.empty(), bad_request,
            "--resume: the run in '{}' is another one: {}{}; give what it was begun with, or "
            "another --state-dir",
            path, fmt::join(different.begin(), different.begin() + shown, "; "),
            different.size() > shown ? fmt::format("; and {} more", different.size() - shown) : "");
        if (stored.value(kProcessor, "") != processor_name())
            log::warning(
                "the run in '{}' was begun on {} and goes on on {}: the result may differ in the "
                "last bits from that of an uninterrupted run",
                path, stored.value(kProcessor, ""), processor_name());
        return;
    } else {
        log::info("--resume: nothing was finished in '{}' yet: beginning at the start", path);
    }
    folder.begin({{kDescription, fingerprint},
                  {kSegments, json_of(request.segments)},
                  {kProcessor, processor_name()}});
}

void take_up(Request& request, const StateFolder& folder) {
    if (folder.run().is_null()) return;
    if (!request.seed) {
        const json description = value_of<json>(folder.run(), kDescription);
        request.seed = value_of<std::uint64_t>(value_of<json>(description, "settings"), "seed");
    }
    request.earlier_segments = segment_plan_of(value_of<json>(folder.run(), kSegments));
}

Checkpoint::Checkpoint(StateFolder& folder, int every, const ResolvedRequest& request,
                       Report& report, Output& output)
    : folder_(folder), every_(every), request_(request), report_(report), output_(output) {}

SegmentHooks Checkpoint::hooks() {
    SegmentHooks hooks;
    restore(hooks);
    hooks.end_frames = [this] { output_.end_segment(); };
    hooks.after_step = [this](int segment, const LoopState& state) { after_step(segment, state); };
    hooks.after_segment = [this](const Carried& carried, const ReportMark& mark) {
        after_segment(carried, mark);
    };
    return hooks;
}

// A loop's state that is older than what is carried over is of a segment that is finished.
void Checkpoint::restore(SegmentHooks& hooks) {
    const int segments = static_cast<int>(request_.segments.segments.size());
    const auto carried = folder_.load(StateFolder::kCarried);
    const auto loop = folder_.load(StateFolder::kLoop);
    if (carried) {
        hooks.begin = carried_of(*carried);
        segment_ = hooks.begin->next_segment;
        auto parts = value_of<std::vector<int>>(carried->values, "parts");
        const auto finished = static_cast<std::size_t>(segment_);
        ZT_CHECK(segment_ >= 1 && segment_ <= segments && parts.size() == finished &&
                     hooks.begin->seconds.size() == finished,
                 io, "the saved state cannot be used: it is of segment {} of {}", segment_,
                 segments);
        output_.resume(std::move(parts));
    }
    const bool inside = loop && value_of<int>(loop->values, "segment") == segment_;
    int step = request_.first_step;
    if (inside) {
        hooks.begin_loop = loop_state_of(*loop);
        step = hooks.begin_loop->step;
        ZT_CHECK(step > request_.first_step && step <= request_.last_step, io,
                 "the saved state cannot be used: it is of step {}, and the run has {} to {}", step,
                 request_.first_step, request_.last_step);
        seconds_before_ = value_of<double>(loop->values, "seconds");
        hooks.begin_loop_seconds = seconds_before_;
    }
    if (!carried && !inside) return;
    restore_report(value_of<json>(inside ? loop->values : carried->values, "report"));
    report_.resumed_from.push_back({segment_, step});
    loop_begin_ = report_.step_seconds.size();
}

void Checkpoint::after_step(int segment, const LoopState& state) {
    const Pending step{segment, state, {report_.stages.size(), report_.step_seconds.size()}};
    const bool due = state.step % every_ == 0 || state.step == request_.last_step;
    if (due && segment == segment_) {
        save_loop(step);
        pending_.reset();
    } else {
        pending_ = step;
    }
}

// The part of the segment is on the disk (end_frames): without it, what is carried over would go on
// behind a gap.
void Checkpoint::after_segment(const Carried& carried, const ReportMark& mark) {
    json values = values_of(carried);
    values["parts"] = output_.parts();
    values["report"] = report_so_far(mark, 0);
    if (request_.segments.segments.size() > 1)
        folder_.save(StateFolder::kCarried, tensors_of(carried), values);
    segment_ = carried.next_segment;
    loop_begin_ = mark.steps;
    seconds_before_ = 0;
    save_pending();
}

void Checkpoint::save_pending() {
    if (pending_ && pending_->segment == segment_) save_loop(*pending_);
    pending_.reset();
}

void Checkpoint::save_loop(const Pending& step) {
    const auto& seconds = report_.step_seconds;
    const double in_loop =
        std::accumulate(seconds.begin() + static_cast<std::ptrdiff_t>(loop_begin_),
                        seconds.begin() + static_cast<std::ptrdiff_t>(step.mark.steps), 0.0);
    json values = values_of(step.state);
    values["segment"] = segment_;
    values["seconds"] = seconds_before_ + in_loop;
    values["report"] = report_so_far(step.mark, in_loop);
    folder_.save(StateFolder::kLoop, tensors_of(step.state), values);
}

// seconds_in_loop: of the steps of a loop that has not ended, whose stage is not in the report yet.
nlohmann::json Checkpoint::report_so_far(const ReportMark& mark, double seconds_in_loop) const {
    json stages = json::array();
    for (std::size_t i = 0; i < mark.stages; ++i)
        stages.push_back({report_.stages[i].stage, report_.stages[i].seconds});
    if (seconds_in_loop > 0)
        stages.push_back({std::string(name_of(Stage::denoise)), seconds_in_loop});
    json resumed = json::array();
    for (const auto& from : report_.resumed_from) resumed.push_back({from.segment, from.step});
    const std::vector<double> steps(
        report_.step_seconds.begin(),
        report_.step_seconds.begin() + static_cast<std::ptrdiff_t>(mark.steps));
    return {{"stages", stages}, {"step_seconds", steps}, {"resumed_from", resumed}};
}

void Checkpoint::restore_report(const nlohmann::json& saved) {
    using Stages = std::vector<std::pair<std::string, double>>;
    for (auto& [stage, seconds] : value_of<Stages>(saved, "stages"))
        report_.stages.push_back({stage, seconds});
    report_.step_seconds = value_of<std::vector<double>>(saved, "step_seconds");
    for (const auto& [segment, step] :
         value_of<std::vector<std::pair<int, int>>>(saved, "resumed_from"))
        report_.resumed_from.push_back({segment, step});
}

}  // namespace zoetrope
