// zoetrope preprocess: a driving clip -> pose, face, background and mask videos.
#include "base/error.h"
#include "base/log.h"
#include "base/sizes.h"
#include "cli/commands.h"
#include "cli/progress_bar.h"
#include "engine/preprocessing.h"

#include <nlohmann/json.hpp>

#include <unistd.h>

#include <charconv>
#include <iostream>
#include <thread>

namespace zoetrope::cli {
namespace {

namespace fs = std::filesystem;

constexpr Command kCommand{
    .name = "preprocess",
    .summary =
        "Makes the videos that drive Wan-Animate from a clip: pose and face, and for "
        "replacement background and mask.",
    .usage = "--video CLIP --output-path FOLDER [flags]"};

constexpr Flag kFlags[] = {
    {"--config",
     FlagKind::text,
     "FILE",
     "TOML or JSON file with defaults; keys are the flags without dashes",
     {},
     {}},
    {"", FlagKind::heading, "", "Input and output", {}, {}},
    {"--video",
     FlagKind::text,
     "PATH",
     "the driving clip, or a folder of numbered pictures",
     {},
     {}},
    {"--image",
     FlagKind::text,
     "PATH",
     "the character; the pose video gets its shape, and src_ref.png is a copy",
     {},
     {}},
    {"--output-path",
     FlagKind::text,
     "FOLDER",
     "where src_pose.mp4, src_face.mp4, with --replace src_bg.mp4 and src_mask.mp4 go",
     {},
     {}},
    {"--resolution-area",
     FlagKind::text,
     "WxH",
     "at most as many pixels per frame; the clip's shape is kept (default 1280x720)",
     {},
     {}},
    {"--fps",
     FlagKind::number,
     "F",
     "frames per second of the videos; 0: the clip's own (default 30)",
     {},
     {}},
    {"--threads", FlagKind::integer, "N", "default: the cores this process may use", {}, {}},
    {"--cache-dir",
     FlagKind::text,
     "FOLDER",
     "keeps results for runs with the same inputs; 'off' keeps none (default: "
     "~/.cache/zoetrope/preprocess)",
     {},
     {}},
    {"--json", FlagKind::toggle, "", "the report as one JSON object on stdout", {}, {}},
    {"", FlagKind::heading, "", "People", {}, {}},
    {"--person",
     FlagKind::text,
     "WHO",
     "whom to follow where there are several: largest, center, or a number counted from the left "
     "(default largest)",
     {},
     {}},
    {"--on-bad-frame",
     FlagKind::text,
     "WHAT",
     "where the person is not found: hold the last pose, interpolate, or stop (default hold)",
     {},
     {}},
    {"--retarget", FlagKind::toggle, "", "fit the bones to the character in --image", {}, {}},
    {"--edited-reference",
     FlagKind::text,
     "PATH",
     "the character edited into a plain, frontal pose: --retarget measures it there",
     {},
     {}},
    {"", FlagKind::heading, "", "Replacement", {}, {}},
    {"--replace", FlagKind::toggle, "", "make the background and mask videos too", {}, {}},
    {"--mask-iterations", FlagKind::integer, "N", "how often the mask grows (default 3)", {}, {}},
    {"--mask-k", FlagKind::integer, "PIXELS", "by how much each time (default 7)", {}, {}},
    {"--mask-w-len", FlagKind::integer, "N", "blocks across the person's box (default 1)", {}, {}},
    {"--mask-h-len", FlagKind::integer, "N", "blocks down the person's box (default 1)", {}, {}},
    {"",
     FlagKind::heading,
     "",
     "Networks (default: MediaPipe's, which come with the program)",
     {},
     {}},
    {"--process-checkpoint",
     FlagKind::text,
     "FOLDER",
     "a Wan-Animate checkpoint's process_checkpoint: its YOLOv10 and ViTPose are used",
     {},
     {}},
    {"--det-model", FlagKind::text, "FILE", "YOLOv10, ONNX; with --pose-model", {}, {}},
    {"--pose-model", FlagKind::text, "FILE", "whole-body ViTPose, ONNX; with --det-model", {}, {}},
    {"--segmenter",
     FlagKind::text,
     "FILE",
     "an ONNX network for masks",
     "other networks for masks are not built yet; the pose network's own outline is used",
     {}},
};

// "1280x720" -> pixels.
std::int64_t area_of(const std::string& text) {
    const std::size_t cross = text.find('x');
    const auto side = [&](std::string_view part) {
        int value = 0;
        const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
        ZT_CHECK(error == std::errc() && end == part.data() + part.size() && value >= 1 &&
                     value <= 16384,
                 bad_request,
                 "--resolution-area is '{}': a width and a height of 1 to 16384 are wanted, as "
                 "1280x720",
                 text);
        return static_cast<std::int64_t>(value);
    };
    const std::string_view view = text;
    const bool two = cross != std::string::npos;
    return side(view.substr(0, cross)) * side(two ? view.substr(cross + 1) : std::string_view());
}

fs::path existing(const Arguments& arguments, std::string_view flag) {
    const auto path = arguments.text(flag);
    if (!path) return {};
    ZT_CHECK(fs::exists(*path), not_found, "{} is '{}': there is no such file or folder", flag,
             *path);
    return *path;
}

preprocess::Options options_of(const Arguments& arguments) {
    preprocess::Options options;
    ZT_CHECK(arguments.given("--video"), bad_request,
             "--video is missing: give the clip that drives the character");
    ZT_CHECK(arguments.given("--output-path"), bad_request,
             "--output-path is missing: give the folder for the videos");
    options.video = existing(arguments, "--video");
    options.image = existing(arguments, "--image");
    options.edited_reference = existing(arguments, "--edited-reference");
    options.output = *arguments.text("--output-path");
    options.replace = arguments.on("--replace");
    options.retarget = arguments.on("--retarget");
    if (const auto area = arguments.text("--resolution-area")) options.area = area_of(*area);
    if (const auto fps = arguments.number("--fps")) {
        ZT_CHECK(*fps >= 0 && *fps <= 1000, bad_request, "--fps is {}: accepted are 0 to 1000",
                 *fps);
        options.fps = *fps;
    }
    if (const auto who = arguments.text("--person"))
        options.person = preprocess::parse_person_choice(*who);
    if (const auto what = arguments.text("--on-bad-frame"))
        options.bad_frames = preprocess::parse_bad_frames(*what);
    auto& mask = options.mask;
    mask.iterations = int_in(arguments, "--mask-iterations", 0, 100).value_or(mask.iterations);
    mask.kernel = int_in(arguments, "--mask-k", 1, 501).value_or(mask.kernel);
    mask.columns = int_in(arguments, "--mask-w-len", 1, 4096).value_or(mask.columns);
    mask.rows = int_in(arguments, "--mask-h-len", 1, 4096).value_or(mask.rows);
    if (arguments.given("--process-checkpoint"))
        preprocess::use_process_checkpoint(existing(arguments, "--process-checkpoint"), options);
    if (arguments.given("--det-model")) options.detector = existing(arguments, "--det-model");
    if (arguments.given("--pose-model")) options.pose = existing(arguments, "--pose-model");
    if (options.detector.empty() || options.replace) options.mediapipe = pose_models_folder();
    const auto cores = static_cast<int>(std::max(std::thread::hardware_concurrency(), 1U));
    options.threads = int_in(arguments, "--threads", 1, 1024).value_or(cores);
    const auto cache = arguments.text("--cache-dir");
    if (cache != "off")
        options.cache = cache ? fs::path(*cache) : preprocess::default_cache_folder();
    return options;
}

nlohmann::ordered_json json_of(const preprocess::Report& report) {
    nlohmann::ordered_json json;
    json["frames"] = report.frames;
    json["fps"] = report.fps;
    json["width"] = report.width;
    json["height"] = report.height;
    json["networks"] = report.networks;
    json["from_cache"] = report.from_cache;
    json["seconds"] = report.pipeline.seconds;
    json["frames_per_second"] = report.pipeline.seconds > 0
                                    ? static_cast<double>(report.frames) / report.pipeline.seconds
                                    : 0;
    json["idle_seconds"] = report.pipeline.idle_seconds;
    json["stages"] = nlohmann::ordered_json::object();
    for (const auto& stage : report.pipeline.stages)
        json["stages"][stage.name == "source" ? "decode" : stage.name] = stage.seconds;
    json["bad_frames"] = nlohmann::ordered_json::array();
    for (const auto& bad : report.bad_frames)
        json["bad_frames"].push_back({{"frame", bad.frame}, {"reason", bad.reason}});
    json["cuts"] = report.cuts;
    json["crowded_frames"] = report.crowded_frames;
    if (!report.damage.empty()) json["damage"] = report.damage;
    json["outputs"] = nlohmann::ordered_json::array();
    for (const auto& file : report.files) json["outputs"].push_back(file.string());
    return json;
}

void tell(const preprocess::Report& report) {
    if (!report.damage.empty()) log::warning("the clip ends early: {}", report.damage);
    if (!report.bad_frames.empty()) {
        log::warning("the person was not found in {} of {} frames, the first of them frame {} ({})",
                     report.bad_frames.size(), report.frames, report.bad_frames.front().frame,
                     report.bad_frames.front().reason);
    }
    if (!report.cuts.empty())
        log::info("the clip has {} cuts, the first at frame {}", report.cuts.size(),
                  report.cuts.front());
    if (report.from_cache) {
        log::info("taken from an earlier run with the same inputs (--cache-dir off computes anew)");
    } else {
        log::info("{} frames in {}, {:.1f} a second", report.frames,
                  format_seconds(report.pipeline.seconds),
                  static_cast<double>(report.frames) / report.pipeline.seconds);
    }
    for (const auto& file : report.files) log::info("saved {}", file.string());
}

}  // namespace

int preprocess_clip(Words words, std::stop_token stop) {
    const auto arguments = Arguments::parse(kCommand, kFlags, words);
    if (!arguments) return 0;
    const preprocess::Options options = options_of(*arguments);
    preprocess::Report report;
    {
        ProgressBar bar(::isatty(STDERR_FILENO) == 1);
        const RunControl control{[&bar](const Progress& progress) { bar.show(progress); }, stop};
        report = preprocess::run(options, control);
    }
    tell(report);
    if (arguments->on("--json")) {
        std::cout << json_of(report).dump(2, ' ', false, nlohmann::json::error_handler_t::replace)
                  << '\n';
    }
    return 0;
}

}  // namespace zoetrope::cli
