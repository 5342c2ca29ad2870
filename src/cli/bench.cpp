// zoetrope bench: measures this machine on a model's real shape.
#include "base/error.h"
#include "benchmark/model.h"
#include "cli/commands.h"

#include <iostream>

namespace zoetrope::cli {
namespace {

using enum FlagKind;

constexpr Command kCommand{.name = "bench model",
                           .summary = "Times a stage of a model's real shape on random weights."};

constexpr Flag kFlags[] = {
    {"--config",
     text,
     "FILE",
     "TOML or JSON file with defaults; keys are the flags without dashes",
     {},
     {}},
    {"--shape",
     text,
     "NAME",
     "wan2.1-t2v-1.3b|wan2.1-t2v-14b|wan2.2-ti2v-5b; default: the first",
     {},
     {}},
    {"--stage", text, "NAME", "text|dit|vae-encode|vae-decode; default: dit", {}, {}},
    {"--height", integer, "N", "pixels; default: 480", {}, {}},
    {"--width", integer, "N", "pixels; default: 832", {}, {}},
    {"--num-frames", integer, "N", "4n+1; default: 81", {}, {}},
    {"--layers", integer, "N", "layers to run, 0 for all; default: 1", {}, {}},
    {"--tokens", integer, "N", "real tokens of the prompt, stage text; default: 30", {}, {}},
    {"--dtype", text, "NAME", "bf16|fp16|fp32; default: bf16 where the CPU has it", {}, {}},
    {"--quantization", text, "NAME", "none", "quantised weights are not built yet; none runs today",
     "none"},
    {"--repeats", integer, "N", "timed runs after one warm-up; default: 3", {}, {}},
    {"--threads", integer, "N", "CPU threads; default: the cores this process may use", {}, {}},
    {"--json", toggle, "", "the figures as one JSON object on stdout", {}, {}},
};

benchmark::ModelBenchOptions options_of(const Arguments& arguments) {
    constexpr int kMost = 1 << 20;
    benchmark::ModelBenchOptions options;
    StageOptions& stage = options.stage;
    stage.shape = arguments.text("--shape").value_or(stage.shape);
    stage.stage = arguments.text("--stage").value_or(stage.stage);
    stage.height = int_in(arguments, "--height", 16, kMost).value_or(stage.height) / 16 * 16;
    stage.width = int_in(arguments, "--width", 16, kMost).value_or(stage.width) / 16 * 16;
    stage.num_frames = int_in(arguments, "--num-frames", 1, kMost).value_or(stage.num_frames);
    ZT_CHECK(stage.num_frames % 4 == 1, bad_request, "--num-frames is {}: 4n+1 is wanted",
             stage.num_frames);
    stage.layers = int_in(arguments, "--layers", 0, 1000).value_or(stage.layers);
    stage.tokens = int_in(arguments, "--tokens", 1, 512).value_or(stage.tokens);
    stage.dtype = arguments.text("--dtype").value_or(stage.dtype);
    options.repeats = int_in(arguments, "--repeats", 1, 1000).value_or(options.repeats);
    options.threads = int_in(arguments, "--threads", 1, 4096).value_or(0);
    return options;
}

void print_text(const nlohmann::ordered_json& result) {
    fmt::print("{} {} {}, {}x{}x{}, {} threads on {}\n", result["shape"].get<std::string>(),
               result["stage"].get<std::string>(), result["dtype"].get<std::string>(),
               result["width"].get<int>(), result["height"].get<int>(),
               result["num_frames"].get<int>(), result["threads"].get<int>(),
               result["cpu"].get<std::string>());
    fmt::print(
        "{:.3f} s (least {:.3f} s), {:.3f} TFLOP/s, {:.0f} % of the measured peak of {:.3f} "
        "TFLOP/s ({})\n",
        result["seconds"].get<double>(), result["seconds_min"].get<double>(),
        result["tflops_per_s"].get<double>(), 100 * result["fraction_of_peak"].get<double>(),
        result["peak_tflops_per_s"].get<double>(), result["peak_instructions"].get<std::string>());
    for (const auto& [name, part] : result["parts"].items()) {
        fmt::print("  {:<22} {:8.3f} s  {:5} calls\n", name, part["seconds"].get<double>(),
                   part["calls"].get<int>());
    }
    for (const auto& [what, count] : result["fallbacks"].items())
        fmt::print("  slow path: {} ({})\n", what, count.dump());
}

}  // namespace

int bench(Words words, std::stop_token stop) {
    const std::string_view what = words.empty() ? "" : words[0];
    if (what == "--help" || what == "-h") {
        fmt::print(
            "usage: zoetrope bench model [flags]\n\n"
            "zoetrope bench model --help lists the flags.\n");
        return 0;
    }
    for (const std::string_view name : {"kernels", "serving", "quality"}) {
        ZT_CHECK(what != name, unsupported,
                 "zoetrope bench {} is not built yet; bench model runs today", name);
    }
    ZT_CHECK(what == "model", bad_request,
             "zoetrope bench is followed by what to measure: model is accepted, '{}' was given",
             what);
    const auto arguments = Arguments::parse(kCommand, kFlags, words.subspan(1));
    if (!arguments) return 0;
    const auto result =
        benchmark::bench_model(options_of(*arguments), {.on_progress = {}, .stop = stop});
    if (arguments->on("--json")) {
        std::cout << result.dump(2) << '\n';
    } else {
        print_text(result);
    }
    return 0;
}

}  // namespace zoetrope::cli
