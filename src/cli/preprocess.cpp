// zoetrope preprocess: a driving clip -> pose, face, background and mask videos.
#include "base/error.h"
#include "base/log.h"
#include "base/partial_file.h"
#include "base/sizes.h"
#include "cli/commands.h"
#include "cli/preprocess_flags.h"
#include "cli/progress_bar.h"
#include "engine/preprocessing.h"

#include <nlohmann/json.hpp>

#include <unistd.h>

#include <cmath>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>

namespace zoetrope::cli {
namespace {

namespace fs = std::filesystem;

constexpr Command kCommand{
    .name = "preprocess",
    .summary =
        "Makes the videos that drive Wan-Animate from a clip: pose and face, and for "
        "replacement background and mask.",
    .usage = "--video CLIP --output-path FOLDER [flags]"};

constexpr Flag kOwnFlags[] = {
    kConfigFlag,
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
    {"--points",
     FlagKind::text,
     "FILE",
     "one line of JSON per frame: the 133 points (COCO-WholeBody) of the person followed",
     {},
     {}},
    {"--json", FlagKind::toggle, "", "the report as one JSON object on stdout", {}, {}},
    {"--replace",
     FlagKind::toggle,
     "",
     "make the background and mask videos too, for the replacement of the person",
     {},
     {}},
};

std::vector<Flag> all_flags() {
    std::vector<Flag> flags(std::begin(kOwnFlags), std::end(kOwnFlags));
    flags.insert(flags.end(), preprocess_flags().begin(), preprocess_flags().end());
    return flags;
}

preprocess::Options options_of(const Arguments& arguments) {
    preprocess::Options options;
    ZT_CHECK(arguments.given("--video"), bad_request,
             "--video is missing: give the clip that drives the character");
    ZT_CHECK(arguments.given("--output-path"), bad_request,
             "--output-path is missing: give the folder for the videos");
    options.video = existing_path(arguments, "--video");
    options.image = existing_path(arguments, "--image");
    options.output = *arguments.text("--output-path");
    options.replace = arguments.on("--replace");
    if (const auto fps = arguments.number("--fps")) {
        ZT_CHECK(*fps >= 0 && *fps <= 1000, bad_request, "--fps is {}: accepted are 0 to 1000",
                 *fps);
        options.fps = *fps;
    }
    read_preprocess_flags(arguments, options);
    complete(options, int_in(arguments, "--threads", 1, 1024).value_or(0));
    const auto cache = arguments.text("--cache-dir");
    if (cache != "off")
        options.cache = cache ? fs::path(*cache) : preprocess::default_cache_folder();
    return options;
}

// What was found in each frame, a line of JSON for each; complete or absent.
class PointsFile {
public:
    explicit PointsFile(const fs::path& target)
        : folders_(target), file_(target), stream_(file_.path()) {}

    void write(const preprocess::JoinedFrame& frame) {
        nlohmann::json line = {{"frame", frame.frame}, {"found", frame.found}, {"cut", frame.cut}};
        if (!frame.found) line["reason"] = frame.why_not;
        if (frame.person) {
            const auto& box = frame.person->box;
            line["box"] = {rounded(box.x0), rounded(box.y0), rounded(box.x1), rounded(box.y1)};
            auto& points = line["points"] = nlohmann::json::array();
            for (const auto& point : frame.person->points)
                points.push_back({rounded(point.x), rounded(point.y), rounded(point.score)});
        }
        stream_ << line.dump() << '\n';
    }

    void publish() {
        stream_.close();
        ZT_CHECK(!stream_.fail(), io, "{}: could not be written", file_.target().string());
        file_.publish();
    }

private:
    static double rounded(float value) { return std::round(value * 1e3) / 1e3; }

    ParentFolders folders_;
    PartialFile file_;
    std::ofstream stream_;
};

void tell(const preprocess::Report& report) {
    if (!report.damage.empty()) log::warning("the clip ends early: {}", report.damage);
    if (!report.bad_frames.empty()) {
        log::warning(
            "the person was not found in {} of {} frames, the first of them frame {} ({}); {} of "
            "them show no pose",
            report.bad_frames.size(), report.frames, report.bad_frames.front().frame,
            report.bad_frames.front().reason, report.empty_frames);
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
    const auto arguments = Arguments::parse(kCommand, all_flags(), words);
    if (!arguments) return 0;
    const preprocess::Options options = options_of(*arguments);
    std::optional<PointsFile> points;
    preprocess::Listener listener;
    if (const auto file = arguments->text("--points")) {
        points.emplace(*file);
        listener.joined = [&points](const preprocess::JoinedFrame& frame) { points->write(frame); };
    }
    preprocess::Report report;
    {
        ProgressBar bar(::isatty(STDERR_FILENO) == 1);
        const RunControl control{[&bar](const Progress& progress) { bar.show(progress); }, stop};
        report = preprocess::run(options, control, listener);
    }
    if (points) points->publish();
    tell(report);
    if (arguments->on("--json")) {
        std::cout << to_json(report).dump(2, ' ', false, nlohmann::json::error_handler_t::replace)
                  << '\n';
    }
    return 0;
}

}  // namespace zoetrope::cli
