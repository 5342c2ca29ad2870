// A request becomes concrete: defaults of the model, sizes that it takes, combinations that make no
// sense refused.
#include "base/error.h"
#include "base/error_context.h"
#include "denoise/sigmas.h"
#include "engine/known_models.h"
#include "engine/parts.h"
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

Task resolve_task(Task wanted, int num_frames) {
    switch (wanted) {
        case Task::automatic: return num_frames == 1 ? Task::t2i : Task::t2v;
        case Task::t2v:
        case Task::t2i: return wanted;
        default:
            fail(ErrorKind::unsupported, "--task {} is not built yet: t2v and t2i run today",
                 name_of(wanted));
    }
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

std::unique_ptr<Scheduler> scheduler_of(const nlohmann::json& config, const Request& request,
                                        int num_inference_steps) {
    auto scheduler = make_scheduler(config, {.name = request.scheduler,
                                             .flow_shift = request.flow_shift,
                                             .sigma_schedule = request.sigma_schedule,
                                             .sigmas = request.sigmas});
    scheduler->set_timesteps(num_inference_steps);
    return scheduler;
}

ResolvedRequest Engine::resolve(const Request& request) const {
    const ModelFolder& model = parts_->model;
    const Defaults defaults = defaults_of(model);
    ResolvedRequest resolved;
    resolved.request = request;
    const int multiple_h = static_cast<int>(parts_->vae_config.scale_factor_spatial *
                                            parts_->dit_config.patch_size[1]);
    const int multiple_w = static_cast<int>(parts_->vae_config.scale_factor_spatial *
                                            parts_->dit_config.patch_size[2]);
    auto& warnings = resolved.warnings;
    resolved.height =
        round_size("--height", request.height.value_or(defaults.height), multiple_h, warnings);
    resolved.width =
        round_size("--width", request.width.value_or(defaults.width), multiple_w, warnings);
    const int wanted_frames =
        request.num_frames.value_or(request.task == Task::t2i ? 1 : defaults.num_frames);
    resolved.num_frames = round_frames(
        wanted_frames, static_cast<int>(parts_->vae_config.scale_factor_temporal), warnings);
    resolved.task = resolve_task(request.task, resolved.num_frames);
    ZT_CHECK(resolved.task != Task::t2i || resolved.num_frames == 1, bad_request,
             "--task t2i makes one frame, --num-frames is {}: leave one of them out",
             wanted_frames);

    resolved.fps = request.fps.value_or(defaults.fps);
    ZT_CHECK(std::isfinite(resolved.fps) && resolved.fps > 0 && resolved.fps <= 1000, bad_request,
             "--fps is {}: accepted are numbers above 0, up to 1000", resolved.fps);
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
    // Refuses unknown names and settings before anything runs.
    const auto scheduler = scheduler_of(model.scheduler, request, resolved.num_inference_steps);
    resolved.num_steps = static_cast<int>(scheduler->timesteps().size());
    if (!request.latents.empty()) draw_noise(resolved);  // refuses a file that does not fit
    return resolved;
}

}  // namespace zoetrope
