#include "engine/engine.h"

#include "base/error.h"
#include "base/error_context.h"
#include "base/log.h"
#include "base/sizes.h"
#include "base/timer.h"
#include "denoise/loop.h"
#include "engine/driving_clip.h"
#include "engine/machine_memory.h"
#include "engine/parts.h"
#include "engine/segment_run.h"
#include "ops/device.h"
#include "text/clean.h"
#include "weights/source.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

namespace zoetrope {
namespace {

at::Generator generator_for(std::uint64_t seed) { return at::detail::createCPUGenerator(seed); }

// Of the driving videos, that a run reads.
int first_frame(const ResolvedRequest& request, const SegmentHooks& hooks) {
    const auto& segments = request.segments.segments;
    const auto next = static_cast<std::size_t>(hooks.begin ? hooks.begin->next_segment : 0);
    return next < segments.size() ? plan::source_frame(request.segments, segments[next].start) : 0;
}

}  // namespace

void Engine::Parts::release_memory() { ops::release_cached_memory(); }

Part<Umt5Encoder>& Engine::Parts::open_text() {
    if (!text)
        text = open_part<Umt5Encoder>("text_encoder", ComponentKind::umt5, model.text_encoder,
                                      text_config, compute);
    return *text;
}

Part<Dit>& Engine::Parts::open_dit(bool low_noise) {
    auto& part = low_noise ? transformer_2 : transformer;
    if (!part) {
        part = low_noise ? open_part<Dit>("transformer_2", ComponentKind::dit, *model.transformer_2,
                                          *dit_2_config, dit_compute)
                         : open_part<Dit>("transformer", ComponentKind::dit, model.transformer,
                                          dit_config, dit_compute);
        apply_adapters(low_noise);
    }
    return *part;
}

Part<ClipVision>& Engine::Parts::open_image_encoder() {
    if (!image_encoder) {
        const auto config = ClipVisionConfig::from_json(
            model.image_encoder_config.value_or(nlohmann::json::object()));
        image_encoder = open_part<ClipVision>("image_encoder", ComponentKind::clip,
                                              *model.image_encoder, config, compute);
    }
    return *image_encoder;
}

Part<Vae>& Engine::Parts::open_vae() {
    const VaeOptions convolutions{.bf16_products = compute.compute_dtype != at::kFloat};
    if (!vae) {
        vae = open_part<Vae>("vae", ComponentKind::vae, model.vae, vae_config, vae_compute,
                             convolutions);
    }
    return *vae;
}

std::unique_ptr<Scheduler> Engine::Parts::scheduler_of(const ResolvedRequest& request) const {
    auto scheduler =
        make_scheduler(model.scheduler, {.name = request.request.scheduler,
                                         .flow_shift = request.request.flow_shift,
                                         .sigma_schedule = request.request.sigma_schedule,
                                         .sigmas = request.request.sigmas});
    scheduler->set_timesteps(request.num_inference_steps);
    return scheduler;
}

std::int64_t Engine::Parts::latent_frames(const ResolvedRequest& request, int frames) const {
    // Animate's character is a latent frame of its own, as each of VACE's reference pictures is.
    const std::size_t pictures =
        kind() == ModelKind::animate ? 1 : request.inputs.reference_images.size();
    return vae_config.latent_frames(frames) + static_cast<std::int64_t>(pictures);
}

ModelKind Engine::Parts::kind() const {
    if (dit_config.has_control()) return ModelKind::control;
    if (dit_config.has_face()) return ModelKind::animate;
    if (model.expand_timesteps) return ModelKind::text_or_image;
    const std::int64_t z = vae_config.z_dim;
    if (dit_config.in_channels == z) return ModelKind::text;
    return dit_config.in_channels == 3 * z ? ModelKind::control_channels : ModelKind::image;
}

void Engine::Parts::check_channels() const {
    const std::int64_t z = vae_config.z_dim;
    const std::int64_t with_picture = 2 * z + vae_config.scale_factor_temporal;
    const std::int64_t with_control =
        2 * z + vae_config.scale_factor_spatial * vae_config.scale_factor_spatial;
    ZT_CHECK(dit_config.out_channels == z, io,
             "the transformer gives {} channels and the VAE takes {}: they do not belong together",
             dit_config.out_channels, z);
    const bool widened = dit_config.in_channels == with_picture || dit_config.in_channels == 3 * z;
    ZT_CHECK(dit_config.in_channels == z || (widened && !dit_config.has_control()), unsupported,
             "the transformer takes {} channels: with this VAE, {} (text-to-video), {} "
             "(image-to-video) and {} (Fun-Control) are what runs",
             dit_config.in_channels, z, with_picture, 3 * z);
    ZT_CHECK(!dit_config.has_control() || dit_config.vace_in_channels == with_control, unsupported,
             "the control branch takes {} channels: with this VAE, {} are what runs",
             dit_config.vace_in_channels, with_control);
    ZT_CHECK((dit_config.image_dim == 0 || model.image_encoder.has_value()), not_found,
             "the transformer takes embeddings of pictures and the model has no image encoder: "
             "give one with --image-encoder-path");
}

Engine::Engine(ModelFolder model, const EngineOptions& options)
    : parts_(std::make_unique<Parts>()) {
    ops::set_threads(options.threads);
    Parts& parts = *parts_;
    parts.model = std::move(model);
    parts.options = options;
    parts.compute.device =
        with_context("--device", [&] { return ops::parse_device(options.device); });
    parts.compute.compute_dtype = with_context("--dtype", [&] {
        const at::ScalarType dtype = options.dtype == "auto"
                                         ? ops::default_dtype(parts.compute.device)
                                         : ops::parse_dtype(options.dtype);
        ops::check_dtype(parts.compute.device, dtype);
        return dtype;
    });
    parts.vae_compute = parts.compute;
    parts.dit_compute = parts.compute;
    with_context("--quantization", [&] {
        parts.dit_compute.quantization = parse_quantization(options.quantization);
        check_quantization(parts.dit_compute);
    });
    // On the CPU the VAE's numbers are float32; VaeOptions say what they are multiplied as.
    if (parts.compute.device.is_cpu()) parts.vae_compute.compute_dtype = at::kFloat;
    ops::prepare_process();
    parts.process_bytes = ops::process_memory().resident;
    parts.dit_config = DitConfig::from_json(parts.model.transformer_config);
    parts.vae_config = VaeConfig::from_json(parts.model.vae_config);
    parts.text_config = Umt5Config::from_json(parts.model.text_encoder_config);
    if (parts.model.transformer_2_config) {
        parts.dit_2_config =
            DitConfig::from_json(*parts.model.transformer_2_config, "transformer_2");
        const bool alike = parts.dit_2_config->in_channels == parts.dit_config.in_channels &&
                           parts.dit_2_config->patch_size == parts.dit_config.patch_size &&
                           parts.dit_2_config->text_dim == parts.dit_config.text_dim;
        ZT_CHECK(alike, io,
                 "transformer and transformer_2 differ in in_channels, patch_size or text_dim");
    }
    parts.check_channels();
    ZT_CHECK(parts.dit_config.text_dim == parts.text_config.d_model, io,
             "the transformer takes text of {} channels, the text encoder gives {}",
             parts.dit_config.text_dim, parts.text_config.d_model);
    parts.adapter_mode =
        with_context("--lora-mode", [&] { return parse_adapter_mode(options.lora_mode); });
    parts.adapters = parts.find_adapters(options.adapters);
    // Names and shapes are checked now, so that a wrong file is told before an hour of work.
    parts.tokenizer.emplace(open_tokenizer(parts.model.tokenizer));
    parts.open_text();
    parts.open_dit(false);
    if (parts.model.transformer_2) parts.open_dit(true);
    parts.open_vae();
    if (parts.dit_config.image_dim > 0) parts.open_image_encoder();
}

Engine::~Engine() = default;

const ModelFolder& Engine::model() const { return parts_->model; }

std::string Engine::dtype() const {
    return std::string(ops::name_of(parts_->compute.compute_dtype));
}

std::string Engine::quantization() const {
    return std::string(name_of(parts_->dit_compute.quantization));
}

std::string Engine::device() const { return parts_->compute.device.str(); }

TextEmbeddings Engine::encode_text(const ResolvedRequest& request, const RunControl& control,
                                   Report& report) {
    const c10::InferenceMode inference;
    const Timer timer;
    Progress progress{.stage = Stage::encode_text, .steps = request.guidance() ? 2 : 1};
    control.report(progress);
    control.throw_if_stopped();
    auto& part = parts_->open_text();
    part.keep();
    const auto encode = [&](const std::string& text) {
        const auto ids = parts_->tokenizer->encode(clean_prompt(text), kTextLength);
        const at::Tensor real = part.layers.encode(ids, *part.residency);
        at::Tensor padded = at::zeros({1, kTextLength, real.size(2)}, real.options());
        padded.narrow(1, 0, real.size(1)).copy_(real);
        progress.step += 1;
        progress.seconds = timer.seconds();
        control.report(progress);
        return padded;
    };
    TextEmbeddings embeddings;
    embeddings.prompt = encode(request.request.prompt);
    if (request.guidance()) embeddings.negative = encode(request.negative_prompt);
    parts_->close(parts_->text);
    report.add_stage(Stage::encode_text, timer.seconds());
    return embeddings;
}

std::vector<std::int64_t> Engine::Parts::noise_shape(const ResolvedRequest& request,
                                                     int frames) const {
    return {request.request.num_outputs, vae_config.z_dim, latent_frames(request, frames),
            request.height / vae_config.scale_factor_spatial,
            request.width / vae_config.scale_factor_spatial};
}

at::Tensor Engine::draw_noise(const ResolvedRequest& request) const {
    const c10::InferenceMode inference;
    const std::vector<plan::Segment>& segments = request.segments.segments;
    const std::vector<std::int64_t> shape =
        parts_->noise_shape(request, segments.empty() ? request.num_frames : segments[0].length);
    if (request.request.latents.empty())
        return at::randn(shape, generator_for(request.seed), at::kFloat);

    const auto source = open_safetensors(request.request.latents);
    const auto tensors = source->tensors();
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        if (tensors[i].name != "latents") continue;
        ZT_CHECK(tensors[i].shape == shape, bad_request,
                 "--latents {}: 'latents' is [{}], this request needs [{}]",
                 request.request.latents.string(), fmt::join(tensors[i].shape, ", "),
                 fmt::join(shape, ", "));
        return source->read(i).to(at::kFloat).clone();
    }
    fail(ErrorKind::bad_request, "--latents {}: the file has no tensor named 'latents'",
         request.request.latents.string());
}

at::Tensor Engine::denoise(const ResolvedRequest& request, const TextEmbeddings& text,
                           const VisualConditions& visual, int from_step, int to_step,
                           const at::Tensor& latents, const RunControl& control, Report& report) {
    const c10::InferenceMode inference;
    // The generator stands where it stood after the initial noise was drawn.
    at::Generator generator = generator_for(request.seed);
    if (request.request.latents.empty()) at::randn(latents.sizes(), generator, at::kFloat);
    return parts_->run_loop(request, text, visual, from_step, to_step, latents, generator, control,
                            report);
}

at::Tensor Engine::Parts::run_loop(const ResolvedRequest& request, const TextEmbeddings& prompts,
                                   const VisualConditions& visual, int from_step, int to_step,
                                   const at::Tensor& latents, at::Generator& generator,
                                   const RunControl& control, Report& report,
                                   const LoopHooks& hooks) {
    const Timer timer;
    DenoiseOptions loop_options;
    loop_options.expert = [this](ExpertKind kind) {
        const Timer loading;
        const bool low_noise = kind == ExpertKind::low_noise;
        close(low_noise ? transformer : transformer_2);
        auto& part = open_dit(low_noise);
        part.keep();
        load_seconds += loading.seconds();
        return Expert{&part.layers, part.residency.get()};
    };
    loop_options.two_experts = request.boundary_ratio.has_value();
    loop_options.boundary_ratio = request.boundary_ratio.value_or(0);
    loop_options.guidance_scale = request.guidance_scale;
    loop_options.guidance_scale_2 = request.guidance_scale_2;
    loop_options.text = prompts.prompt;
    loop_options.negative = prompts.negative;
    const auto on_device = [this](const at::Tensor& tensor) {
        return tensor.defined() ? tensor.to(compute.device) : tensor;
    };
    loop_options.image = on_device(visual.image);
    loop_options.channels = on_device(visual.channels);
    loop_options.known_frames = on_device(visual.known_frames);
    if (visual.kept_frames.defined()) {
        loop_options.kept_frames = on_device(visual.kept_frames);
        loop_options.kept_noise =
            on_device(latents.narrow(2, 0, visual.kept_frames.size(2)).to(at::kFloat));
    }
    loop_options.control = on_device(visual.control);
    loop_options.control_scale = request.conditioning_scale;
    loop_options.pose = on_device(visual.pose);
    loop_options.faces = on_device(visual.faces);
    DenoiseLoop loop(std::move(loop_options), scheduler_of(request), generator);
    LoopState state = hooks.begin != nullptr
                          ? *hooks.begin
                          : loop.begin(latents.to(compute.device, at::kFloat), from_step);
    state.latents = state.latents.to(compute.device);
    for (at::Tensor& tensor : state.scheduler.tensors) tensor = on_device(tensor);
    loop.run(state, to_step, control, [&](double seconds) {
        report.step_seconds.push_back(seconds);
        if (hooks.after_step) hooks.after_step(state);
    });
    generator.set_state(state.generator);
    close(transformer);
    close(transformer_2);
    report.add_stage(Stage::denoise, timer.seconds());
    return state.latents.to(at::kCPU);
}

void Engine::decode(const at::Tensor& latents, const FrameCallback& sink, const RunControl& control,
                    Report& report) {
    const c10::InferenceMode inference;
    const Timer timer;
    auto& part = parts_->open_vae();
    const Lease lease = part.residency->lease(part.layers.decoder_params());
    const std::int64_t chunks = latents.size(2);
    Progress progress{.stage = Stage::decode, .steps = static_cast<int>(chunks * latents.size(0))};
    control.report(progress);
    for (std::int64_t output = 0; output < latents.size(0); ++output) {
        auto stream = part.layers.decode_stream(lease);
        for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
            control.throw_if_stopped();
            const at::Tensor z =
                part.layers.denormalize(latents.narrow(0, output, 1).narrow(2, chunk, 1));
            const at::Tensor frames =
                stream.push(z.to(parts_->vae_compute.device, parts_->vae_compute.compute_dtype))
                    .squeeze(0)
                    .to(at::kFloat);
            sink(static_cast<int>(output), frames.div(2).add_(0.5).clamp_(0, 1).to(at::kCPU));
            progress.step += 1;
            progress.seconds = timer.seconds();
            progress.predicted_seconds_left =
                progress.seconds / progress.step * (progress.steps - progress.step);
            control.report(progress);
        }
    }
    report.add_stage(Stage::decode, timer.seconds());
}

at::Tensor Engine::generate(const ResolvedRequest& request, const FrameCallback& sink,
                            const RunControl& control, Report& report) {
    return generate(request, sink, control, report, {});
}

at::Tensor Engine::generate(const ResolvedRequest& request, const FrameCallback& sink,
                            const RunControl& control, Report& report, const SegmentHooks& hooks) {
    report.warnings = request.warnings;
    report.memory = plan_memory(request);
    report.adapters = adapter_reports();
    report.plan = plan_of(request);
    const std::int64_t peak = report.memory.peak();
    const std::int64_t limit = parts_->options.max_memory;
    ZT_CHECK(
        limit == 0 || peak <= limit, out_of_memory,
        "this run needs {} and --max-memory is {}: give more, or a smaller size or fewer frames",
        format_bytes(peak), format_bytes(limit));
    const std::int64_t free = ops::process_memory().resident + available_memory();
    ZT_CHECK(peak <= free, out_of_memory,
             "this run needs {} of memory and {} are free on this machine: make the size smaller, "
             "the frames fewer or the outputs fewer",
             format_bytes(peak), format_bytes(free));
    ops::reset_peak_memory();
    try {
        const bool joined = hooks.begin && hooks.begin->next_segment >=
                                               static_cast<int>(request.segments.segments.size());
        DrivingClip::Run clip(joined ? nullptr : request.clip.get(), first_frame(request, hooks),
                              control);
        const at::Tensor latents = run_segments(request, sink, clip.control(), report, hooks);
        clip.finish(report);
        report.measured_peak_bytes = ops::process_memory().peak_resident;
        return latents;
    } catch (const c10::Error& error) {
        // LibTorch's CPU allocator has no exception type of its own.
        const std::string what = error.what_without_backtrace();
        const bool memory = what.find("t allocate memory") != std::string::npos ||
                            what.find("out of memory") != std::string::npos;
        ZT_CHECK(!memory, out_of_memory,
                 "memory ran out, although {} were predicted to be enough: make the size smaller "
                 "or the frames fewer",
                 format_bytes(peak));
        throw;
    }
}

std::vector<Frame> to_frames(const at::Tensor& video) {
    const c10::InferenceMode inference;
    const at::Tensor bytes =
        video.mul(255).round_().clamp_(0, 255).to(at::kByte).permute({1, 2, 3, 0}).contiguous();
    std::vector<Frame> frames;
    const auto frame_bytes = static_cast<std::size_t>(bytes.size(1) * bytes.size(2) * 3);
    const auto* data = bytes.const_data_ptr<std::uint8_t>();
    for (std::int64_t i = 0; i < bytes.size(0); ++i) {
        Frame& frame =
            frames.emplace_back(static_cast<int>(bytes.size(2)), static_cast<int>(bytes.size(1)));
        std::copy_n(data + static_cast<std::size_t>(i) * frame_bytes, frame_bytes,
                    frame.rgb.begin());
    }
    return frames;
}

}  // namespace zoetrope
