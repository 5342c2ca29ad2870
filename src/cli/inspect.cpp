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

void print_text(const nlohmann::ordered_json& found) {
    const std::string kind = found["kind"];
    if (kind == "model") {
        fmt::print("{} for {}, {}\n", found["family"].get<std::string>(),
                   found["pipeline"].get<std::string>(), found["scheduler"].get<std::string>());
        for (const auto& [name, part] : found["parts"].items())
            fmt::print("  {}\n", line_of(name, part));
    } else if (kind == "weights") {
        fmt::print("{}\n", line_of("safetensors", found));
        for (const auto& [key, value] : found["metadata"].items())
            fmt::print("  {}: {}\n", key, value.dump());
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
        std::cout << found.dump(2) << '\n';
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
        std::cout << found.dump(2) << '\n';
    } else {
        print_text(found);
    }
    return 0;
}

}  // namespace zoetrope::cli
