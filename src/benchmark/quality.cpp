#include "benchmark/quality.h"

#include "base/error.h"
#include "base/log.h"
#include "benchmark/metrics.h"
#include "engine/checkpoint.h"
#include "engine/output.h"
#include "ops/device.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>
#include <optional>

namespace zoetrope::benchmark {
namespace {

using Json = nlohmann::ordered_json;

// A video in 16 bits a value: far finer than what the metrics tell apart.
class KeptVideo {
public:
    // frames: [3, n, H, W] fp32 in [0, 1]
    void add(const at::Tensor& frames) {
        for (std::int64_t i = 0; i < frames.size(1); ++i) {
            const at::Tensor frame =
                frames.select(1, i).mul(kLargest).round_().to(at::kInt).contiguous();
            shape_ = frame.sizes().vec();
            const int* data = frame.const_data_ptr<int>();
            frames_.emplace_back(data, data + frame.numel());
        }
    }
    std::size_t size() const { return frames_.size(); }
    // [3, H, W] fp32
    at::Tensor frame(std::size_t i) const {
        std::vector<float> values(frames_[i].begin(), frames_[i].end());
        return at::from_blob(values.data(), shape_, at::kFloat).div(kLargest);
    }
    std::int64_t bytes() const {
        std::int64_t sum = 0;
        for (const auto& frame : frames_) sum += static_cast<std::int64_t>(2 * frame.size());
        return sum;
    }

private:
    static constexpr double kLargest = 65535;
    std::vector<std::vector<std::uint16_t>> frames_;
    std::vector<std::int64_t> shape_;
};

// A video beside the kept one, as its frames come.
class Comparison {
public:
    Comparison(const KeptVideo& plain, const std::optional<Lpips>& lpips)
        : plain_(plain), lpips_(lpips) {}

    void add(const at::Tensor& frames) {
        for (std::int64_t i = 0; i < frames.size(1); ++i, ++frames_) {
            if (frames_ >= plain_.size()) continue;
            const at::Tensor plain = plain_.frame(frames_), frame = frames.select(1, i);
            // Rounded as the kept one is, so that equal frames are equal.
            const at::Tensor own = frame.mul(65535.0).round_().to(at::kFloat).div(65535.0);
            const double error = mean_squared_error(own, plain);
            errors_.push_back(error);
            similarities_.push_back(ssim(own, plain));
            if (lpips_) distances_.push_back(lpips_->distance(own, plain));
        }
    }

    void write(Json& row) const {
        row["frames"] = frames_;
        if (errors_.empty()) return;
        const double error = mean_of(errors_);
        const double worst = *std::max_element(errors_.begin(), errors_.end());
        row["identical"] = worst == 0;
        row["psnr"] = error == 0 ? Json() : Json(psnr_of(error));
        row["psnr_worst"] = worst == 0 ? Json() : Json(psnr_of(worst));
        row["ssim"] = mean_of(similarities_);
        row["ssim_worst"] = *std::min_element(similarities_.begin(), similarities_.end());
        row["lpips"] = lpips_ ? Json(mean_of(distances_)) : Json();
    }

private:
    static double mean_of(const std::vector<double>& values) {
        double sum = 0;
        for (const double value : values) sum += value;
        return sum / static_cast<double>(values.size());
    }

    const KeptVideo& plain_;
    const std::optional<Lpips>& lpips_;
    std::size_t frames_ = 0;
    std::vector<double> errors_, similarities_, distances_;  // by frame
};

Json drift_of(const Report& report) {
    const std::optional<WorstDrift> worst = worst_drift(report);
    if (!worst) return {};
    return {{"joins", worst->joins},
            {"mean", worst->mean},
            {"contrast", worst->contrast},
            {"from_first_mean", worst->from_first_mean},
            {"from_first_contrast", worst->from_first_contrast}};
}

// The settings that variants may change.
Json settings_of(const ResolvedRequest& request, const Engine& engine) {
    Json all = Json::parse(settings_json(request, engine));
    for (const char* same : {"generator", "model", "task", "prompt", "negative_prompt", "height",
                             "width", "num_frames", "fps", "seed"})
        all.erase(same);
    return all;
}

class Bench {
public:
    Bench(const QualityOptions& options, const RunControl& control)
        : options_(options), control_(control) {
        if (!options.lpips.empty()) lpips_.emplace(options.lpips);
    }

    QualityTable run(const std::function<void(const QualityTable&)>& on_row);

private:
    Engine& engine_for(const QualityVariant& variant);
    ResolvedRequest resolve(const QualityVariant& variant);
    Json run_one(const QualityVariant& variant, const ResolvedRequest& request,
                 const FrameCallback& sink);
    Json compare(const QualityVariant& variant);

    const QualityOptions& options_;
    const RunControl& control_;
    std::optional<Lpips> lpips_;
    std::unique_ptr<Engine> engine_;
    EngineOptions engine_options_;  // of engine_
    std::optional<ResolvedRequest> plain_;
    KeptVideo kept_;
};

// The one at hand where its options are the same.
Engine& Bench::engine_for(const QualityVariant& variant) {
    if (engine_ && variant.engine == engine_options_) return *engine_;
    engine_.reset();  // before the next takes memory
    engine_ = std::make_unique<Engine>(ModelFolder::open(options_.paths), variant.engine);
    engine_options_ = variant.engine;
    return *engine_;
}

ResolvedRequest Bench::resolve(const QualityVariant& variant) {
    Engine& engine = engine_for(variant);
    Request wanted = variant.request;
    if (plain_) wanted.seed = plain_->seed;
    ResolvedRequest request = engine.resolve(wanted);
    if (request.request.prompt.empty() && options_.prompt)
        request.request.prompt = options_.prompt(request, engine);
    ZT_CHECK(request.request.num_outputs == 1, bad_request,
             "--num-outputs is {}: one video of each variant is compared",
             request.request.num_outputs);
    ZT_CHECK(!plain_ || (plain_->width == request.width && plain_->height == request.height),
             bad_request, "it is {}x{}, and the plain run {}x{}", request.width, request.height,
             plain_->width, plain_->height);
    return request;
}

Json Bench::run_one(const QualityVariant& variant, const ResolvedRequest& request,
                    const FrameCallback& sink) {
    std::optional<Output> output;
    SegmentHooks hooks;
    if (!options_.videos.empty()) {
        output.emplace(OutputOptions{.path = options_.videos / (variant.name + ".mp4")}, request,
                       *engine_);
        hooks.end_frames = [&output] { output->end_segment(); };
    }
    const FrameCallback save = output ? output->callback() : FrameCallback();
    Report report;
    const at::Tensor latents = engine_->generate(
        request,
        [&](int index, const at::Tensor& frames) {
            sink(index, frames);
            if (save) save(index, frames);
        },
        control_, report, hooks);
    if (output) output->finish(latents);
    return {{"name", variant.name},
            {"seconds", report.plan.seconds()},
            {"peak_bytes", report.measured_peak_bytes - kept_.bytes()},
            {"predicted_peak_bytes", report.memory.peak()},
            {"drift", drift_of(report)},
            {"settings", settings_of(request, *engine_)},
            {"warnings", report.warnings}};
}

Json Bench::compare(const QualityVariant& variant) {
    try {
        const ResolvedRequest request = resolve(variant);
        Comparison comparison(kept_, lpips_);
        Json row = run_one(variant, request, [&comparison](int, const at::Tensor& frames) {
            comparison.add(frames);
        });
        comparison.write(row);
        return row;
    } catch (const Error& error) {
        if (error.kind() == ErrorKind::cancelled) throw;
        log::warning("{}: {}", variant.name, error.what());
        return {{"name", variant.name}, {"error", error.what()}};
    }
}

QualityTable Bench::run(const std::function<void(const QualityTable&)>& on_row) {
    plain_ = resolve(options_.plain);
    std::vector<QualityVariant> variants = options_.variants(*plain_, *engine_);
    // First those for which the plain run's engine stays.
    std::stable_partition(variants.begin(), variants.end(), [this](const QualityVariant& variant) {
        return variant.engine == options_.plain.engine;
    });
    QualityTable table = {
        {"model", engine_->model().root.string()},
        {"settings", Json::parse(settings_json(*plain_, *engine_))},
        {"threads", ops::threads()},
        {"cpu", ops::devices().front().name},
        {"metrics",
         {{"psnr", "of RGB values before they are rounded to 8 bits, over all frames, dB"},
          {"ssim", "of BT.601 luma, 11x11 Gaussian windows of sigma 1.5, mean over frames"},
          {"lpips", lpips_ ? Json("version 0.1 on AlexNet, mean over frames: " +
                                  options_.lpips.filename().string())
                           : Json()},
          {"worst", "the frame that differs most"}}},
        {"rows", Json::array()}};
    const auto add = [&](Json row) {
        table["rows"].push_back(std::move(row));
        on_row(table);
    };
    log::info("plain run, 1 of {}", variants.size() + 1);
    Json plain = run_one(options_.plain, *plain_,
                         [this](int, const at::Tensor& frames) { kept_.add(frames); });
    plain["frames"] = kept_.size();
    add(std::move(plain));
    for (std::size_t i = 0; i < variants.size(); ++i) {
        control_.throw_if_stopped();
        log::info("{}, {} of {}", variants[i].name, i + 2, variants.size() + 1);
        add(compare(variants[i]));
    }
    return table;
}

}  // namespace

QualityTable bench_quality(const QualityOptions& options, const RunControl& control,
                           const std::function<void(const QualityTable&)>& on_row) {
    return Bench(options, control).run(on_row);
}

}  // namespace zoetrope::benchmark
