// zoetrope bench cost: what segments cost on this machine, stored for predictions.
#include "base/error.h"
#include "base/log.h"
#include "benchmark/cost.h"
#include "cli/commands.h"
#include "cli/preprocess_flags.h"
#include "cli/progress_bar.h"
#include "cli/run_flags.h"

#include <unistd.h>

#include <iostream>

namespace zoetrope::cli {
namespace {

using enum FlagKind;

constexpr Command kCommand{
    .name = "bench cost",
    .summary =
        "Runs a model at a few lengths, fits what attention, linear layers, VAE and each segment "
        "cost on this machine, and stores it: generate then predicts times and chooses the lengths "
        "of segments by it.",
    .usage = "[--lengths LIST] [flags of generate]"};

constexpr Flag kOwnFlags[] = {
    {"", heading, "", "Calibration", {}, {}},
    {"--lengths",
     text,
     "LIST",
     "frames of a segment, 4n+1, separated by commas; default: 5,21,41",
     {},
     {}},
    {"--json", toggle, "", "the figures as one JSON object on stdout; default: false", {}, {}},
};

constexpr std::string_view kNotTaken[] = {
    "--num-frames",       "--segment-policy", "--segment-length", "--segment-max-length",
    "--segment-overlap",  "--carry",          "--overlap-fusion", "--color-match",
    "--cut-policy",       "--output-path",    "--save-output",    "--output-type",
    "--output-file-name", "--json",           "--state-dir",      "--checkpoint-every",
    "--resume",           "--num-outputs",    "--perf-dump-path", "--pull",
    "--latents"};

constexpr int kUsualSteps = 2;

void print(const nlohmann::ordered_json& result) {
    const auto& settings = result["settings"];
    fmt::print("{}x{}, {} steps, {} threads on {}\n", settings["width"].get<int>(),
               settings["height"].get<int>(), settings["num_inference_steps"].get<int>(),
               result["threads"].get<int>(), result["cpu"].get<std::string>());
    fmt::print("{:>7} {:>11} {:>9} {:>9} {:>10}\n", "frames", "denoising", "VAE", "together",
               "predicted");
    for (const auto& row : result["rows"])
        fmt::print("{:>7} {:>9.2f} s {:>7.2f} s {:>7.2f} s {:>8.2f} s\n", row["length"].get<int>(),
                   row["denoise_seconds"].get<double>(), row["vae_seconds"].get<double>(),
                   row["seconds"].get<double>(), row["predicted_seconds"].get<double>());
}

}  // namespace

int bench_cost(Words words, std::stop_token stop) {
    const std::vector<Flag> flags = generate_flags_without(kNotTaken, kOwnFlags);
    const auto arguments = Arguments::parse(kCommand, flags, words);
    if (!arguments) return 0;
    benchmark::CostOptions options;
    options.engine = engine_options_of(*arguments);
    options.request = request_of(*arguments);
    if (!options.request.num_inference_steps) options.request.num_inference_steps = kUsualSteps;
    options.paths = model_paths(*arguments, options.request);
    options.lengths = whole_numbers_of(*arguments, "--lengths").value_or(std::vector{5, 21, 41});
    if (!prompt_is_given(*arguments)) options.prompt = prompt_otherwise;

    ProgressBar bar(::isatty(STDERR_FILENO) == 1);
    const RunControl control{[&bar](const Progress& progress) { bar.show(progress); }, stop};
    const nlohmann::ordered_json result = benchmark::bench_cost(options, control);
    if (result["disturbed"].get<bool>())
        log::warning(
            "other programs took much of the cores meanwhile: the predictions will be as slow; "
            "measure again on a quiet machine");
    if (arguments->on("--json")) {
        std::cout << result.dump(2) << '\n';
    } else {
        print(result);
    }
    return 0;
}

}  // namespace zoetrope::cli
