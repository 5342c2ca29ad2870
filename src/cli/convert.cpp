// zoetrope convert: a model in another layout or precision, with adapters merged.
#include "engine/convert.h"

#include "base/error.h"
#include "base/error_context.h"
#include "base/log.h"
#include "base/sizes.h"
#include "cli/commands.h"
#include "cli/progress_bar.h"
#include "cli/run_flags.h"

#include <nlohmann/json.hpp>

#include <unistd.h>

#include <iostream>
#include <iterator>

namespace zoetrope::cli {
namespace {

using enum FlagKind;

constexpr Command kCommand{
    .name = "convert",
    .summary =
        "Writes a model in another layout or precision, with adapters merged into it. Reads "
        "whatever "
        "`generate` reads. One tensor is in memory at a time (its float32 form too, where it is "
        "quantised or an adapter changes it), beside the adapters. What is written appears "
        "complete "
        "under its name, or not at all.",
    .usage = "--model-path PATH --output-path PATH [flags]"};

constexpr Flag kFlags[] = {
    kConfigFlag,
    {"--model-path",
     text,
     "PATH",
     "folder of Diffusers or of the Wan repositories, single file (.safetensors, .gguf, .pth), or "
     "repository name in the Hugging Face cache",
     {},
     {}},
    {"--output-path",
     text,
     "PATH",
     "the new folder, or with --layout single-file the new .safetensors file; must not be there "
     "yet",
     {},
     {}},
    {"--layout",
     text,
     "NAME",
     "diffusers (the whole model as a folder, for Diffusers' from_pretrained)|single-file (the "
     "transformer as one file for ComfyUI; of two experts NAME_high_noise.safetensors and "
     "NAME_low_noise.safetensors); default: diffusers",
     {},
     {}},
    {"--dtype",
     text,
     "NAME",
     "fp32|bf16|fp16|fp8|int8 of the transformers and encoders; default: as they are stored, GGUF "
     "and 8-bit weights as bf16. Norms, modulation and the time embedding stay float32 as in "
     "Diffusers, the VAE keeps its own precision unless fp32 is asked for. fp8 (e4m3, a scale per "
     "matrix) and int8 (a scale per row) are of the matrices in the transformer's blocks (in an "
     "fp8 single file of all linear layers, as ComfyUI wants it), the rest is bf16. Zoetrope reads "
     "all of them, Diffusers fp32, bf16 and fp16, ComfyUI single files but int8",
     {},
     {}},
    {"--max-shard-size",
     text,
     "SIZE",
     "of one file of weights in the folder; larger parts are cut into several with an index; "
     "default: 5GiB",
     {},
     {}},
    {"--json", toggle, "", "the result as one JSON object on stdout; default: false", {}, {}},
};

// Flags that mean what they mean to `generate`.
constexpr std::string_view kShared[] = {
    "--lora-path",         "--lora-registry",      "--lora-allow-unmatched",
    "--transformer-path",  "--transformer-2-path", "--vae-path",
    "--text-encoder-path", "--tokenizer-path",     "--image-encoder-path"};

std::vector<Flag> convert_flags() {
    std::vector<Flag> flags(std::begin(kFlags), std::end(kFlags));
    flags.push_back({"", heading, "", "Adapters, and parts from elsewhere", {}, {}});
    for (const std::string_view name : kShared) {
        if (const Flag* flag = find_flag(generate_flags(), name)) flags.push_back(*flag);
    }
    return flags;
}

ConvertOptions options_of(const Arguments& arguments) {
    for (const char* flag : {"--model-path", "--output-path"})
        ZT_CHECK(arguments.given(flag), bad_request, "{} is missing: zoetrope convert takes {}",
                 flag, kCommand.usage);
    ConvertOptions options;
    options.paths = model_paths(arguments);
    options.output = *arguments.text("--output-path");
    if (const auto layout = arguments.text("--layout"))
        options.layout = parse_convert_layout(*layout);
    if (const auto dtype = arguments.text("--dtype")) options.precision = parse_precision(*dtype);
    if (const auto size = arguments.text("--max-shard-size")) {
        ZT_CHECK(options.layout == ConvertLayout::diffusers, bad_request,
                 "--max-shard-size {}: --layout single-file writes one file whatever its size",
                 *size);
        options.max_shard_bytes =
            with_context("--max-shard-size", [&] { return parse_bytes(*size); });
        ZT_CHECK(options.max_shard_bytes > 0, bad_request,
                 "--max-shard-size is {}: accepted is more than 0", *size);
    }
    for (const std::string& adapter : arguments.list("--lora-path"))
        options.adapters.push_back(parse_adapter_choice(adapter));
    options.lora_registry = arguments.text("--lora-registry").value_or("");
    options.lora_allow_unmatched = arguments.on("--lora-allow-unmatched");
    return options;
}

ConvertResult convert_with_progress(const ConvertOptions& options, std::stop_token stop) {
    ProgressBar bar(::isatty(STDERR_FILENO) == 1);
    return zoetrope::convert(options,
                             {[&bar](const Progress& progress) { bar.show(progress); }, stop});
}

}  // namespace

int convert(Words words, std::stop_token stop) {
    const auto arguments = Arguments::parse(kCommand, convert_flags(), words);
    if (!arguments) return 0;
    const ConvertResult result = convert_with_progress(options_of(*arguments), stop);
    log::info("{} tensors, {} in {}; memory at most {} ({} before, {} predicted beside)",
              result.tensors, format_bytes(result.bytes), format_seconds(result.seconds),
              format_bytes(result.peak_bytes), format_bytes(result.start_bytes),
              format_bytes(result.predicted_bytes));
    std::vector<std::string> outputs;
    for (const auto& output : result.outputs) outputs.push_back(output.string());
    if (!arguments->on("--json")) {
        for (const std::string& output : outputs) std::cout << output << '\n';
        return 0;
    }
    const nlohmann::ordered_json json = {{"outputs", outputs},
                                         {"tensors", result.tensors},
                                         {"bytes", result.bytes},
                                         {"seconds", result.seconds},
                                         {"predicted_bytes", result.predicted_bytes},
                                         {"peak_bytes", result.peak_bytes},
                                         {"start_bytes", result.start_bytes}};
    std::cout << json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
    return 0;
}

}  // namespace zoetrope::cli
