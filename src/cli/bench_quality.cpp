// zoetrope bench quality: what a model's own settings cost in quality, time and memory.
#include "base/error.h"
#include "base/error_context.h"
#include "base/partial_file.h"
#include "base/sizes.h"
#include "benchmark/quality.h"
#include "cli/commands.h"
#include "cli/preprocess_flags.h"
#include "cli/progress_bar.h"
#include "cli/run_flags.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <utility>

namespace zoetrope::cli {
namespace {

using enum FlagKind;
using benchmark::QualityTable;
using benchmark::QualityVariant;

constexpr Command kCommand{
    .name = "bench quality",
    .summary =
        "Runs a model plainly and in variants of its settings, with one seed, and says how "
        "far each is from the plain run, how long it takes and what memory it needs.",
    .usage = "[--variants LIST] [flags of generate]"};

constexpr Flag kOwnFlags[] = {
    {"", heading, "", "Comparison", {}, {}},
    {"--variants",
     text,
     "LIST",
     "separated by commas, each one setting or several joined by +: fp32, bf16, int8, "
     "int8-weight-only, pixels, latents, linear, cosine, color-match, or FLAG=VALUE with a flag of "
     "generate, as num-inference-steps=10 or segment-overlap=5; default: those that differ from "
     "the plain run",
     {},
     {}},
    {"--lpips",
     text,
     "FILE",
     "parameters of the lpips package's LPIPS(net=\"alex\"), by torch.save or as safetensors; "
     "default: LPIPS is not measured",
     {},
     {}},
    {"--json", text, "FILE", "the table, written again after each row; default: none", {}, {}},
    {"--output-path", text, "FOLDER", "for each run's video, NAME.mp4; default: none", {}, {}},
    {"--keep-resident",
     toggle,
     "",
     "parts stay loaded from run to run: quicker, and the memory is that of all together; "
     "default: false",
     {},
     {}},
};

// Of generate's, those that a comparison has not.
constexpr std::string_view kNotTaken[] = {
    "--output-path", "--output-file-name", "--save-output", "--output-type", "--json",
    "--state-dir",   "--checkpoint-every", "--resume",      "--num-outputs", "--perf-dump-path",
    "--pull"};

// Those that a variant may change: what a run shows stays the same.
constexpr std::string_view kVaried[] = {"--dtype",
                                        "--quantization",
                                        "--num-inference-steps",
                                        "--guidance-scale",
                                        "--guidance-scale-2",
                                        "--boundary-ratio",
                                        "--strength",
                                        "--conditioning-scale",
                                        "--scheduler",
                                        "--flow-shift",
                                        "--sigma-schedule",
                                        "--lora-mode",
                                        "--threads",
                                        "--segment-policy",
                                        "--segment-length",
                                        "--segment-max-length",
                                        "--segment-overlap",
                                        "--carry",
                                        "--overlap-fusion",
                                        "--color-match",
                                        "--cut-policy"};

struct ShortForm {
    std::string_view word, flag, value;
};
constexpr ShortForm kShortForms[] = {
    {"fp32", "--dtype", "fp32"},
    {"bf16", "--dtype", "bf16"},
    {"fp16", "--dtype", "fp16"},
    {"int8", "--quantization", "int8"},
    {"int8-weight-only", "--quantization", "int8-weight-only"},
    {"pixels", "--carry", "pixels"},
    {"latents", "--carry", "latents"},
    {"linear", "--overlap-fusion", "linear"},
    {"cosine", "--overlap-fusion", "cosine"},
    {"color-match", "--color-match", "true"},
};

bool is_one_of(std::span<const std::string_view> names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

std::vector<std::string> split(const std::string& text, char at) {
    std::vector<std::string> parts;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(at, begin), text.size());
        parts.push_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    return parts;
}

// The arguments with one setting of a variant: "int8", "segment-overlap=5".
Arguments with_setting(const Arguments& arguments, std::span<const Flag> flags,
                       const std::string& setting) {
    const auto known = std::find_if(std::begin(kShortForms), std::end(kShortForms),
                                    [&](const ShortForm& form) { return form.word == setting; });
    const std::size_t equals = setting.find('=');
    std::string name, value;
    if (known != std::end(kShortForms)) {
        name = known->flag;
        value = known->value;
    } else if (equals != std::string::npos) {
        name = "--" + setting.substr(0, equals);
        std::replace(name.begin(), name.end(), '_', '-');
        value = setting.substr(equals + 1);
    }
    if (!is_one_of(kVaried, name)) {
        std::string words;
        for (const ShortForm& form : kShortForms) words += std::string(form.word) + ", ";
        fail(ErrorKind::bad_request,
             "--variants has '{}': accepted are {}or FLAG=VALUE with one of {}", setting, words,
             fmt::join(kVaried, ", "));
    }
    return arguments.with(*find_flag(flags, name), value);
}

QualityVariant variant_of(const Arguments& arguments, const std::string& name) {
    QualityVariant variant{
        .name = name, .engine = engine_options_of(arguments), .request = request_of(arguments)};
    variant.engine.keep_resident = arguments.on("--keep-resident");
    return variant;
}

// What is worth comparing where the user names nothing.
std::vector<std::string> usual_variants(const ResolvedRequest& plain, const Engine& engine) {
    std::vector<std::string> names{engine.dtype() == "fp32" ? "bf16" : "fp32"};
    if (engine.quantization() == "none") names.insert(names.end(), {"int8", "int8-weight-only"});
    if (plain.num_inference_steps >= 2)
        names.push_back(fmt::format("num-inference-steps={}", plain.num_inference_steps / 2));
    const plan::SegmentPlan& segments = plain.segments;
    if (segments.segments.size() < 2) return names;
    const bool pixels = plain.joins.carry == Carry::pixels;
    if (!plain.joins.color_match) names.emplace_back(pixels ? "latents" : "pixels");
    if (plain.joins.fusion != OverlapFusion::linear) names.emplace_back("linear");
    // Of one shared frame both are half of each.
    if (plain.joins.fusion != OverlapFusion::cosine && segments.overlap > 1)
        names.emplace_back("cosine");
    if (!plain.joins.color_match && pixels) names.emplace_back("color-match");
    const int longest = segments.longest(0);
    for (const int overlap : {1, 5, 9}) {
        if (overlap != segments.overlap && overlap + 4 <= longest)
            names.push_back(fmt::format("segment-overlap={}", overlap));
    }
    const int half = longest / 2 / 4 * 4 + 1;
    if (half >= segments.overlap + 4 && half < longest)
        names.push_back(fmt::format("segment-length={}", half));
    return names;
}

// One line of the table; "-" where there is nothing to say.
std::string line_of(const nlohmann::ordered_json& row) {
    const std::string name = row["name"];
    if (row.contains("error"))
        return fmt::format("{:<28} {}", name, row["error"].get<std::string>());
    const auto cell = [&row](const char* key, const char* digits) -> std::string {
        const auto found = row.find(key);
        if (found == row.end() || found->is_null()) return "-";
        return fmt::format(fmt::runtime(digits), found->get<double>());
    };
    const bool identical = row.value("identical", false);
    std::string drift = "-";
    if (!row["drift"].is_null())
        drift = fmt::format("{:+.4f} {:.3f}x", row["drift"]["mean"].get<double>(),
                            row["drift"]["contrast"].get<double>());
    return fmt::format("{:<28} {:>7} {:>7} {:>8} {:>8} {:>9} {:>11} {:>16}", name,
                       identical ? "equal" : cell("psnr", "{:.2f}"), cell("psnr_worst", "{:.2f}"),
                       cell("ssim", "{:.5f}"), cell("lpips", "{:.5f}"), cell("seconds", "{:.2f} s"),
                       format_bytes(row["peak_bytes"].get<std::int64_t>()), drift);
}

void write_table(const std::filesystem::path& path, const QualityTable& table) {
    const std::string text =
        table.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
    with_context("--json", [&] { write_whole_file(path, text); });
}

}  // namespace

int bench_quality(Words words, std::stop_token stop) {
    const std::vector<Flag> flags = generate_flags_without(kNotTaken, kOwnFlags);
    const auto arguments = Arguments::parse(kCommand, flags, words);
    if (!arguments) return 0;
    const auto make = [&](const std::vector<std::string>& names) {
        std::vector<QualityVariant> variants;
        for (const std::string& name : names) {
            Arguments changed = *arguments;
            for (const std::string& setting : split(name, '+'))
                changed = with_setting(changed, flags, setting);
            variants.push_back(variant_of(changed, name));
        }
        return variants;
    };
    benchmark::QualityOptions options;
    options.plain = variant_of(*arguments, "plain");
    options.paths = model_paths(*arguments, options.plain.request);
    if (const auto names = arguments->text("--variants")) {
        options.variants = [wanted = make(split(*names, ','))](const auto&, const auto&) {
            return wanted;
        };
    } else {
        options.variants = [&make](const ResolvedRequest& plain, const Engine& engine) {
            return make(usual_variants(plain, engine));
        };
    }
    if (!prompt_is_given(*arguments)) options.prompt = prompt_otherwise;
    options.lpips = existing_path(*arguments, "--lpips");
    options.videos = arguments->text("--output-path").value_or("");
    const auto json = arguments->text("--json");
    if (json) check_writable("--json", *json);

    ProgressBar bar(::isatty(STDERR_FILENO) == 1);
    const RunControl control{[&bar](const Progress& progress) { bar.show(progress); }, stop};
    bool headed = false;
    benchmark::bench_quality(options, control, [&](const QualityTable& table) {
        if (!std::exchange(headed, true))
            fmt::print("{:<28} {:>7} {:>7} {:>8} {:>8} {:>9} {:>11} {:>16}\n", "", "PSNR", "worst",
                       "SSIM", "LPIPS", "time", "peak memory", "drift at joins");
        fmt::print("{}\n", line_of(table["rows"].back()));
        std::fflush(stdout);
        if (json) write_table(*json, table);
    });
    return 0;
}

}  // namespace zoetrope::cli
