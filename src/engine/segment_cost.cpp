// What segments cost on this machine: work in units, seconds a unit, and where the seconds come
// from.
#include "base/error.h"
#include "base/log.h"
#include "engine/parts.h"
#include "ops/device.h"
#include "plan/devices.h"

#include <algorithm>
#include <iterator>

namespace zoetrope {
namespace {

constexpr std::size_t kMostSamples = 64;  // of a stored calibration; older ones go
// A stored calibration that predicts a run this well stays as it is, so that the same request is
// cut into the same segments again.
constexpr double kGoodPrediction = 0.15;

}  // namespace

plan::Workload Engine::Parts::workload_of(const ResolvedRequest& request) const {
    plan::Workload workload;
    plan::ModelShape& shape = workload.shape;
    shape.layers = dit_config.num_layers;
    shape.heads = dit_config.num_attention_heads;
    shape.head_dim = dit_config.attention_head_dim;
    shape.ffn_dim = dit_config.ffn_dim;
    shape.control_layers = static_cast<std::int64_t>(dit_config.vace_layers.size());
    if (dit_config.has_face()) {
        shape.face_layers =
            (dit_config.num_layers + dit_config.face_every - 1) / dit_config.face_every;
    }
    shape.image_attention = dit_config.image_dim > 0;
    shape.reference_latents =
        static_cast<int>(latent_frames(request, 1) - vae_config.latent_frames(1));
    shape.spatial_factor =
        static_cast<int>(vae_config.scale_factor_spatial * dit_config.patch_size[1]);
    switch (kind()) {
        case ModelKind::text:
        case ModelKind::text_or_image: shape.encoded_videos = request.task == Task::v2v; break;
        case ModelKind::image:
        case ModelKind::control_channels: shape.encoded_videos = 1; break;
        case ModelKind::control:
        case ModelKind::animate: shape.encoded_videos = 2; break;
    }
    workload.width = request.width;
    workload.height = request.height;
    workload.steps = request.last_step - request.first_step;
    workload.branches = request.guidance() ? 2 : 1;
    workload.outputs = request.request.num_outputs;
    return workload;
}

std::filesystem::path Engine::Parts::cost_folder() const {
    return options.cost_folder.empty() ? plan::cache_folder() : options.cost_folder;
}

plan::CalibrationKey Engine::Parts::calibration_key() const {
    const plan::ModelShape widths{.heads = dit_config.num_attention_heads,
                                  .head_dim = dit_config.attention_head_dim,
                                  .vae_dim = vae_config.base_dim};
    return plan::calibration_key(widths, options.device, ops::threads(),
                                 ops::name_of(compute.compute_dtype), options.quantization, 1);
}

Engine::Parts::Cost Engine::Parts::cost_model(std::vector<std::string>& warnings) const {
    try {
        if (const auto stored = plan::load_calibration(calibration_key(), cost_folder()))
            return {stored->model, "a calibration on this device"};
    } catch (const Error& error) {
        warnings.emplace_back(error.what());
    }
    if (compute.device.is_cpu()) {
        return {plan::default_cpu_cost(ops::threads()),
                fmt::format("default coefficients of {} cores of an Emerald Rapids Xeon, not "
                            "measured here",
                            ops::threads())};
    }
    const plan::Device& device = plan::find_device("h200");
    return {plan::default_cost(device),
            fmt::format("default coefficients of {}, not measured here", device.title)};
}

void Engine::Parts::learn_cost(const Report& report) const {
    std::vector<plan::Sample> samples;
    std::copy_if(report.samples.begin(), report.samples.end(), std::back_inserter(samples),
                 [this](const plan::Sample& sample) {
                     return sample.denoise_seconds > 0 &&
                            sample.denoise_seconds >= options.cost_least_seconds;
                 });
    if (samples.empty() || is_disturbed(report.pipeline, options.cost_most_waiting)) return;
    try {
        const plan::CalibrationKey key = calibration_key();
        const auto stored = plan::load_calibration(key, cost_folder());
        if (stored && plan::worst_error(stored->model, samples) <= kGoodPrediction) return;
        std::vector<plan::Sample> all = stored ? stored->samples : std::vector<plan::Sample>();
        all.insert(all.end(), samples.begin(), samples.end());
        if (all.size() > kMostSamples)
            all.erase(all.begin(), all.end() - static_cast<std::ptrdiff_t>(kMostSamples));
        std::vector<std::string> ignored;
        const plan::CostModel otherwise = stored ? stored->model : cost_model(ignored).model;
        plan::CostModel fitted = plan::fit_or_scale(all, otherwise);
        if (plan::worst_error(fitted, samples) > kGoodPrediction) {  // not the machine that it was
            all = samples;
            fitted = plan::fit_or_scale(samples, otherwise);
        }
        plan::store_calibration({key, fitted, all}, cost_folder());
    } catch (const Error& error) {
        log::warning("{}", error.what());
    }
}

plan::CostModel Engine::store_cost(std::span<const plan::Sample> samples) const {
    const plan::CostModel model = plan::fit(samples);
    plan::store_calibration({parts_->calibration_key(), model, {samples.begin(), samples.end()}},
                            parts_->cost_folder());
    return model;
}

}  // namespace zoetrope
