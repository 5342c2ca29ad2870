#include "benchmark/cost.h"

#include "base/error.h"
#include "base/log.h"
#include "engine/output.h"
#include "ops/device.h"

#include <algorithm>
#include <limits>
#include <set>

namespace zoetrope::benchmark {
namespace {

using Json = nlohmann::ordered_json;

void check(const std::vector<int>& lengths) {
    for (const int length : lengths) {
        ZT_CHECK(length >= 5 && length % 4 == 1, bad_request,
                 "--lengths has {}: numbers of frames 4n+1 from 5 on are accepted", length);
    }
    ZT_CHECK(std::set<int>(lengths.begin(), lengths.end()).size() >= 2, bad_request,
             "--lengths names fewer than two different numbers of frames, from which what grows "
             "with the length cannot be told from what does not: give two or more");
}

// A run of one segment of that length.
Request with_length(Request request, int length, bool driven) {
    request.num_frames = length;
    request.segment_policy = driven ? "vanilla" : "off";
    request.segment_length = driven ? std::optional<int>(length) : std::nullopt;
    request.segment_max_length.reset();
    request.segment_overlap = driven ? std::optional<int>(1) : std::nullopt;
    return request;
}

class Bench {
public:
    Bench(const CostOptions& options, const RunControl& control)
        : options_(options),
          control_(control),
          engine_(open()),
          driven_(is_driven(engine_.resolve(options.request).task)) {}

    Json run();

private:
    Engine open() const {
        EngineOptions own = options_.engine;
        own.keep_resident = true;
        own.cost_least_seconds =
            std::numeric_limits<double>::infinity();  // stored once, at the end
        return {ModelFolder::open(options_.paths), own};
    }
    ResolvedRequest resolve(int length) const;
    plan::Sample sample(const ResolvedRequest& request);

    const CostOptions& options_;
    const RunControl& control_;
    Engine engine_;
    const bool driven_;
    Report::Pipeline total_;
};

ResolvedRequest Bench::resolve(int length) const {
    ResolvedRequest request = engine_.resolve(with_length(options_.request, length, driven_));
    if (request.request.prompt.empty() && options_.prompt)
        request.request.prompt = options_.prompt(request, engine_);
    return request;
}

plan::Sample Bench::sample(const ResolvedRequest& request) {
    Report report;
    engine_.generate(
        request, [](int, const at::Tensor&) {}, control_, report);
    total_.cpu_running += report.pipeline.cpu_running;
    total_.cpu_waiting += report.pipeline.cpu_waiting;
    return report.samples.at(0);
}

Json Bench::run() {
    const int shortest = *std::min_element(options_.lengths.begin(), options_.lengths.end());
    const ResolvedRequest first = resolve(shortest);
    log::info("warming up with {} frames", shortest);
    sample(first);
    total_ = {};
    std::vector<plan::Sample> samples;
    for (const int length : options_.lengths) {
        log::info("{} frames, {} of {}", length, samples.size() + 1, options_.lengths.size());
        samples.push_back(sample(resolve(length)));
    }
    const plan::CostModel model = engine_.store_cost(samples);
    Json rows = Json::array();
    for (const plan::Sample& sample : samples) {
        rows.push_back({{"length", sample.length},
                        {"denoise_seconds", sample.denoise_seconds},
                        {"vae_seconds", sample.vae_seconds},
                        {"seconds", sample.denoise_seconds + sample.vae_seconds},
                        {"predicted_seconds", plan::predict_seconds(model, sample.work)}});
    }
    return {{"model", engine_.model().root.string()},
            {"settings", Json::parse(settings_json(first, engine_))},
            {"threads", ops::threads()},
            {"cpu", ops::devices().front().name},
            {"coefficients",
             {{"attention", model.attention},
              {"linear", model.linear},
              {"vae", model.vae},
              {"shared", model.shared},
              {"serial", model.serial}}},
            {"disturbed", is_disturbed(total_, options_.engine.cost_most_waiting)},
            {"rows", std::move(rows)}};
}

}  // namespace

nlohmann::ordered_json bench_cost(const CostOptions& options, const RunControl& control) {
    check(options.lengths);
    return Bench(options, control).run();
}

}  // namespace zoetrope::benchmark
