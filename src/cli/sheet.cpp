// zoetrope sheet: videos as one picture, to be looked at.
#include "base/error.h"
#include "base/log.h"
#include "cli/commands.h"
#include "engine/contact_sheet.h"

namespace zoetrope::cli {
namespace {

using enum FlagKind;

constexpr Command kCommand{.name = "sheet",
                           .summary = "Shows frames of videos in one picture, a row for each.",
                           .usage = "VIDEO... [flags]",
                           .positionals = true};

constexpr Flag kFlags[] = {
    kConfigFlag,
    {"--output-path", text, "FILE", "a .png file; default: outputs/sheet.png", {}, {}},
    {"--columns", integer, "N", "frames of each, evenly spread; default: 8", {}, {}},
    {"--height", integer, "N", "of a frame, pixels; default: 128", {}, {}},
};

}  // namespace

int sheet(Words words) {
    const auto arguments = Arguments::parse(kCommand, kFlags, words);
    if (!arguments) return 0;
    ZT_CHECK(!arguments->positionals().empty(), bad_request,
             "zoetrope sheet takes one video or several, and none was given");
    std::vector<std::filesystem::path> videos;
    for (const std::string& path : arguments->positionals()) {
        ZT_CHECK(std::filesystem::exists(path), not_found, "there is no such video: {}", path);
        videos.emplace_back(path);
    }
    const std::filesystem::path output =
        arguments->text("--output-path").value_or("outputs/sheet.png");
    constexpr int kMost = 4096;
    ContactSheetOptions options;
    options.columns = int_in(*arguments, "--columns", 1, kMost).value_or(options.columns);
    options.height = int_in(*arguments, "--height", 1, kMost).value_or(options.height);
    write_contact_sheet(videos, output, options);
    log::info("saved {}", output.string());
    return 0;
}

}  // namespace zoetrope::cli
