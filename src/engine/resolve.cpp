// A request becomes concrete: defaults of the model, sizes that it takes, combinations that make no
// sense refused.
#include "base/error.h"
#include "base/error_context.h"
#include "denoise/sigmas.h"
#include "engine/driving_clip.h"
#include "engine/inputs.h"
#include "engine/known_models.h"
#include "engine/parts.h"
#include "engine/preprocessing.h"
#include "text/clean.h"

#include <cmath>
#include <random>

namespace zoetrope {
namespace {

// What Diffusers' WanPipeline takes where the caller says nothing, and the frame rate that Wan2.1
// was trained at. Released models have their own.
struct Defaults {
    int height = 480;
    int width = 832;
    int num_frames = 81;
    double fps = 16;
    int num_inference_steps = 50;
    double guidance_scale = 5;
    std::optional<double> guidance_scale_2;  // of the low-noise expert
    std::string negative_prompt;
};

Defaults defaults_of(const ModelFolder& model) {
    Defaults defaults;
    if (const KnownModel* known = find_known(model)) {
        return {.height = known->height,
                .width = known->width,
                .num_frames = known->num_frames,
                .fps = known->fps,
                .num_inference_steps = known->num_inference_steps,
                .guidance_scale = known->guidance_scale,
                .guidance_scale_2 = known->guidance_scale_2,
                .negative_prompt = known->negative_prompt()};
    }
    if (!model.embedded) return defaults;
    const nlohmann::json& own = model.embedded->defaults;
    defaults.height = own.value("height", defaults.height);
    defaults.width = own.value("width", defaults.width);
    defaults.num_frames = own.value("num_frames", defaults.num_frames);
    defaults.fps = own.value("fps", defaults.fps);
    defaults.num_inference_steps = own.value("num_inference_steps", defaults.num_inference_steps);
    defaults.guidance_scale = own.value("guidance_scale", defaults.guidance_scale);
    defaults.negative_prompt = own.value("negative_prompt", defaults.negative_prompt);
    return defaults;
}

// Down to a multiple, with a sentence where that changes it.
int round_size(const char* flag, int given, int multiple, std::vector<std::string>& warnings) {
    ZT_CHECK(given >= multiple && given <= kLargestSide, bad_request,
             "{} is {}: accepted are {} to {} pixels", flag, given, multiple, kLargestSide);
    const int rounded = given / multiple * multiple;
    if (rounded != given) {
        warnings.push_back(
            fmt::format("{} {} is not a multiple of {}, which this model needs: {} is made", flag,
                        given, multiple, rounded));
    }
    return rounded;
}

// The sides of a video where none is given: the default area in the proportions of the picture or
// the video, as the Wan models are used; VACE keeps a control video's size up to that area.
void follow_inputs(Defaults& defaults, const VisualInputs& inputs, Task task) {
    if (!inputs.image && inputs.video.empty()) return;
    const int own_height = inputs.image ? inputs.image->height : inputs.video.height();
    const int own_width = inputs.image ? inputs.image->width : inputs.video.width();
    const double height = own_height, width = own_width;
    const double area = static_cast<double>(defaults.height) * defaults.width;
    if (task == Task::vace && height * width <= area) {
        defaults.height = own_height;
        defaults.width = own_width;
        return;
    }
    const double scale = task == Task::vace
                             ? std::min(defaults.width / width, defaults.height / height)
                             : std::sqrt(area / (height * width));
    const auto side = [&](double length) {
        return static_cast<int>(task == Task::vace ? length * scale : std::round(length * scale));
    };
    defaults.height = side(height);
    defaults.width = side(width);
}

constexpr double kAnimateFps = 30;  // frames a second, that Wan-Animate was trained at

// The videos of an animation: as long as the pose video, or as many frames as were asked for.
int frames_of_animation(const VisualInputs& inputs, const Request& request) {
    const int poses = inputs.pose.size();
    const int wanted = request.num_frames.value_or(poses);
    ZT_CHECK(poses >= 2 && wanted <= poses, bad_request,
             "--pose-video has {} frames and {} are wanted: 2 at least and as many as are wanted "
             "are needed",
             poses, wanted);
    const auto check = [&](const char* flag, const FrameSequence& video) {
        ZT_CHECK(video.empty() || video.size() >= wanted, bad_request,
                 "{} has {} frames and --pose-video has {}: as many are needed", flag, video.size(),
                 poses);
    };
    check("--face-video", inputs.face);
    check("--background-video", inputs.background);
    check("--mask-video", inputs.mask);
    return wanted;
}

// area: of the pose video, pixels, where the user does not say it; 0: that of the options
std::shared_ptr<DrivingClip> open_clip(const ResolvedRequest& resolved, std::int64_t area,
                                       int threads) {
    const Request& request = resolved.request;
    preprocess::Options options = request.preprocessing;
    options.video = request.video;
    options.image = request.image;
    options.replace = resolved.task == Task::replace;
    options.fps = resolved.fps;
    if (!request.own_area && area > 0) options.area = area;
    options.max_frames = request.num_frames.value_or(0);
    complete(options, threads);
    return std::make_shared<DrivingClip>(std::move(options));
}

int frames_of_clip(const DrivingClip& clip, ResolvedRequest& resolved) {
    if (!clip.damage().empty())
        resolved.warnings.push_back(fmt::format("the driving clip ends early: {}", clip.damage()));
    const int wanted = resolved.request.num_frames.value_or(clip.frames());
    ZT_CHECK(
        clip.frames() >= 2 && wanted <= clip.frames(), bad_request,
        "--video has {} frames at {} a second and {} are wanted: 2 at least and as many as are "
        "wanted are needed",
        clip.frames(), resolved.fps, wanted);
    return wanted;
}

// Frames of a video as a run takes them: all that the VAE's groups hold.
int frames_of_video(int wanted, bool given, int read, int temporal,
                    std::vector<std::string>& warnings) {
    if (given) {
        ZT_CHECK(wanted <= read, bad_request,
                 "--num-frames is {} and --video has {} frames: give at most that many", wanted,
                 read);
        return wanted;
    }
    ZT_CHECK(read >= 1, bad_request, "--video has no frames");
    const int used = (read - 1) / temporal * temporal + 1;
    if (used != read) {
        warnings.push_back(fmt::format(
            "--video has {} frames, which is not {}n+1, as the VAE needs: the first {} are used",
            read, temporal, used));
    }
    return used;
}

// To 4n + 1 as Diffusers does it: 16 becomes 17, 15 becomes 13.
int round_frames(int given, int temporal, std::vector<std::string>& warnings) {
    ZT_CHECK(given >= 1 && given <= kMostFrames, bad_request,
             "--num-frames is {}: accepted are 1 to {}", given, kMostFrames);
    if (given % temporal == 1 % temporal) return given;
    const int rounded = given / temporal * temporal + 1;
    warnings.push_back(
        fmt::format("--num-frames {} is not {}n+1, which the VAE needs: {} frames are made", given,
                    temporal, rounded));
    return rounded;
}

constexpr double kDefaultStrength = 0.8;  // of WanVideoToVideoPipeline

// Video-to-video runs the last int(steps * strength) steps.
int first_step_of(double strength, int steps) {
    ZT_CHECK(strength > 0 && strength <= 1, bad_request,
             "--strength is {}: accepted are numbers above 0, up to 1", strength);
    const int run = static_cast<int>(steps * strength);
    ZT_CHECK(run >= 1, bad_request,
             "--strength {} of {} steps is less than one step: give more of either", strength,
             steps);
    return steps - run;
}

// Throws unless a prompt is UTF-8 without NUL, which would end the text in a file's metadata.
void check_text(const char* name, const std::string& text) {
    ZT_CHECK(text.find('\0') == std::string::npos, bad_request,
             "{} has a NUL byte at position {}: text is wanted", name, text.find('\0'));
    with_context(name, [&] { return clean_prompt(text); });
}

std::uint64_t random_seed() {
    std::random_device device;
    return device();  // 32 bits: short enough to type
}

int steps_of(const Request& request, const Defaults& defaults) {
    const int otherwise = request.sigmas ? static_cast<int>(checked_sigmas(*request.sigmas).size())
                                         : defaults.num_inference_steps;
    return request.num_inference_steps.value_or(otherwise);
}

}  // namespace

ResolvedRequest Engine::resolve(const Request& request) const {
    const ModelFolder& model = parts_->model;
    Defaults defaults = defaults_of(model);
    ResolvedRequest resolved;
    resolved.request = request;
    const int multiple_h = static_cast<int>(parts_->vae_config.scale_factor_spatial *
                                            parts_->dit_config.patch_size[1]);
    const int multiple_w = static_cast<int>(parts_->vae_config.scale_factor_spatial *
                                            parts_->dit_config.patch_size[2]);
    const int temporal = static_cast<int>(parts_->vae_config.scale_factor_temporal);
    auto& warnings = resolved.warnings;
    const bool moved = parts_->kind() == ModelKind::animate;
    if (moved && find_known(model) == nullptr && !model.embedded) defaults.fps = kAnimateFps;
    const int wanted_frames =
        request.num_frames.value_or(moved                       ? 1
                                    : request.task == Task::t2i ? 1
                                                                : defaults.num_frames);
    resolved.num_frames = moved ? wanted_frames : round_frames(wanted_frames, temporal, warnings);
    resolved.task = resolve_task(parts_->kind(), parts_->dit_config.pos_embed_seq_len > 0, request,
                                 resolved.num_frames);
    ZT_CHECK(resolved.task != Task::t2i || resolved.num_frames == 1, bad_request,
             "--task t2i makes one frame, --num-frames is {}: leave one of them out",
             wanted_frames);
    resolved.fps = request.fps.value_or(defaults.fps);
    ZT_CHECK(std::isfinite(resolved.fps) && resolved.fps > 0 && resolved.fps <= 1000, bad_request,
             "--fps is {}: accepted are numbers above 0, up to 1000", resolved.fps);
    resolved.inputs = read_inputs(request, request.num_frames ? resolved.num_frames : 0, moved);
    if (moved) {
        if (!request.video.empty()) {
            // A small model knows lines as wide as they are drawn at its own size.
            const std::int64_t area =
                model.embedded ? std::int64_t{defaults.height} * defaults.width : 0;
            resolved.clip = open_clip(resolved, area, parts_->options.threads);
            resolved.num_frames = frames_of_clip(*resolved.clip, resolved);
        } else {
            resolved.num_frames = frames_of_animation(resolved.inputs, request);
        }
    } else if (!resolved.inputs.video.empty()) {
        resolved.num_frames = frames_of_video(resolved.num_frames, request.num_frames.has_value(),
                                              resolved.inputs.video.size(), temporal, warnings);
    }
    ZT_CHECK(resolved.task != Task::flf2v || resolved.num_frames > temporal, bad_request,
             "--task flf2v needs a first and a last frame: --num-frames {} is too few, {} are the "
             "least",
             resolved.num_frames, temporal + 1);
    Defaults size = defaults;
    const bool one_size = moved && model.embedded;  // trained at no other
    if (!request.height && !request.width && !one_size)
        follow_inputs(size, resolved.inputs, resolved.task);
    resolved.height =
        round_size("--height", request.height.value_or(size.height), multiple_h, warnings);
    resolved.width =
        round_size("--width", request.width.value_or(size.width), multiple_w, warnings);

    resolved.num_inference_steps = steps_of(request, defaults);
    ZT_CHECK(resolved.num_inference_steps >= 1 && resolved.num_inference_steps <= kMostSteps,
             bad_request, "--num-inference-steps is {}: accepted are 1 to {}",
             resolved.num_inference_steps, kMostSteps);
    resolved.guidance_scale = request.guidance_scale.value_or(defaults.guidance_scale);
    ZT_CHECK(std::isfinite(resolved.guidance_scale), bad_request,
             "--guidance-scale is not a finite number");

    resolved.boundary_ratio =
        request.boundary_ratio ? request.boundary_ratio : model.boundary_ratio;
    if (resolved.boundary_ratio) {
        ZT_CHECK(*resolved.boundary_ratio >= 0 && *resolved.boundary_ratio <= 1, bad_request,
                 "--boundary-ratio is {}: accepted are 0 to 1", *resolved.boundary_ratio);
        ZT_CHECK(model.transformer_2.has_value(), bad_request,
                 "a boundary ratio needs two experts, and this model has no transformer_2");
    }
    ZT_CHECK(!request.guidance_scale_2 || resolved.boundary_ratio, bad_request,
             "--guidance-scale-2 is for models of two experts with a boundary ratio, which this "
             "one is not");
    // A known model's own pair, or the one guidance that was given for both.
    const std::optional<double> own_2 =
        request.guidance_scale ? std::nullopt : defaults.guidance_scale_2;
    resolved.guidance_scale_2 =
        request.guidance_scale_2.value_or(own_2.value_or(resolved.guidance_scale));

    check_text("the prompt", request.prompt);
    check_text("the negative prompt", request.negative_prompt.value_or(""));
    ZT_CHECK(request.num_outputs >= 1 && request.num_outputs <= kMostOutputs, bad_request,
             "--num-outputs is {}: accepted are 1 to {}", request.num_outputs, kMostOutputs);
    resolved.negative_prompt = request.negative_prompt.value_or(defaults.negative_prompt);
    resolved.seed = request.seed ? *request.seed : random_seed();
    const auto scheduler = parts_->scheduler_of(resolved);  // refuses unknown names and settings
    resolved.last_step = static_cast<int>(scheduler->timesteps().size());
    if (resolved.task == Task::v2v) {
        resolved.strength = request.strength.value_or(kDefaultStrength);
        // Heun's method has two time steps for one.
        const int order = resolved.last_step > resolved.num_inference_steps ? 2 : 1;
        resolved.first_step =
            order * first_step_of(resolved.strength, resolved.num_inference_steps);
    }
    resolved.conditioning_scale = request.conditioning_scale.value_or(1);
    ZT_CHECK(std::isfinite(resolved.conditioning_scale), bad_request,
             "--conditioning-scale is not a finite number");
    parts_->plan_segments(resolved, defaults.num_frames);
    if (resolved.clip) resolved.clip->attach(resolved.inputs, resolved.segments);
    if (!request.latents.empty()) draw_noise(resolved);  // refuses a file that does not fit
    return resolved;
}

}  // namespace zoetrope
