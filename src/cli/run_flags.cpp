#include "cli/run_flags.h"

#include "base/error.h"
#include "base/error_context.h"
#include "base/sizes.h"
#include "cli/preprocess_flags.h"
#include "engine/tasks.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>

namespace zoetrope::cli {
namespace {

// Without the byte order mark and the line end that editors put there. Pipes are read too.
std::string read_prompt_file(const std::string& path) {
    constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
    std::ifstream file(path, std::ios::binary);
    ZT_CHECK(file.good(), not_found, "--prompt-file is '{}': there is no such file", path);
    ZT_CHECK(!std::filesystem::is_directory(path), bad_request,
             "--prompt-file is '{}': a text file is wanted, and this is a folder", path);
    std::string text{std::istreambuf_iterator<char>(file), {}};
    if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
    text.erase(text.find_last_not_of("\r\n") + 1);
    return text;
}

// Nothing where none was given.
std::optional<std::string> prompt_of(const Arguments& arguments) {
    const auto text = arguments.text("--prompt");
    const auto file = arguments.text("--prompt-file");
    ZT_CHECK(!text || !file, bad_request,
             "--prompt and --prompt-file were both given: give one of them");
    return file ? read_prompt_file(*file) : text;
}

// Throws Error{not_found} where a file that a flag names is not there.
std::filesystem::path existing(std::string_view flag, const std::string& path) {
    ZT_CHECK(std::filesystem::exists(path), not_found,
             "{} is '{}': there is no such file or folder", flag, path);
    return path;
}

// "1, 0.9,0.5" of a flag as numbers.
std::optional<std::vector<double>> numbers_of(const Arguments& arguments, std::string_view flag) {
    const auto list = arguments.text(flag);
    if (!list) return std::nullopt;
    std::vector<double> numbers;
    std::string_view rest = *list;
    while (true) {
        const std::size_t comma = rest.find(',');
        std::string_view word = rest.substr(0, comma);
        word.remove_prefix(std::min(word.find_first_not_of(' '), word.size()));
        word = word.substr(0, word.find_last_not_of(' ') + 1);
        double number = 0;
        const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
        ZT_CHECK(error == std::errc() && end == word.data() + word.size() && std::isfinite(number),
                 bad_request, "{} is '{}': numbers separated by commas are wanted", flag, *list);
        numbers.push_back(number);
        if (comma == std::string_view::npos) return numbers;
        rest.remove_prefix(comma + 1);
    }
}

}  // namespace

void check_writable(std::string_view flag, const std::string& path) {
    namespace fs = std::filesystem;
    const fs::path folder = fs::path(path).has_parent_path() ? fs::path(path).parent_path() : ".";
    ZT_CHECK(
        fs::is_directory(folder) && ::access(folder.c_str(), W_OK) == 0 && !fs::is_directory(path),
        bad_request, "{} is '{}': a file in a folder that can be written is wanted", flag, path);
}

bool prompt_is_given(const Arguments& arguments) {
    return arguments.given("--prompt") || arguments.given("--prompt-file");
}

std::string prompt_without_one(const ResolvedRequest& request, const Engine& engine) {
    // "The person in the video is moving": what the Wan2.2 repository takes
    // (configs/wan_animate_14B.py).
    constexpr const char* kAnimatePrompt =
        "\xE8\xA7\x86\xE9\xA2\x91\xE4\xB8\xAD\xE7\x9A\x84\xE4\xBA\xBA\xE5\x9C\xA8\xE5\x81\x9A"
        "\xE5\x8A\xA8\xE4\xBD\x9C";
    ZT_CHECK(is_driven(request.task), bad_request,
             "--prompt is missing: say what the video shows, as in --prompt \"a red circle\"");
    return engine.model().embedded ? "" : kAnimatePrompt;
}

std::string prompt_otherwise(const ResolvedRequest& request, const Engine& engine) {
    if (is_driven(request.task)) return prompt_without_one(request, engine);
    return engine.model().embedded ? "a red circle moving right on a beige background"
                                   : "a cat walking on grass";
}

std::optional<std::vector<int>> whole_numbers_of(const Arguments& arguments,
                                                 std::string_view flag) {
    const auto numbers = numbers_of(arguments, flag);
    if (!numbers) return std::nullopt;
    std::vector<int> whole;
    for (const double number : *numbers) {
        ZT_CHECK(number == std::floor(number) && std::abs(number) < kMostFrames, bad_request,
                 "{} is '{}': whole numbers separated by commas are wanted", flag,
                 *arguments.text(flag));
        whole.push_back(static_cast<int>(number));
    }
    return whole;
}

EngineOptions engine_options_of(const Arguments& arguments) {
    EngineOptions options;
    options.dtype = arguments.text("--dtype").value_or(options.dtype);
    options.quantization = arguments.text("--quantization").value_or(options.quantization);
    options.device = arguments.text("--device").value_or(options.device);
    options.threads = int_in(arguments, "--threads", 1, 4096).value_or(0);
    if (const auto size = arguments.text("--max-memory"))
        options.max_memory = with_context("--max-memory", [&] { return parse_bytes(*size); });
    for (const std::string& text : arguments.list("--lora-path"))
        options.adapters.push_back(parse_adapter_choice(text));
    options.lora_mode = arguments.text("--lora-mode").value_or(options.lora_mode);
    options.lora_registry = existing_path(arguments, "--lora-registry");
    options.lora_allow_unmatched = arguments.on("--lora-allow-unmatched");
    return options;
}

Request request_of(const Arguments& arguments) {
    Request request;
    if (const auto task = arguments.text("--task")) request.task = parse_task(*task);
    request.prompt = prompt_of(arguments).value_or("");
    request.negative_prompt = arguments.text("--negative-prompt");
    request.image = existing_path(arguments, "--image");
    request.last_image = existing_path(arguments, "--last-image");
    for (const std::string& path : arguments.list("--reference-image"))
        request.reference_images.push_back(existing("--reference-image", path));
    request.video = existing_path(arguments, "--video");
    read_preprocess_flags(arguments, request.preprocessing);
    request.preprocessing.cache = preprocess::default_cache_folder();
    request.preprocessing_flag = preprocess_flag_given(arguments);
    request.own_area = arguments.given("--resolution-area");
    request.mask_video = existing_path(arguments, "--mask-video");
    request.pose_video = existing_path(arguments, "--pose-video");
    request.face_video = existing_path(arguments, "--face-video");
    request.background_video = existing_path(arguments, "--background-video");
    request.segment_policy = arguments.text("--segment-policy");
    request.segment_length = int_in(arguments, "--segment-length", 1, kMostFrames);
    request.segment_max_length = int_in(arguments, "--segment-max-length", 1, kMostFrames);
    request.segment_overlap = int_in(arguments, "--segment-overlap", 1, kMostFrames);
    if (const auto carry = arguments.text("--carry")) request.carry = parse_carry(*carry);
    if (const auto fusion = arguments.text("--overlap-fusion"))
        request.overlap_fusion = parse_overlap_fusion(*fusion);
    request.color_match = arguments.on("--color-match");
    request.cut_policy = arguments.text("--cut-policy");
    request.strength = arguments.number("--strength");
    request.conditioning_scale = arguments.number("--conditioning-scale");
    request.height = int_in(arguments, "--height", 1, kLargestSide);
    request.width = int_in(arguments, "--width", 1, kLargestSide);
    request.num_frames = int_in(arguments, "--num-frames", 1, kMostFrames);
    request.fps = arguments.number("--fps");
    request.num_inference_steps = int_in(arguments, "--num-inference-steps", 1, kMostSteps);
    request.guidance_scale = arguments.number("--guidance-scale");
    request.guidance_scale_2 = arguments.number("--guidance-scale-2");
    request.boundary_ratio = arguments.number("--boundary-ratio");
    request.scheduler = arguments.text("--scheduler").value_or("auto");
    request.flow_shift = arguments.number("--flow-shift");
    request.sigma_schedule = arguments.text("--sigma-schedule");
    request.sigmas = numbers_of(arguments, "--sigmas");
    request.seed = unsigned_of(arguments, "--seed");
    request.num_outputs = int_in(arguments, "--num-outputs", 1, kMostOutputs).value_or(1);
    request.latents = existing_path(arguments, "--latents");
    if (const auto type = arguments.text("--output-type"))
        request.output_type = parse_output_type(*type);
    const auto save = arguments.text("--save-output");
    ZT_CHECK(!save || arguments.on("--save-output"), unsupported,
             "--save-output {}: the output is always saved; leave the flag out", *save);
    return request;
}

ModelPaths model_paths(const Arguments& arguments, const Request& request) {
    return {.model = arguments.text("--model-path").value_or(""),
            .embedded = wants_animation(request) ? kEmbeddedAnimate : kEmbeddedTextToVideo,
            .transformer = existing_path(arguments, "--transformer-path"),
            .transformer_2 = existing_path(arguments, "--transformer-2-path"),
            .vae = existing_path(arguments, "--vae-path"),
            .text_encoder = existing_path(arguments, "--text-encoder-path"),
            .tokenizer = existing_path(arguments, "--tokenizer-path"),
            .image_encoder = existing_path(arguments, "--image-encoder-path")};
}

}  // namespace zoetrope::cli
