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
    kConfigFlag,
    {"--json", FlagKind::toggle, "", "everything, as one JSON object on stdout", {}, {}},
};

constexpr std::size_t kNamesShown = 12;

std::string text_of(const nlohmann::ordered_json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
}

// "transformer: WanTransformer3DModel, 30 layers, original names, 1418.90 million parameters in 825
// tensors, bf16, 2.64 GiB"
std::string line_of(const std::string& name, const nlohmann::ordered_json& part) {
    std::string line = name + ":";
    const auto add = [&line](const std::string& text) {
        line += (line.back() == ':' ? " " : ", ") + text;
    };
    if (part.contains("class")) add(text_of(part["class"]));
    if (part.contains("variant")) add(text_of(part["variant"]));
    if (part.contains("layers")) add(text_of(part["layers"]) + " layers");
    if (part.contains("layout")) add(text_of(part["layout"]) + " names");
    if (part.contains("parameters")) {
        std::string dtypes;
        for (const auto& [dtype, count] : part["dtypes"].items())
            dtypes += (dtypes.empty() ? "" : " and ") + dtype;
        add(fmt::format("{:.2f} million parameters in {} tensors, {}, {}",
                        part["parameters"].get<double>() / 1e6, part["tensors"].get<std::int64_t>(),
                        dtypes, format_bytes(part["bytes"].get<std::int64_t>())));
    }
    if (part.contains("problem")) line += "\n    problem: " + text_of(part["problem"]);
    return line;
}

// "adapter (LoRA, original names): rank 32, 300 targets, alpha 32"
void print_adapter(const nlohmann::ordered_json& adapter) {
    std::string ranks, alphas;
    for (const auto& [rank, count] : adapter["ranks"].items())
        ranks += (ranks.empty() ? " " : ", ") + rank;
    for (const auto& [alpha, count] : adapter["alphas"].items())
        alphas += (alphas.empty() ? "alpha " : ", ") + alpha;
    std::string methods;
    for (const auto& method : adapter["methods"]) methods += text_of(method) + ", ";
    fmt::print("  adapter ({}{} names): rank{}, {} targets, {}\n", methods,
               text_of(adapter["layout"]), ranks.empty() ? " unknown" : ranks,
               adapter["targets"].get<std::size_t>(), alphas.empty() ? "no alphas" : alphas);
}

void print_model(const nlohmann::ordered_json& found) {
    const std::string variant = found["variant"].is_null() ? "" : text_of(found["variant"]) + ", ";
    fmt::print("{}{} for {}, {}, {} layout\n", variant, text_of(found["family"]),
               text_of(found["pipeline"]), text_of(found["scheduler"]), text_of(found["layout"]));
    for (const auto& [name, part] : found["parts"].items())
        fmt::print("  {}\n", line_of(name, part));
}

void print_weights(const nlohmann::ordered_json& found) {
    fmt::print("{}\n", line_of("weights", found));
    if (found.contains("components")) {
        for (const auto& part : found["components"])
            fmt::print("  {}\n", line_of(text_of(part["component"]), part));
    }
    if (found.contains("adapter")) print_adapter(found["adapter"]);
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
        fmt::print("  {} {} {}\n", name, text_of(info["dtype"]), info["shape"].dump());
    }
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
        print_model(found);
    } else if (kind == "weights") {
        print_weights(found);
    } else {
        print_media(found);
    }
    if (found.contains("settings")) {
        for (const auto& [key, value] : found["settings"].items())
            fmt::print("  {}: {}\n", key, text_of(value));
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
