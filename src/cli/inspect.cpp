// zoetrope inspect: what a model, a weights file or an output holds.
#include "engine/inspect.h"

#include "base/error.h"
#include "base/sizes.h"
#include "cli/commands.h"

#include <iostream>

namespace zoetrope::cli {
namespace {

constexpr Command kCommand{
    .name = "inspect",
    .summary = "Says what a model, a weights file, a video or a picture holds.",
    .usage = "PATH [flags]",
    .positionals = true};

constexpr Flag kFlags[] = {
    {"--config",
     FlagKind::text,
     "FILE",
     "TOML or JSON file with defaults; keys are the flags without dashes",
     {},
     {}},
    {"--json", FlagKind::toggle, "", "everything, as one JSON object on stdout", {}, {}},
};

constexpr std::size_t kNamesShown = 12;

// "transformer: 1.4 billion parameters, bf16, 2.61 GiB"
std::string line_of(const std::string& name, const nlohmann::ordered_json& part) {
    std::string dtypes;
    for (const auto& [dtype, count] : part["dtypes"].items())
        dtypes += (dtypes.empty() ? "" : " and ") + dtype;
    return fmt::format("{}: {:.2f} million parameters in {} tensors, {}, {}", name,
                       part["parameters"].get<double>() / 1e6, part["tensors"].get<std::int64_t>(),
                       dtypes, format_bytes(part["bytes"].get<std::int64_t>()));
}

// "video, 832x480, 81 frames at 16 fps (5.1s), h264 in mov,mp4, 1.21 MiB"
void print_media(const nlohmann::ordered_json& found) {
    std::string line = fmt::format("{}, {}x{}", found["kind"].get<std::string>(),
                                   found["width"].get<int>(), found["height"].get<int>());
    if (found.contains("frames")) {
        line +=
            fmt::format(", {} frames at {:g} fps ({})", found["frames"].get<std::int64_t>(),
                        found["fps"].get<double>(), format_seconds(found["seconds"].get<double>()));
    }
    fmt::print("{}, {} in {}, {}\n", line, found["codec"].get<std::string>(),
               found["container"].get<std::string>(),
               format_bytes(found["bytes"].get<std::int64_t>()));
    if (found.contains("settings")) return;
    for (const auto& [key, value] : found["metadata"].items())
        fmt::print("  {}: {}\n", key, value.get<std::string>());
}

void print_text(const nlohmann::ordered_json& found) {
    const std::string kind = found["kind"];
    if (kind == "model") {
        fmt::print("{} for {}, {}\n", found["family"].get<std::string>(),
                   found["pipeline"].get<std::string>(), found["scheduler"].get<std::string>());
        for (const auto& [name, part] : found["parts"].items())
            fmt::print("  {}\n", line_of(name, part));
    } else if (kind == "weights") {
        fmt::print("{}\n", line_of("safetensors", found));
        for (const auto& [key, value] : found["metadata"].items()) {
            const bool shown_as_settings = key == "comment" && found.contains("settings");
            if (!shown_as_settings) fmt::print("  {}: {}\n", key, value.dump());
        }
        std::size_t shown = 0;
        for (const auto& [name, info] : found["names"].items()) {
            if (shown++ == kNamesShown) {
                fmt::print("  ... and {} more (--json lists all)\n",
                           found["names"].size() - kNamesShown);
                break;
            }
            fmt::print("  {} {} {}\n", name, info["dtype"].get<std::string>(),
                       info["shape"].dump());
        }
    } else {
        print_media(found);
    }
    if (found.contains("settings")) {
        for (const auto& [key, value] : found["settings"].items())
            fmt::print("  {}: {}\n", key,
                       value.is_string() ? value.get<std::string>() : value.dump());
    }
}

}  // namespace

int inspect(Words words) {
    const auto arguments = Arguments::parse(kCommand, kFlags, words);
    if (!arguments) return 0;
    ZT_CHECK(arguments->positionals().size() == 1, bad_request,
             "zoetrope inspect takes one path, {} were given", arguments->positionals().size());
    const auto found = zoetrope::inspect(arguments->positionals().front());
    if (arguments->on("--json")) {
        std::cout << found.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
    } else {
        print_text(found);
    }
    return 0;
}

}  // namespace zoetrope::cli
