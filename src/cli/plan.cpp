// zoetrope plan: how a video would be cut, how long it would take, what memory it would need.
#include "base/error.h"
#include "base/error_context.h"
#include "base/log.h"
#include "base/sizes.h"
#include "cli/commands.h"
#include "engine/machine_memory.h"
#include "engine/model_folder.h"
#include "engine/request.h"
#include "plan/cost.h"
#include "plan/devices.h"
#include "plan/segments.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <iostream>
#include <thread>

namespace zoetrope::cli {
namespace {

constexpr Command kCommand{
    .name = "plan",
    .summary =
        "Says how a video would be cut into segments, how long it would take and what "
        "memory it would need. Nothing is loaded or run.",
    .usage = "--num-frames N [flags of generate]"};

constexpr Flag kOwnFlags[] = {
    {"", FlagKind::heading, "", "Plan", {}, {}},
    {"--gpu",
     FlagKind::text,
     "NAME",
     "plan for this device: h200, h100, h20, a100, b200, l40s, rtx4090, rtx5090, mi300x, mi325x, "
     "mi355x, or reference, the GPU of Wan-Animate's published figures; default: reference for "
     "animate and replace, else h200",
     {},
     {}},
    {"--scene-cuts",
     FlagKind::text,
     "LIST",
     "first frames of new shots in the driving video, separated by commas; default: none",
     {},
     {}},
};

// Flags whose feature may not be built, and which a plan understands all the same.
constexpr std::string_view kUnderstood[] = {
    "--image",           "--last-image",       "--reference-image",
    "--video",           "--mask-video",       "--pose-video",
    "--face-video",      "--background-video", "--num-gpus",
    "--tp-size",         "--ulysses-degree",   "--ring-degree",
    "--sp-degree",       "--vae-parallel",     "--enable-cfg-parallel",
    "--segment-policy",  "--segment-length",   "--use-fsdp-inference",
    "--segment-overlap", "--cut-policy",       "--segment-max-length",
    "--carry",           "--overlap-fusion",   "--dit-layerwise-offload",
    "--color-match"};

std::vector<Flag> plan_flags() {
    std::vector<Flag> flags(std::begin(kOwnFlags), std::end(kOwnFlags));
    for (Flag flag : generate_flags()) {
        const auto* end = std::end(kUnderstood);
        if (std::find(std::begin(kUnderstood), end, flag.name) != end) flag.refusal = {};
        flags.push_back(flag);
    }
    return flags;
}

constexpr int kMostRanks = 512;
constexpr int kWindow = 81;  // frames that the text- and image-to-video models make at a time

// One of a flag's names, or the default. Errors: bad_request.
std::string one_of(const Arguments& arguments, std::string_view flag,
                   std::initializer_list<std::string_view> accepted, std::string_view otherwise) {
    const std::string value = arguments.text(flag).value_or(std::string(otherwise));
    ZT_CHECK(std::find(accepted.begin(), accepted.end(), value) != accepted.end(), bad_request,
             "{} is '{}': accepted are {}", flag, value, fmt::join(accepted, ", "));
    return value;
}

struct Model {
    plan::ModelShape shape;
    Task task = Task::animate;
    bool assumed = true;
    bool known_frames = false;  // takes first latent frames as known (TI2V)
    std::optional<EmbeddedInfo> embedded;

    bool driven() const { return is_driven(task); }
    // Frames that it makes at a time.
    int window() const {
        return embedded ? embedded->number("num_frames").value_or(kWindow) : kWindow;
    }
};

std::string_view shape_of(Task task) {
    switch (task) {
        case Task::i2v:
        case Task::flf2v: return "wan2.1-i2v-14b";
        case Task::vace: return "wan2.1-vace-14b";
        case Task::t2v:
        case Task::t2i:
        case Task::v2v: return "wan2.1-t2v-14b";
        case Task::automatic:
        case Task::animate:
        case Task::replace: return "wan2.2-animate-14b";
    }
    return "";
}

// Beyond these lie broken files, not models.
constexpr std::int64_t kMostLayers = 1 << 12;
constexpr std::int64_t kMostHeads = 1 << 10;  // and channels of a head
constexpr std::int64_t kMostHidden = 1 << 20;
constexpr std::int64_t kMostFactor = 1 << 6;

std::int64_t size_in(const nlohmann::json& config, const char* key, std::int64_t otherwise,
                     std::int64_t largest) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null()) return otherwise;
    ZT_CHECK(found->is_number_integer() && found->get<double>() >= 1 &&
                 found->get<double>() <= static_cast<double>(largest),
             io, "the model's config.json has {} {}: a whole number from 1 to {} is wanted", key,
             found->dump(), largest);
    return found->get<std::int64_t>();
}

// The sizes and the task of a model on disk, from its configs.
Model read_model(const Arguments& arguments, Task wanted) {
    const std::string path = arguments.text("--model-path").value_or("");
    const std::string transformer = arguments.text("--transformer-path").value_or("");
    const ModelFolder folder =
        ModelFolder::open({.model = path,
                           .embedded = is_driven(wanted) ? kEmbeddedAnimate : kEmbeddedTextToVideo,
                           .transformer = transformer});
    const nlohmann::json& config = folder.transformer_config;
    Model model{.shape = {.name = transformer.empty() ? path : transformer},
                .assumed = false,
                .embedded = folder.embedded};
    const bool image = config.contains("image_dim") && !config["image_dim"].is_null();
    const bool faces = folder.pipeline == "WanAnimatePipeline";
    const bool control = config.contains("vace_layers") && config["vace_layers"].is_array();
    model.task = wanted != Task::automatic                      ? wanted
                 : faces                                        ? Task::animate
                 : control                                      ? Task::vace
                 : folder.pipeline == "WanImageToVideoPipeline" ? Task::i2v
                                                                : Task::t2v;
    model.known_frames = folder.expand_timesteps;
    plan::ModelShape& shape = model.shape;
    shape.layers = size_in(config, "num_layers", shape.layers, kMostLayers);
    shape.heads = size_in(config, "num_attention_heads", shape.heads, kMostHeads);
    shape.head_dim = size_in(config, "attention_head_dim", shape.head_dim, kMostHeads);
    shape.ffn_dim = size_in(config, "ffn_dim", shape.ffn_dim, kMostHidden);
    shape.vae_dim = size_in(folder.vae_config, "base_dim", shape.vae_dim, kMostHidden);
    shape.image_attention = image;
    if (control) {
        shape.control_layers =
            std::min(static_cast<std::int64_t>(config["vace_layers"].size()), shape.layers);
    }
    if (faces) {
        const std::int64_t every = size_in(config, "inject_face_latents_blocks", 5, kMostLayers);
        shape.face_layers = (shape.layers + every - 1) / every;
        shape.reference_latents = 1;
    }
    shape.encoded_videos = faces || control ? 2 : model.task == Task::i2v ? 1 : 0;
    // Patches of 2x2 on latents of the VAE's factor: 8, or 16 where it has 48 channels.
    const std::int64_t channels = size_in(folder.vae_config, "z_dim", 16, kMostHidden);
    shape.spatial_factor = static_cast<int>(2 * size_in(folder.vae_config, "scale_factor_spatial",
                                                        channels == 48 ? 16 : 8, kMostFactor));
    return model;
}

Model model_of(const Arguments& arguments) {
    const Task wanted =
        arguments.text("--task") ? parse_task(*arguments.text("--task")) : Task::automatic;
    if (arguments.given("--model-path") || arguments.given("--transformer-path"))
        return read_model(arguments, wanted);
    const Task task = wanted == Task::automatic ? Task::animate : wanted;
    return {.shape = plan::known_shape(shape_of(task)), .task = task};
}

int rounded_size(const Arguments& arguments, const char* flag, int otherwise, int multiple,
                 std::vector<std::string>& warnings) {
    const int given = int_in(arguments, flag, multiple, kLargestSide).value_or(otherwise);
    const int rounded = given / multiple * multiple;
    if (rounded != given) {
        warnings.push_back(
            fmt::format("{} {} is not a multiple of {}, which this model needs: {} "
                        "is planned",
                        flag, given, multiple, rounded));
    }
    return rounded;
}

plan::Workload workload_of(const Arguments& arguments, const Model& model,
                           std::vector<std::string>& warnings) {
    const bool driven = model.driven();
    plan::Workload workload{.shape = model.shape};
    const int multiple = model.shape.spatial_factor;
    const auto own = [&](const char* key, int otherwise) {
        return model.embedded ? model.embedded->number(key).value_or(otherwise) : otherwise;
    };
    workload.width =
        rounded_size(arguments, "--width", own("width", driven ? 1280 : 832), multiple, warnings);
    workload.height =
        rounded_size(arguments, "--height", own("height", driven ? 720 : 480), multiple, warnings);
    workload.steps = int_in(arguments, "--num-inference-steps", 1, kMostSteps)
                         .value_or(own("num_inference_steps", driven ? 20 : 50));
    const double own_guidance = model.embedded
                                    ? model.embedded->defaults.value("guidance_scale", 5.0)
                                : driven ? 1
                                         : 5;
    const double guidance = arguments.number("--guidance-scale").value_or(own_guidance);
    workload.branches = guidance > 1 ? 2 : 1;
    workload.outputs = int_in(arguments, "--num-outputs", 1, kMostOutputs).value_or(1);
    return workload;
}

// How the work and the weights are shared out.
struct Ranks {
    int all = 1;
    int sequence = 1;
    int guidance = 1;
    int weights = 1;
    int vae = 1;
};

Ranks ranks_of(const Arguments& arguments, const plan::Workload& workload) {
    const auto degree = [&](const char* flag) { return int_in(arguments, flag, 1, kMostRanks); };
    const int ulysses = degree("--ulysses-degree").value_or(1);
    const int sequence = ulysses * degree("--ring-degree").value_or(1);
    const int tensor = degree("--tp-size").value_or(1);
    Ranks ranks;
    ranks.sequence = degree("--sp-degree").value_or(sequence);
    ZT_CHECK(
        sequence == 1 || ranks.sequence == sequence, bad_request,
        "--sp-degree is {}, and --ulysses-degree times --ring-degree {}: leave one of them out",
        ranks.sequence, sequence);
    ZT_CHECK(workload.shape.heads % ulysses == 0 && workload.shape.heads % tensor == 0, bad_request,
             "--ulysses-degree {} and --tp-size {} do not divide the model's {} heads", ulysses,
             tensor, workload.shape.heads);
    if (arguments.on("--enable-cfg-parallel")) {
        ZT_CHECK(workload.branches == 2, bad_request,
                 "--enable-cfg-parallel shares out the two branches of guidance, and there is "
                 "one: give a --guidance-scale above 1");
        ranks.guidance = 2;
    }
    ranks.all = ranks.sequence * tensor * ranks.guidance;
    const int devices = degree("--num-gpus").value_or(ranks.all);
    if (ranks.all == 1) {
        ranks.all = ranks.sequence = devices;
    } else {
        ZT_CHECK(ranks.all == devices, bad_request,
                 "--num-gpus is {}, and the degrees of parallelism make {}: leave one of them out",
                 devices, ranks.all);
    }
    ZT_CHECK(ranks.all <= kMostRanks, bad_request,
             "the degrees of parallelism make {} ranks: accepted are 1 to {}", ranks.all,
             kMostRanks);
    ranks.weights = arguments.on("--use-fsdp-inference") ? ranks.all : tensor;
    ranks.vae = arguments.on("--vae-parallel") ? ranks.all : 1;
    return ranks;
}

// What the plan is made for: coefficients, memory, and where they come from.
struct Target {
    std::string name;  // "h200"
    plan::CostModel cost;
    std::string cost_source;
    std::int64_t memory = 0;  // bytes that a rank may use
};

Target target_of_gpu(std::string_view name) {
    const plan::Device& device = plan::find_device(name);
    return {.name = std::string(device.name),
            .cost = plan::default_cost(device),
            .cost_source = fmt::format("default coefficients of {}, not measured here ({})",
                                       device.title, device.fractions),
            .memory = static_cast<std::int64_t>(static_cast<double>(device.memory_bytes) *
                                                plan::kUsableMemory)};
}

Target target_of(const Arguments& arguments, const Model& model, int ranks,
                 std::vector<std::string>& warnings) {
    const auto gpu = arguments.text("--gpu");
    const auto device = arguments.text("--device");
    ZT_CHECK(!gpu || !device || !device->starts_with("cpu"), bad_request,
             "--gpu {} and --device {} were both given: leave one of them out", *gpu, *device);
    if (gpu) return target_of_gpu(*gpu);
    const std::string_view otherwise = model.driven() ? plan::kReferenceDevice : "h200";
    if (!device) return target_of_gpu(otherwise);

    const int threads =
        int_in(arguments, "--threads", 1, 4096)
            .value_or(static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
    const bool cpu = device->starts_with("cpu");
    Target target = target_of_gpu(otherwise);
    if (cpu) {
        target.cost = plan::default_cpu_cost(threads);
        target.cost_source = fmt::format(
            "default coefficients of {} cores of an Emerald Rapids Xeon, not measured here",
            threads);
        target.memory = available_memory();
    }
    target.name = device->substr(0, device->find(':'));
    const auto key = plan::calibration_key(
        model.shape, *device, threads, arguments.text("--dtype").value_or("bf16"),
        arguments.text("--quantization").value_or("none"), ranks);
    try {
        if (const auto stored = plan::load_calibration(key)) {
            target.cost = stored->model;
            target.cost_source = "a calibration on this device";
        }
    } catch (const Error& error) {
        warnings.emplace_back(error.what());
    }
    return target;
}

plan::MemoryOptions memory_of(const Arguments& arguments, const Ranks& ranks) {
    const std::string dtype = one_of(arguments, "--dtype", {"bf16", "fp16", "fp32"}, "bf16");
    const std::string quantization =
        one_of(arguments, "--quantization", {"none", "int8", "int8-weight-only", "fp8"}, "none");
    plan::MemoryOptions options;
    options.element_bytes = dtype == "fp32" ? 4 : 2;
    options.weight_bytes = quantization == "none" ? options.element_bytes : 1;
    options.sequence_ranks = ranks.sequence;
    options.weight_ranks = ranks.weights;
    options.vae_ranks = ranks.vae;
    options.layerwise_offload = arguments.on("--dit-layerwise-offload");
    options.text_encoder_on_device = !arguments.on("--text-encoder-cpu-offload");
    return options;
}

std::vector<int> cuts_of(const Arguments& arguments) {
    const std::string list = arguments.text("--scene-cuts").value_or("");
    std::vector<int> cuts;
    for (std::size_t at = 0; at < list.size();) {
        const std::size_t end = std::min(list.find(',', at), list.size());
        int cut = 0;
        const auto [rest, error] = std::from_chars(list.data() + at, list.data() + end, cut);
        ZT_CHECK(error == std::errc() && rest == list.data() + end, bad_request,
                 "--scene-cuts is '{}': frame numbers separated by commas are wanted", list);
        cuts.push_back(cut);
        at = end + 1;
    }
    return cuts;
}

// A whole number of a flag, else what an embedded model says of itself.
std::optional<int> flag_or_own(const Arguments& arguments, const Model& model, const char* flag,
                               const char* key) {
    const auto given = int_in(arguments, flag, 1, kMostFrames);
    return given || !model.embedded ? given : model.embedded->number(key);
}

plan::SegmentRequest segments_of(const Arguments& arguments, const Model& model) {
    plan::SegmentRequest request;
    const int window = model.window();
    ZT_CHECK(!model.driven() || arguments.given("--num-frames"), bad_request,
             "--num-frames is missing: how many frames the driving video has");
    const int otherwise = model.task == Task::t2i ? 1 : window;
    request.num_frames = int_in(arguments, "--num-frames", 1, kMostFrames).value_or(otherwise);
    const bool cut_otherwise =
        arguments.given("--segment-policy") || arguments.given("--segment-max-length");
    request.length = cut_otherwise
                         ? int_in(arguments, "--segment-length", 1, kMostFrames)
                         : flag_or_own(arguments, model, "--segment-length", "segment_length");
    const bool told = model.task != Task::t2v || model.known_frames;
    const int shortest = request.length.value_or(
        int_in(arguments, "--segment-max-length", 1, kMostFrames).value_or(window));
    request.overlap = flag_or_own(arguments, model, "--segment-overlap", "segment_overlap")
                          .value_or(told || shortest < 9 ? 1
                                    : shortest < 13      ? 5
                                                         : 9);
    const bool asked =
        arguments.given("--segment-overlap") || arguments.given("--segment-max-length");
    request.policy = request.length            ? plan::SegmentPolicy::vanilla
                     : model.driven() || asked ? plan::SegmentPolicy::exact
                                               : plan::SegmentPolicy::off;
    if (const auto policy = arguments.text("--segment-policy"))
        request.policy = plan::parse_segment_policy(*policy);
    if (!model.driven() && request.policy == plan::SegmentPolicy::vanilla && !request.length)
        request.length = window;
    // A video that fits into a window is one, and no longer than it is.
    if (!model.driven() && request.length && *request.length >= request.num_frames) {
        request.policy = plan::SegmentPolicy::off;
        request.length.reset();
    }
    if (const auto policy = arguments.text("--cut-policy"))
        request.cut_policy = plan::parse_cut_policy(*policy);
    request.cuts = cuts_of(arguments);
    return request;
}

// Everything the output says.
struct Result {
    Model model;
    plan::Workload workload;
    Ranks ranks;
    Target target;
    plan::SegmentPlan segments;
    std::int64_t peak_bytes = 0;  // on each device
    std::vector<std::string> warnings;

    double seconds_of(int length) const {
        return plan::predict_seconds(target.cost, plan::work_of(workload, length), ranks.all);
    }
};

// The longest segment that the flags and, where the plan chooses lengths, the memory allow.
int cap_of(const Arguments& arguments, const plan::SegmentRequest& request, const Result& result,
           const plan::Workload& on_rank, const plan::MemoryOptions& memory) {
    const auto given =
        flag_or_own(arguments, result.model, "--segment-max-length", "segment_max_length");
    const bool chooses = request.policy == plan::SegmentPolicy::exact ||
                         (!request.length && (request.policy == plan::SegmentPolicy::automatic ||
                                              request.policy == plan::SegmentPolicy::auto_lim));
    if (!chooses) return given.value_or(plan::round_down(kMostFrames));
    const bool by_cost = result.model.driven() && !result.model.embedded;
    const int longest = by_cost ? plan::kDefaultLongest : result.model.window();
    const int wanted = given.value_or(std::max(longest, request.length.value_or(0)));
    const int least = request.overlap + 4;
    if (wanted < least) return wanted;  // refused with the segments
    const int fitting = plan::longest_within(on_rank, result.target.memory, wanted, memory);
    ZT_CHECK(fitting >= least, bad_request,
             "a segment of {} frames at {}x{} is predicted to need {} on each device, and {} may "
             "be used: --quantization int8, --dit-layerwise-offload, more devices with "
             "--use-fsdp-inference, or a smaller size need less",
             least, result.workload.width, result.workload.height,
             format_bytes(plan::peak_bytes(on_rank, least, memory)),
             format_bytes(result.target.memory));
    return fitting < plan::round_down(wanted) ? fitting : wanted;
}

Result make_plan(const Arguments& arguments) {
    Result result;
    result.model = model_of(arguments);
    result.workload = workload_of(arguments, result.model, result.warnings);
    result.ranks = ranks_of(arguments, result.workload);
    const plan::MemoryOptions memory = memory_of(arguments, result.ranks);
    result.target = target_of(arguments, result.model, result.ranks.all, result.warnings);
    const auto max_memory = arguments.text("--max-memory");
    if (max_memory) {
        result.target.memory =
            with_context("--max-memory", [&] { return parse_bytes(*max_memory); });
    }
    plan::Workload on_rank = result.workload;
    on_rank.branches /= result.ranks.guidance;

    plan::SegmentRequest request = segments_of(arguments, result.model);
    request.max_length = cap_of(arguments, request, result, on_rank, memory);
    ZT_CHECK(request.policy != plan::SegmentPolicy::vanilla ||
                 request.length.value_or(plan::kDefaultLength) <= request.max_length,
             bad_request, "windows of {} frames are longer than --segment-max-length {}",
             request.length.value_or(plan::kDefaultLength), request.max_length);
    result.segments =
        plan::plan_segments(request, [&result](int length) { return result.seconds_of(length); });
    result.warnings.insert(result.warnings.end(), result.segments.warnings.begin(),
                           result.segments.warnings.end());

    int longest = 0;
    for (const plan::Segment& segment : result.segments.segments)
        longest = std::max(longest, segment.length);
    result.peak_bytes = plan::peak_bytes(on_rank, longest, memory);
    const bool fits = result.peak_bytes <= result.target.memory;
    const std::string sentence =
        fmt::format("segments of {} frames are predicted to need {} on each device, more than {}",
                    longest, format_bytes(result.peak_bytes), format_bytes(result.target.memory));
    ZT_CHECK(fits || !max_memory, bad_request,
             "{} (--max-memory): shorter segments, --quantization int8 or --dit-layerwise-offload "
             "need less",
             sentence);
    if (!fits) result.warnings.push_back(sentence + ", which it has");
    return result;
}

nlohmann::ordered_json to_json(const Result& result) {
    const plan::SegmentPlan& plan = result.segments;
    nlohmann::ordered_json json;
    json["task"] = name_of(result.model.task);
    json["policy"] = plan::name_of(plan.policy);
    json["assumed_model"] = result.model.assumed ? nlohmann::ordered_json(result.model.shape.name)
                                                 : nlohmann::ordered_json(nullptr);
    json["model"] = result.model.shape.name;
    json["width"] = result.workload.width;
    json["height"] = result.workload.height;
    json["num_inference_steps"] = result.workload.steps;
    json["num_frames"] = plan.num_frames;
    json["overlap"] = plan.overlap;
    json["segments"] = nlohmann::ordered_json::array();
    for (const plan::Segment& segment : plan.segments) {
        json["segments"].push_back({{"start", segment.start},
                                    {"length", segment.length},
                                    {"carried_frames", segment.carried_frames},
                                    {"padded_frames", segment.padded_frames},
                                    {"restart", segment.restart},
                                    {"predicted_seconds", result.seconds_of(segment.length)}});
    }
    json["generated_frames"] = plan.generated_frames;
    json["denoised_frames"] = plan.denoised_frames;
    json["padded_frames"] = plan.padded_frames;
    json["dropped_frames"] = plan.dropped_frames;
    json["predicted_seconds"] = plan.cost;
    for (int rank = 0; rank < result.ranks.all; ++rank) {
        json["predicted_peak_bytes"][fmt::format("{}:{}", result.target.name, rank)] =
            result.peak_bytes;
    }
    json["usable_bytes_per_device"] = result.target.memory;
    json["ranks"] = result.ranks.all;
    json["cost_source"] = result.target.cost_source;
    if (result.model.driven()) {
        for (const int cores : {18, 36}) {
            json["simulated_preprocess_seconds"][fmt::format("{} cores", cores)] =
                plan::predict_preprocess(plan.num_frames, cores);
        }
    }
    json["warnings"] = result.warnings;
    return json;
}

// The segments' new frames in proportion: |===77===|==41==|, padding as dots.
std::string timeline(const plan::SegmentPlan& plan) {
    constexpr int kWidth = 96;
    const auto column = [&plan](int frame) {
        return static_cast<std::size_t>(static_cast<std::int64_t>(frame) * kWidth /
                                        plan.generated_frames);
    };
    std::string line(kWidth, '=');
    for (const plan::Segment& segment : plan.segments) {
        const std::size_t from = column(segment.start + segment.carried_frames);
        const std::size_t to = column(segment.end());
        for (std::size_t i = column(segment.end() - segment.padded_frames); i < to; ++i)
            line[i] = '.';
        const std::string label = std::to_string(segment.length);
        if (to > from + label.size() + 2)
            line.replace(from + (to - from + 1 - label.size()) / 2, label.size(), label);
        if (from < line.size()) line[from] = '|';
    }
    return line + "|";
}

void print_text(const Result& result) {
    constexpr std::size_t kRows = 20;
    const plan::SegmentPlan& plan = result.segments;
    fmt::print("{} with {}{}, {}x{}, {} steps{}\n", name_of(result.model.task),
               result.model.shape.name, result.model.assumed ? " (assumed)" : "",
               result.workload.width, result.workload.height, result.workload.steps,
               result.workload.branches > 1 ? " with guidance" : "");
    fmt::print(
        "{} frames -> {} generated in {} segment{} ({}), overlap {}; {} denoised, {} padded, {} "
        "dropped\n\n",
        plan.num_frames, plan.generated_frames, plan.segments.size(),
        plan.segments.size() == 1 ? "" : "s", plan::name_of(plan.policy), plan.overlap,
        plan.denoised_frames, plan.padded_frames, plan.dropped_frames);
    fmt::print("{:>8} {:>8} {:>8} {:>8} {:>8} {:>10}\n", "segment", "start", "length", "carried",
               "padded", "predicted");
    for (std::size_t i = 0; i < std::min(kRows, plan.segments.size()); ++i) {
        const plan::Segment& segment = plan.segments[i];
        fmt::print("{:>8} {:>8} {:>8} {:>8} {:>8} {:>10}{}\n", i + 1, segment.start, segment.length,
                   segment.carried_frames, segment.padded_frames,
                   format_seconds(result.seconds_of(segment.length)),
                   segment.restart ? "  restart" : "");
    }
    if (plan.segments.size() > kRows)
        fmt::print("     ... and {} more (--json lists all)\n", plan.segments.size() - kRows);
    fmt::print("\n{}\n\n", timeline(plan));
    fmt::print("{} in all on {} x {}: {}\n", format_seconds(plan.cost), result.ranks.all,
               result.target.name, result.target.cost_source);
    fmt::print("{} at the peak on each device, of {} that may be used\n",
               format_bytes(result.peak_bytes), format_bytes(result.target.memory));
    if (result.model.driven()) {
        fmt::print("preprocessing, simulated: {} on 18 cores, {} on 36\n",
                   format_seconds(plan::predict_preprocess(plan.num_frames, 18)),
                   format_seconds(plan::predict_preprocess(plan.num_frames, 36)));
    }
}

}  // namespace

int plan(Words words) {
    const std::vector<Flag> flags = plan_flags();
    const auto arguments = Arguments::parse(kCommand, flags, words);
    if (!arguments) return 0;
    const Result result = make_plan(*arguments);
    for (const std::string& warning : result.warnings) log::warning("{}", warning);
    if (arguments->on("--json")) {
        std::cout << to_json(result).dump(2, ' ', false, nlohmann::json::error_handler_t::replace)
                  << '\n';
    } else {
        print_text(result);
    }
    return 0;
}

}  // namespace zoetrope::cli
