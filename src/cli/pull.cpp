// zoetrope pull: a model repository into the Hugging Face cache.
#include "net/pull.h"

#include "base/error.h"
#include "base/log.h"
#include "base/sizes.h"
#include "cli/commands.h"
#include "cli/progress_bar.h"
#include "net/hub_cache.h"

#include <nlohmann/json.hpp>

#include <unistd.h>

#include <iostream>

namespace zoetrope::cli {
namespace {

using enum FlagKind;

constexpr Command kCommand{
    .name = "pull",
    .summary =
        "Downloads a model repository into the Hugging Face cache (HF_HUB_CACHE, HF_HOME) "
        "and prints its folder. A pull that was interrupted goes on where it stopped. "
        "HF_ENDPOINT names another hub, HF_TOKEN gives access to private and gated models.",
    .usage = "NAME [flags]",
    .positionals = true};

constexpr Flag kFlags[] = {
    kConfigFlag,
    {"--revision", text, "NAME", "branch, tag or commit; default: main", {}, {}},
    {"--include",
     list,
     "GLOB",
     "only files that match, such as 'vae/*'; repeatable; default: all files",
     {},
     {}},
    {"--exclude", list, "GLOB", "no files that match; repeatable; default: none", {}, {}},
    {"--retries",
     integer,
     "N",
     "tries after a failure of the network, each after a longer pause; default: 5",
     {},
     {}},
    {"--json", toggle, "", "the result as one JSON object on stdout; default: false", {}, {}},
};

}  // namespace

PullResult pull_with_progress(const PullOptions& options, std::stop_token stop) {
    ProgressBar bar(::isatty(STDERR_FILENO) == 1);
    return zoetrope::pull(options,
                          {[&bar](const Progress& progress) { bar.show(progress); }, stop});
}

int pull(Words words, std::stop_token stop) {
    const auto arguments = Arguments::parse(kCommand, kFlags, words);
    if (!arguments) return 0;
    ZT_CHECK(arguments->positionals().size() == 1, bad_request,
             "zoetrope pull takes the name of one repository, {} were given",
             arguments->positionals().size());
    const PullOptions options{.repository = arguments->positionals().front(),
                              .revision = arguments->text("--revision").value_or("main"),
                              .include = arguments->list("--include"),
                              .exclude = arguments->list("--exclude"),
                              .retries = int_in(*arguments, "--retries", 0, 1000).value_or(5)};
    const PullResult result = pull_with_progress(options, stop);
    log::info("{}: {} file{}, {}, of which {} were downloaded now", options.repository,
              result.files, result.files == 1 ? "" : "s", format_bytes(result.bytes),
              format_bytes(result.downloaded_bytes));
    if (!arguments->on("--json")) {
        std::cout << result.snapshot.string() << '\n';
        return 0;
    }
    const nlohmann::ordered_json json = {{"path", result.snapshot.string()},
                                         {"commit", result.commit},
                                         {"files", result.files},
                                         {"bytes", result.bytes},
                                         {"downloaded_bytes", result.downloaded_bytes}};
    std::cout << json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
    return 0;
}

}  // namespace zoetrope::cli
