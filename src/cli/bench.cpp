// zoetrope bench: measures this machine on a model's real shape.
#include "base/error.h"
#include "benchmark/kernels.h"
#include "benchmark/model.h"
#include "cli/commands.h"

#include <iostream>

namespace zoetrope::cli {
namespace {

using enum FlagKind;

constexpr Command kCommand{.name = "bench model",
                           .summary = "Times a stage of a model's real shape on random weights."};

constexpr Flag kFlags[] = {
    kConfigFlag,
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
    {"--quantization",
     text,
     "NAME",
     "of the DiT: none|int8|int8-weight-only; default: none",
     {},
     {}},
    {"--lora-rank",
     integer,
     "N",
     "of an adapter on every matrix of the DiT; default: 0, none",
     {},
     {}},
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
    stage.quantization = arguments.text("--quantization").value_or(stage.quantization);
    stage.lora_rank = int_in(arguments, "--lora-rank", 0, 1024).value_or(stage.lora_rank);
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

constexpr Command kKernelsCommand{.name = "bench kernels",
                                  .summary = "Times every kernel of this CPU beside LibTorch's."};

constexpr Flag kKernelsFlags[] = {
    kConfigFlag,
    {"--isa", text, "NAME", "kernels of one instruction set; default: all of this CPU", {}, {}},
    {"--tokens", integer, "N", "rows of the products; default: 4096", {}, {}},
    {"--repeats", integer, "N", "timed runs after one warm-up; default: 3", {}, {}},
    {"--threads", integer, "N", "CPU threads; default: the cores this process may use", {}, {}},
    {"--json", toggle, "", "the figures as one JSON object on stdout", {}, {}},
};

void print_kernels(const nlohmann::ordered_json& result) {
    fmt::print("{} tokens, {} threads on {}\n", result["tokens"].get<int>(),
               result["threads"].get<int>(), result["cpu"].get<std::string>());
    for (const auto& peak : result["peaks"])
        fmt::print("peak of {:<12} {:.3f} TFLOP/s\n", peak["instructions"].get<std::string>(),
                   peak["tflops_per_s"].get<double>());
    fmt::print("copying memory    {:.0f} GB/s\n", result["copy_gbytes_per_s"].get<double>());
    fmt::print("{:<24} {:<11} {:<5} {:>9} {:>9} {:>8} {:>8}\n", "kernel", "isa", "dtype", "seconds",
               "TFLOP/s", "of peak", "x ATen");
    for (const auto& row : result["kernels"]) {
        const bool products = row.contains("tflops_per_s");
        fmt::print("{:<24} {:<11} {:<5} {:>9.4f} {:>9} {:>8.2f} {:>8.2f}\n",
                   row["kernel"].get<std::string>(), row["isa"].get<std::string>(),
                   row["dtype"].get<std::string>(), row["seconds"].get<double>(),
                   products ? fmt::format("{:.3f}", row["tflops_per_s"].get<double>())
                            : fmt::format("{:.0f} GB/s", row["gbytes_per_s"].get<double>()),
                   row["fraction_of_peak"].get<double>(), row["times_aten"].get<double>());
    }
}

template <class Result, class Print>
int show(const Arguments& arguments, const Result& result, const Print& print) {
    if (arguments.on("--json")) {
        std::cout << result.dump(2) << '\n';
    } else {
        print(result);
    }
    return 0;
}

int bench_kernels(Words words, const std::stop_token& stop) {
    const auto arguments = Arguments::parse(kKernelsCommand, kKernelsFlags, words);
    if (!arguments) return 0;
    benchmark::KernelBenchOptions options;
    options.isa = arguments->text("--isa").value_or("");
    options.tokens = int_in(*arguments, "--tokens", 1, 1 << 20).value_or(options.tokens);
    options.repeats = int_in(*arguments, "--repeats", 1, 1000).value_or(options.repeats);
    options.threads = int_in(*arguments, "--threads", 1, 4096).value_or(0);
    return show(*arguments, benchmark::bench_kernels(options, {.on_progress = {}, .stop = stop}),
                print_kernels);
}

int bench_model(Words words, const std::stop_token& stop) {
    const auto arguments = Arguments::parse(kCommand, kFlags, words);
    if (!arguments) return 0;
    return show(*arguments,
                benchmark::bench_model(options_of(*arguments), {.on_progress = {}, .stop = stop}),
                print_text);
}

}  // namespace

int bench(Words words, std::stop_token stop) {
    const std::string_view what = words.empty() ? "" : words[0];
    if (what == "--help" || what == "-h") {
        fmt::print(
            "usage: zoetrope bench model|kernels|quality|cost [flags]\n\n"
            "zoetrope bench model --help and so on list the flags.\n");
        return 0;
    }
    ZT_CHECK(what != "serving", unsupported,
             "zoetrope bench serving is not built yet; bench model, bench kernels, bench quality "
             "and bench cost run today");
    if (what == "model") return bench_model(words.subspan(1), stop);
    if (what == "kernels") return bench_kernels(words.subspan(1), stop);
    if (what == "quality") return bench_quality(words.subspan(1), stop);
    if (what == "cost") return bench_cost(words.subspan(1), stop);
    fail(ErrorKind::bad_request,
         "zoetrope bench is followed by what to measure: model, kernels, quality or cost is "
         "accepted, '{}' was given",
         what);
}

}  // namespace zoetrope::cli
