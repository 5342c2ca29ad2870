#include "cli/preprocess_flags.h"

#include "base/error.h"

#include <charconv>

namespace zoetrope::cli {
namespace {

namespace fs = std::filesystem;

using enum FlagKind;

constexpr Flag kFlags[] = {
    {"", heading, "", "Driving clip: people", {}, {}},
    {"--person",
     text,
     "WHO",
     "whom to follow where there are several: largest, center, or a number counted from the left; "
     "default: largest",
     {},
     {}},
    {"--on-bad-frame",
     text,
     "WHAT",
     "where the person is not found: hold the last pose, interpolate, or stop; default: hold",
     {},
     {}},
    {"--retarget", toggle, "", "fit the bones to the character in --image", {}, {}},
    {"--edited-reference",
     text,
     "PATH",
     "the character edited into a plain, frontal pose: --retarget measures it there",
     {},
     {}},
    {"--resolution-area",
     text,
     "WxH",
     "at most as many pixels per frame; the shape is kept; default: 1280x720",
     {},
     {}},
    {"", heading, "", "Driving clip: masks for replacement", {}, {}},
    {"--mask-iterations", integer, "N", "how often the mask grows; default: 3", {}, {}},
    {"--mask-k", integer, "PIXELS", "by how much each time; default: 7", {}, {}},
    {"--mask-w-len", integer, "N", "blocks across the person's box; default: 1", {}, {}},
    {"--mask-h-len", integer, "N", "blocks down the person's box; default: 1", {}, {}},
    {"--segmenter",
     text,
     "FILE",
     "an ONNX network that draws the person's outline; default: the body network's own",
     {},
     {}},
    {"",
     heading,
     "",
     "Driving clip: networks (default: MediaPipe's, which come with the program)",
     {},
     {}},
    {"--process-checkpoint",
     text,
     "FOLDER",
     "a Wan-Animate checkpoint's process_checkpoint: its YOLOv10 and ViTPose are used",
     {},
     {}},
    {"--det-model", text, "FILE", "YOLOv10, ONNX; with --pose-model", {}, {}},
    {"--pose-model", text, "FILE", "whole-body ViTPose, ONNX; with --det-model", {}, {}},
};

// "1280x720" -> pixels.
std::int64_t area_of(const std::string& given) {
    const std::size_t cross = given.find('x');
    const auto side = [&](std::string_view part) {
        int value = 0;
        const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
        ZT_CHECK(error == std::errc() && end == part.data() + part.size() && value >= 1 &&
                     value <= 16384,
                 bad_request,
                 "--resolution-area is '{}': a width and a height of 1 to 16384 are wanted, as "
                 "1280x720",
                 given);
        return static_cast<std::int64_t>(value);
    };
    const std::string_view view = given;
    const bool two = cross != std::string::npos;
    return side(view.substr(0, cross)) * side(two ? view.substr(cross + 1) : std::string_view());
}

}  // namespace

std::span<const Flag> preprocess_flags() { return kFlags; }

fs::path existing_path(const Arguments& arguments, std::string_view flag) {
    const auto path = arguments.text(flag);
    if (!path) return {};
    ZT_CHECK(fs::exists(*path), not_found, "{} is '{}': there is no such file or folder", flag,
             *path);
    return *path;
}

void read_preprocess_flags(const Arguments& arguments, preprocess::Options& options) {
    options.edited_reference = existing_path(arguments, "--edited-reference");
    options.retarget = arguments.on("--retarget");
    if (const auto area = arguments.text("--resolution-area")) options.area = area_of(*area);
    if (const auto who = arguments.text("--person"))
        options.person = preprocess::parse_person_choice(*who);
    if (const auto what = arguments.text("--on-bad-frame"))
        options.bad_frames = preprocess::parse_bad_frames(*what);
    auto& mask = options.mask;
    mask.iterations = int_in(arguments, "--mask-iterations", 0, 100).value_or(mask.iterations);
    mask.kernel = int_in(arguments, "--mask-k", 1, 501).value_or(mask.kernel);
    mask.columns = int_in(arguments, "--mask-w-len", 1, 4096).value_or(mask.columns);
    mask.rows = int_in(arguments, "--mask-h-len", 1, 4096).value_or(mask.rows);
    options.segmenter = existing_path(arguments, "--segmenter");
    if (arguments.given("--process-checkpoint"))
        preprocess::use_process_checkpoint(existing_path(arguments, "--process-checkpoint"),
                                           options);
    if (arguments.given("--det-model")) options.detector = existing_path(arguments, "--det-model");
    if (arguments.given("--pose-model")) options.pose = existing_path(arguments, "--pose-model");
}

std::string preprocess_flag_given(const Arguments& arguments) {
    for (const Flag& flag : kFlags) {
        if (flag.kind == heading || !arguments.given(flag.name)) continue;
        if (flag.kind != toggle || arguments.on(flag.name)) return std::string(flag.name);
    }
    return "";
}

}  // namespace zoetrope::cli
