// zoetrope generate: flags -> Request -> Engine -> files.
#include "base/error.h"
#include "base/log.h"
#include "base/sizes.h"
#include "cli/commands.h"
#include "cli/progress_bar.h"
#include "cli/run_flags.h"
#include "engine/checkpoint.h"
#include "engine/engine.h"
#include "engine/fingerprint.h"
#include "engine/output.h"
#include "net/hub_cache.h"

#include <nlohmann/json.hpp>

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>

namespace zoetrope::cli {
namespace {

constexpr Command kCommand{.name = "generate",
                           .summary = "Makes a video from a prompt.",
                           .usage = "--prompt TEXT [flags]"};

// --pull: brings the repository that --model-path names.
void pull_model(const Arguments& arguments, std::stop_token stop) {
    const std::string name = arguments.text("--model-path").value_or("");
    if (!arguments.on("--pull") || std::filesystem::exists(name)) return;
    if (!is_repository_name(name) || !find_snapshot(name).empty()) return;
    pull_with_progress({.repository = name}, stop);
}

void introduce_embedded(const EmbeddedInfo& info, const std::string& prompt) {
    std::string line =
        fmt::format("using the embedded model {}. It understands: {}", info.name, info.understands);
    const auto unknown = words_never_seen(info, prompt);
    const bool animates = info.name == kEmbeddedAnimate;
    if (!unknown.empty())
        line += fmt::format(" Words that it never saw: {}.", fmt::join(unknown, ", "));
    log::info(
        "{} A real Wan model: --model-path FOLDER, or --model-path {}", line,
        animates ? "Wan-AI/Wan2.2-Animate-14B-Diffusers" : "Wan-AI/Wan2.1-T2V-1.3B-Diffusers");
}

void introduce_segments(const ResolvedRequest& request) {
    const plan::SegmentPlan& plan = request.segments;
    double seconds = 0;
    for (const double segment : request.segment_seconds) seconds += segment;
    log::info("{} segments of up to {} frames, overlap {}; predicted {} ({})", plan.segments.size(),
              plan.longest(0), plan.overlap, format_seconds(seconds), request.cost_source);
    if (!request.cuts.empty())
        log::info("scene changes at frame{} {}", request.cuts.size() == 1 ? "" : "s",
                  fmt::join(request.cuts, ", "));
}

nlohmann::json report_of(const Report& report, const ResolvedRequest& request, const Engine& engine,
                         const std::vector<std::filesystem::path>& files) {
    nlohmann::json json = to_json(report);
    json["settings"] = nlohmann::json::parse(settings_json(request, engine));
    json["seed"] = request.seed;
    json["outputs"] = nlohmann::json::array();
    for (const auto& file : files) json["outputs"].push_back(file.string());
    return json;
}

// Names of files may hold bytes that are not UTF-8, which JSON does not: U+FFFD stands for them.
std::string text_of(const nlohmann::json& report) {
    return report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

void write_report(const std::string& path, const nlohmann::json& report) {
    std::ofstream file(path);
    file << text_of(report);
    file.close();
    if (file.good()) return;
    std::error_code ignored;
    if (std::filesystem::is_regular_file(path, ignored))
        std::filesystem::remove(path, ignored);  // half a report, and never a device
    fail(ErrorKind::io, "--perf-dump-path {}: the report cannot be written there", path);
}

// --state-dir, --checkpoint-every, --resume.
struct StateFlags {
    std::optional<std::string> folder;
    int every = 1;  // steps between saves
    bool resume = false;
};

StateFlags state_flags_of(const Arguments& arguments) {
    StateFlags flags{.folder = arguments.text("--state-dir"),
                     .every = int_in(arguments, "--checkpoint-every", 1, kMostSteps).value_or(1),
                     .resume = arguments.on("--resume")};
    const char* needs = flags.resume                            ? "--resume"
                        : arguments.given("--checkpoint-every") ? "--checkpoint-every"
                                                                : nullptr;
    ZT_CHECK(flags.folder || needs == nullptr, bad_request,
             "{} needs the folder with the run's state: give it with --state-dir", needs);
    return flags;
}

std::unique_ptr<StateFolder> open_state(const StateFlags& flags) {
    if (!flags.folder) return nullptr;
    auto folder = std::make_unique<StateFolder>(*flags.folder);
    ZT_CHECK(!flags.resume || folder->was_used(), bad_request,
             "--resume: '{}' holds no state of a run: leave --resume out to begin one there",
             *flags.folder);
    return folder;
}

void announce(const ResolvedRequest& request, const Engine& engine) {
    if (const auto& embedded = engine.model().embedded)
        introduce_embedded(*embedded, request.request.prompt);
    for (const std::string& warning : request.warnings) log::warning("{}", warning);
    for (const auto& adapter : engine.adapter_reports()) {
        log::info("adapter {}: {} parameters of rank up to {}, strength {}{}, read in {:.2f} s",
                  adapter.name, adapter.targets, adapter.rank, adapter.strength,
                  adapter.expert == "both" ? "" : ", expert of " + adapter.expert + " noise",
                  adapter.seconds);
    }
    const auto plural = [](int n) { return n == 1 ? "" : "s"; };
    log::info("{}x{}, {} frame{}, {} step{}, seed {}, {}{}", request.width, request.height,
              request.num_frames, plural(request.num_frames), request.num_inference_steps,
              plural(request.num_inference_steps), request.seed, engine.dtype(),
              engine.quantization() == "none" ? "" : ", " + engine.quantization());
    if (request.segments.segments.size() > 1) introduce_segments(request);
}

// Generates and writes. checkpoint: null where no state is kept. -> the files
std::vector<std::filesystem::path> generate_files(Engine& engine, const ResolvedRequest& request,
                                                  Output& output, Checkpoint* checkpoint,
                                                  std::stop_token stop, Report& report) {
    SegmentHooks hooks;
    if (checkpoint != nullptr) {
        hooks = checkpoint->hooks();
    } else {
        hooks.end_frames = [&output] { output.end_segment(); };
    }
    if (!report.resumed_from.empty()) {
        const auto& from = report.resumed_from.back();
        log::info("going on behind step {} of segment {} of {}", from.step, from.segment + 1,
                  request.segments.segments.size());
    }
    ProgressBar bar(::isatty(STDERR_FILENO) == 1);
    const RunControl control{[&bar](const Progress& progress) { bar.show(progress); }, stop};
    return output.finish(engine.generate(request, output.callback(), control, report, hooks));
}

// The same with what was reached kept in the state folder.
std::vector<std::filesystem::path> generate_with_state(Engine& engine,
                                                       const ResolvedRequest& request,
                                                       Output& output, StateFolder& folder,
                                                       int every, std::stop_token stop,
                                                       Report& report) {
    Checkpoint checkpoint(folder, every, request, report, output);
    try {
        return generate_files(engine, request, output, &checkpoint, stop, report);
    } catch (const Error& error) {
        try {
            checkpoint.save_pending();
        } catch (const Error& while_saving) {
            log::warning("the last steps are not saved: {}", while_saving.what());
        }
        if (!folder.has_progress()) throw;
        const bool stopped = error.kind() == ErrorKind::cancelled;
        throw Error(error.kind(), fmt::format("{}; --resume goes on from '{}'",
                                              stopped ? "stopped as asked" : error.what(),
                                              folder.path().string()));
    }
}

// -> the report
nlohmann::json run(Engine& engine, const ResolvedRequest& request, Output& output,
                   StateFolder* state, int every, std::stop_token stop) {
    Report report;
    const auto files =
        state != nullptr ? generate_with_state(engine, request, output, *state, every, stop, report)
                         : generate_files(engine, request, output, nullptr, stop, report);
    if (const std::string drift = drift_summary(report); !drift.empty()) log::info("{}", drift);
    if (request.segments.segments.size() > 1) log::info("{}", pipeline_summary(report));
    for (const auto& file : files) log::info("saved {}", file.string());
    const nlohmann::json json = report_of(report, request, engine, files);
    if (state != nullptr) {
        std::vector<std::string> absolute;
        for (const auto& file : files) absolute.push_back(std::filesystem::absolute(file).string());
        state->finish({{"files", absolute}, {"report", json}});
    }
    return json;
}

// Says again what the run that a folder holds has made.
void repeat_result(const StateFolder& folder) {
    namespace fs = std::filesystem;
    for (const std::string& file : folder.result().value("files", std::vector<std::string>())) {
        ZT_CHECK(fs::exists(file), not_found,
                 "--resume: the run in '{}' is finished, and {} is not there any more: leave "
                 "--resume out to make it anew",
                 folder.path().string(), file);
        log::info("finished before: saved {}", file);
    }
}

}  // namespace

int generate(Words words, std::stop_token stop) {
    const auto arguments = Arguments::parse(kCommand, generate_flags(), words);
    if (!arguments) return 0;
    const auto report_path = arguments->text("--perf-dump-path");
    if (report_path) check_writable("--perf-dump-path", *report_path);
    const StateFlags state_flags = state_flags_of(*arguments);
    Request wanted = request_of(*arguments);
    const EngineOptions options = engine_options_of(*arguments);
    const std::unique_ptr<StateFolder> state = open_state(state_flags);
    if (state && state_flags.resume) take_up(wanted, *state);
    pull_model(*arguments, stop);
    Engine engine(ModelFolder::open(model_paths(*arguments, wanted)), options);
    ResolvedRequest request = engine.resolve(wanted);
    if (!prompt_is_given(*arguments)) request.request.prompt = prompt_without_one(request, engine);
    Output output({.path = arguments->text("--output-path").value_or("outputs"),
                   .file_name = arguments->text("--output-file-name").value_or(""),
                   .parts = state ? state->segments() : std::filesystem::path()},
                  request, engine);
    nlohmann::json report;
    if (state) {
        begin_or_resume(*state, state_flags.resume, request,
                        fingerprint(request, engine, output.paths().front()));
    }
    if (state && !state->result().is_null()) {
        repeat_result(*state);
        report = state->result().value("report", nlohmann::json());
    } else {
        announce(request, engine);
        report = run(engine, request, output, state.get(), state_flags.every, stop);
    }
    if (report_path) write_report(*report_path, report);
    if (arguments->on("--json")) std::cout << text_of(report);
    return 0;
}

}  // namespace zoetrope::cli
