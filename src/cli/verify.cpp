// zoetrope verify: this engine beside Diffusers on the user's own weights.
#include "benchmark/verify.h"
#include "base/error.h"
#include "cli/commands.h"

#include <iostream>

namespace zoetrope::cli {
namespace {

using enum FlagKind;

constexpr Command kCommand{
    .name = "verify",
    .summary = "Compares this engine with Diffusers on a model's own weights, module by module.",
    .usage = "MODEL [flags]",
    .positionals = true};

constexpr Flag kFlags[] = {
    kConfigFlag,
    {"--reference",
     text,
     "FOLDER",
     "the same model as a Diffusers folder; default: MODEL itself",
     {},
     {}},
    {"--python", text, "PROGRAM", "Python that has Diffusers; default: python3", {}, {}},
    {"--prompt", text, "TEXT", "default: a cat walking on grass", {}, {}},
    {"--image", text, "FILE", "first picture, for models that take one", {}, {}},
    {"--last-image", text, "FILE", "last picture", {}, {}},
    {"--height", integer, "N", "pixels; default: 128", {}, {}},
    {"--width", integer, "N", "pixels; default: 128", {}, {}},
    {"--num-frames", integer, "N", "default: 5", {}, {}},
    {"--num-inference-steps", integer, "N", "default: 2", {}, {}},
    {"--guidance-scale", number, "X", "default: 5", {}, {}},
    {"--seed", integer, "N", "default: 0", {}, {}},
    {"--dtype", text, "NAME", "of both programs: fp32|bf16; default: fp32", {}, {}},
    {"--threads", integer, "N", "CPU threads; default: the cores this process may use", {}, {}},
    {"--output-path", text, "FOLDER", "report and tensors; default: outputs/verify", {}, {}},
    {"--no-reference", toggle, "", "write our side only", {}, {}},
    {"--json", toggle, "", "the report as one JSON object on stdout", {}, {}},
};

void print_report(const nlohmann::ordered_json& report, const std::string& folder) {
    if (!report.contains("modules")) {
        fmt::print("our side is in {}\n", folder);
        return;
    }
    for (const auto& row : report["modules"]) {
        fmt::print("{:<28} {:>9.1e}  (bar {:.0e})  {}\n", row["module"].get<std::string>(),
                   row["relative_error"].get<double>(), row["bar"].get<double>(),
                   row["within"].get<bool>() ? "ok" : "TOO FAR");
    }
    fmt::print("{}; the report is {}/report.md\n",
               report["passed"].get<bool>() ? "all within their bars" : "NOT all within their bars",
               folder);
}

}  // namespace

int verify(Words words, std::stop_token stop) {
    const auto arguments = Arguments::parse(kCommand, kFlags, words);
    if (!arguments) return 0;
    ZT_CHECK(arguments->positionals().size() == 1, bad_request,
             "zoetrope verify takes one model: {} were given", arguments->positionals().size());
    benchmark::VerifyOptions options;
    options.paths = {.model = arguments->positionals()[0], .asked_by = "MODEL"};
    options.engine.dtype = arguments->text("--dtype").value_or("fp32");
    options.engine.threads = int_in(*arguments, "--threads", 1, 4096).value_or(0);
    options.python = arguments->text("--python").value_or(options.python);
    options.reference = arguments->text("--reference").value_or("");
    options.output = arguments->text("--output-path").value_or("outputs/verify");
    options.compare = !arguments->on("--no-reference");
    Request& request = options.request;
    request.prompt = arguments->text("--prompt").value_or("a cat walking on grass");
    request.image = arguments->text("--image").value_or("");
    request.last_image = arguments->text("--last-image").value_or("");
    request.height = int_in(*arguments, "--height", 1, kLargestSide).value_or(128);
    request.width = int_in(*arguments, "--width", 1, kLargestSide).value_or(128);
    request.num_frames = int_in(*arguments, "--num-frames", 1, kMostFrames).value_or(5);
    request.num_inference_steps =
        int_in(*arguments, "--num-inference-steps", 1, kMostSteps).value_or(2);
    request.guidance_scale = arguments->number("--guidance-scale").value_or(5);
    request.seed = unsigned_of(*arguments, "--seed").value_or(0);
    const auto report = benchmark::verify(options, {.on_progress = {}, .stop = stop});
    if (arguments->on("--json")) {
        std::cout << report.dump(2) << '\n';
    } else {
        print_report(report, options.output.string());
    }
    return report.value("passed", true) ? 0 : 1;
}

}  // namespace zoetrope::cli
