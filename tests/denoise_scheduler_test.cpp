// Schedulers against Diffusers' own numbers (tests/golden/schedulers, written by
// tools/oracle/scheduler_golden.py), and what every scheduler must keep to.
#include "denoise/scheduler.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/randn.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "base/error.h"
#include "base/json.h"

namespace zoetrope {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const std::filesystem::path kGolden =
    std::filesystem::path(ZT_SOURCE_DIR) / "tests" / "golden" / "schedulers";

// Relative L2 of latents to Diffusers'. Diffusers against itself over the same cases, on an Intel
// and an AMD CPU, in LibTorch's AVX-512 code and its scalar code: 9.5e-7, but 2.0e-6 for multistep
// solvers of order 3 and 1.9e-5 for UniPC of order 3, whose small equation systems magnify
// rounding. (On one CPU both programs' trajectories are equal bit for bit; euler-ancestral, which
// Diffusers lacks, is within 9e-8 of the oracle's own.)
constexpr double kNoiseFloor = 1e-6;
constexpr double kNoiseFloorOrder3 = 2.5e-6;
constexpr double kNoiseFloorUnipc3 = 2e-5;

double noise_floor(std::string_view scheduler, int order) {
    if (order < 3) return kNoiseFloor;
    return scheduler.ends_with("unipc") ? kNoiseFloorUnipc3 : kNoiseFloorOrder3;
}

json unipc_config(json settings = json::object()) {
    json config = {{"_class_name", "UniPCMultistepScheduler"},
                   {"use_flow_sigmas", true},
                   {"prediction_type", "flow_prediction"},
                   {"flow_shift", 3.0}};
    config.update(settings);
    return config;
}

json dpm_config(json settings = json::object()) {
    settings["_class_name"] = "DPMSolverMultistepScheduler";
    return unipc_config(settings);
}

json euler_config(json settings = json::object()) {
    json config = {{"_class_name", "FlowMatchEulerDiscreteScheduler"}, {"shift", 3.0}};
    config.update(settings);
    return config;
}

at::Generator generator_of(std::uint64_t seed) { return at::detail::createCPUGenerator(seed); }

// The error of making a scheduler.
std::pair<ErrorKind, std::string> error_of(const json& config,
                                           const SchedulerOptions& options = {}) {
    try {
        make_scheduler(config, options);
    } catch (const Error& error) {
        return {error.kind(), error.what()};
    }
    return {ErrorKind::internal, "nothing was thrown"};
}

double relative_error(const at::Tensor& got, const at::Tensor& want) {
    return ((got - want).norm() / want.norm()).item<double>();
}

// Distance in units of the last place.
int ulps(float a, float b) {
    if (a == b) return 0;
    const float step =
        std::nextafter(std::max(std::abs(a), std::abs(b)), std::numeric_limits<float>::infinity()) -
        std::max(std::abs(a), std::abs(b));
    return static_cast<int>(std::lround(std::abs(a - b) / step));
}

// Calls of step() in a run: Heun's method asks the model twice at every level but the first.
int loop_steps(std::string_view scheduler, int num_inference_steps) {
    return scheduler == "heun" ? 2 * num_inference_steps - 1 : num_inference_steps;
}

// Reads a .bin front to back.
class GoldenValues {
public:
    explicit GoldenValues(const std::filesystem::path& path) {
        std::ifstream file(path, std::ios::binary | std::ios::ate);
        values_.resize(static_cast<std::size_t>(file.tellg()) / sizeof(float));
        file.seekg(0).read(reinterpret_cast<char*>(values_.data()),
                           static_cast<std::streamsize>(values_.size() * sizeof(float)));
    }
    std::vector<float> next(std::size_t count) {
        const auto from = values_.begin() + static_cast<std::ptrdiff_t>(position_);
        position_ += count;
        return {from, from + static_cast<std::ptrdiff_t>(count)};
    }
    at::Tensor next_tensor(std::vector<std::int64_t> shape) {
        std::int64_t count = 1;
        for (const std::int64_t size : shape) count *= size;
        at::Tensor view = at::from_blob(values_.data() + position_, shape, at::kFloat);
        position_ += static_cast<std::size_t>(count);
        return view.clone();
    }
    bool at_end() const { return position_ == values_.size(); }

private:
    std::vector<float> values_;
    std::size_t position_ = 0;
};

SchedulerOptions options_of(const json& row) {
    SchedulerOptions options{.name = row["choice"]};
    if (row.contains("sigma_schedule")) options.sigma_schedule = row["sigma_schedule"];
    if (row.contains("sigmas")) options.sigmas = row["sigmas"].get<std::vector<double>>();
    return options;
}

// Powers, exponentials and quantiles of numpy differ in the last bit from machine to machine.
bool has_powers(const json& row) {
    for (const char* key : {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"}) {
        if (row["config"].value(key, false)) return true;
    }
    return row.value("sigma_schedule", "simple") != "simple";
}

class GoldenTrajectories : public testing::TestWithParam<const char*> {};

TEST_P(GoldenTrajectories, AreThoseOfTheReference) {
    const json golden = read_json(kGolden / fmt::format("{}.json", GetParam()));
    GoldenValues values(kGolden / fmt::format("{}.bin", GetParam()));
    const auto shape = golden["shape"].get<std::vector<std::int64_t>>();
    const at::Tensor first_sample = values.next_tensor(shape);
    std::vector<at::Tensor> velocities;
    for (int i = 0; i < golden["max_steps"].get<int>(); ++i) {
        velocities.push_back(values.next_tensor(shape));
    }
    double worst = 0;
    for (const json& row : golden["cases"]) {
        SCOPED_TRACE(row.dump());
        const int first = row["first"];
        const bool powers = has_powers(row);
        const auto scheduler = make_scheduler(row["config"], options_of(row));
        scheduler->set_timesteps(row["steps"]);
        const auto steps = static_cast<std::size_t>(loop_steps(scheduler->name(), row["steps"]));

        const std::vector<float> timesteps = values.next(steps);
        const std::vector<float> sigmas = values.next(steps + 1);
        ASSERT_EQ(scheduler->timesteps().size(), steps);
        ASSERT_EQ(scheduler->sigmas().size(), steps + 1);
        for (std::size_t i = 0; i < steps; ++i) {
            EXPECT_LE(ulps(scheduler->timesteps()[i], timesteps[i]), powers ? 1 : 0) << i;
        }
        for (std::size_t i = 0; i <= steps; ++i) {
            EXPECT_LE(ulps(scheduler->sigmas()[i], sigmas[i]), powers ? 1 : 0) << i;
        }

        scheduler->restore({.next_step = first});
        at::Generator generator = generator_of(42);
        at::Tensor sample = first_sample;
        const double floor = noise_floor(scheduler->name(), row["config"].value("solver_order", 2));
        const auto kept = row["kept"].get<std::vector<int>>();
        for (int i = first; i < static_cast<int>(steps); ++i) {
            const at::Tensor& velocity = velocities[static_cast<std::size_t>(i)];
            sample = scheduler->step(velocity, i, sample, generator);
            if (std::ranges::find(kept, i) == kept.end()) continue;
            const double error = relative_error(sample, values.next_tensor(shape));
            EXPECT_LE(error, floor) << "after step " << i;
            worst = std::max(worst, error);
        }
    }
    EXPECT_TRUE(values.at_end());
    RecordProperty("worst_relative_error", fmt::format("{:.2e}", worst));
}

INSTANTIATE_TEST_SUITE_P(Schedulers, GoldenTrajectories, testing::Values("cases", "more"));

class EveryScheduler : public testing::TestWithParam<std::string> {
protected:
    std::unique_ptr<Scheduler> make(int steps, json config = unipc_config()) {
        auto scheduler = make_scheduler(config, {.name = GetParam()});
        scheduler->set_timesteps(steps);
        return scheduler;
    }
    at::Tensor noise(const std::vector<std::int64_t>& shape = {1, 4, 2, 3, 3}) {
        return at::randn(shape, generator_, at::kFloat);
    }
    int calls(int steps) const { return loop_steps(GetParam(), steps); }

    at::Generator generator_ = generator_of(3);
};

TEST_P(EveryScheduler, HasNameAndMonotoneSchedule) {
    const json config = unipc_config({{"num_train_timesteps", 400}});
    for (const int steps : {1, 2, 3, 8, 50, 400}) {
        const auto scheduler = make(steps, config);
        EXPECT_EQ(scheduler->name(), GetParam() == "auto" ? "unipc" : GetParam());
        EXPECT_EQ(scheduler->num_train_timesteps(), 400);
        const auto& sigmas = scheduler->sigmas();
        ASSERT_EQ(sigmas.size(), static_cast<std::size_t>(calls(steps)) + 1);
        ASSERT_EQ(scheduler->timesteps().size(), static_cast<std::size_t>(calls(steps)));
        std::vector<float> levels = sigmas;
        if (GetParam() == "heun") levels.erase(std::ranges::unique(levels).begin(), levels.end());
        EXPECT_EQ(levels.size(), static_cast<std::size_t>(steps) + 1);
        EXPECT_TRUE(std::ranges::is_sorted(levels, std::ranges::greater_equal()));
        EXPECT_NEAR(sigmas.front(), 1.0F, 2e-3F);
        EXPECT_EQ(sigmas.back(), 0.0F);
        EXPECT_TRUE(std::ranges::is_sorted(scheduler->timesteps(), std::ranges::greater()));
        for (std::size_t i = 0; i < scheduler->timesteps().size(); ++i) {
            EXPECT_NEAR(scheduler->timesteps()[i], 400 * sigmas[i], 1.0F);
        }
    }
}

TEST_P(EveryScheduler, RefusesStepCountsThatAreNone) {
    const auto scheduler = make(4);
    for (const int steps : {0, -1, 1001}) {
        try {
            scheduler->set_timesteps(steps);
            ADD_FAILURE() << steps;
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::bad_request);
            EXPECT_THAT(error.what(), HasSubstr("accepted are 1 to 1000"));
        }
    }
    EXPECT_EQ(scheduler->timesteps().size(), static_cast<std::size_t>(calls(4)));
}

// A model that knows one picture: its flow leads straight there from everywhere, so that any
// consistent solver arrives, at every number of steps, whatever noise it adds on the way.
TEST_P(EveryScheduler, FollowsAStraightFlowToItsEnd) {
    for (const int steps : {1, 2, 3, 4, 14, 15, 30, 1000}) {
        const auto scheduler = make(steps);
        const auto& sigmas = scheduler->sigmas();
        const at::Tensor picture = noise();
        at::Tensor sample = picture * (1 - sigmas.front()) + noise() * sigmas.front();
        for (int i = 0; i < calls(steps); ++i) {
            const at::Tensor velocity = (sample - picture) / sigmas[static_cast<std::size_t>(i)];
            sample = scheduler->step(velocity, i, sample, generator_);
        }
        EXPECT_LE(relative_error(sample, picture), 2e-5) << steps;
    }
}

TEST_P(EveryScheduler, ResumesBitEqualFromEveryStep) {
    constexpr int kSteps = 7;
    const int end = calls(kSteps);
    std::vector<at::Tensor> velocities, samples = {noise()};
    for (int i = 0; i < end; ++i) velocities.push_back(noise());
    const json config = unipc_config({{"solver_order", 3}});
    const auto whole = make(kSteps, config);
    std::vector<SchedulerState> states = {whole->state()};
    std::vector<at::Tensor> generators = {generator_.get_state()};
    for (int i = 0; i < end; ++i) {
        samples.push_back(
            whole->step(velocities[static_cast<std::size_t>(i)], i, samples.back(), generator_));
        states.push_back(whole->state());
        generators.push_back(generator_.get_state());
    }
    for (int from = 0; from <= end; ++from) {
        const auto resumed = make(kSteps, config);
        generator_.set_state(generators[static_cast<std::size_t>(from)]);
        SchedulerState state = states[static_cast<std::size_t>(from)];
        EXPECT_EQ(state.next_step, from);
        for (at::Tensor& tensor : state.tensors) {
            if (tensor.defined()) tensor = tensor.clone();
        }
        resumed->restore(state);
        at::Tensor sample = samples[static_cast<std::size_t>(from)];
        for (int i = from; i < end; ++i) {
            sample = resumed->step(velocities[static_cast<std::size_t>(i)], i, sample, generator_);
        }
        EXPECT_TRUE(sample.equal(samples.back())) << from;
    }
}

TEST_P(EveryScheduler, ForgetsTheLastRun) {
    const at::Tensor start = noise(), velocity = noise();
    const auto scheduler = make(3);
    const at::Tensor random = generator_.get_state();
    const at::Tensor first = scheduler->step(velocity, 0, start, generator_);
    scheduler->step(noise(), 1, first, generator_);
    scheduler->set_timesteps(3);
    generator_.set_state(random);
    EXPECT_TRUE(scheduler->step(velocity, 0, start, generator_).equal(first));
}

TEST_P(EveryScheduler, RefusesStepsOutOfOrder) {
    const auto scheduler = make(2);
    const int end = static_cast<int>(scheduler->timesteps().size());
    at::Tensor sample = noise();
    const auto kind_at = [&](int step) {
        try {
            sample = scheduler->step(sample, step, sample, generator_);
        } catch (const Error& error) {
            return error.kind();
        }
        return ErrorKind::cancelled;  // stands for: went well
    };
    EXPECT_EQ(kind_at(1), ErrorKind::internal);
    EXPECT_EQ(kind_at(-1), ErrorKind::internal);
    for (int step = 0; step < end; ++step) {
        EXPECT_EQ(kind_at(step), ErrorKind::cancelled);
        EXPECT_EQ(kind_at(step), ErrorKind::internal);
    }
    EXPECT_EQ(kind_at(end), ErrorKind::internal);
}

TEST_P(EveryScheduler, KeepsShapeAndPromotesVelocity) {
    const at::Tensor sample = noise({2, 16, 3, 4, 6});
    const at::Tensor velocity = noise({2, 16, 3, 4, 6}).to(at::kBFloat16);
    const at::Tensor random = generator_.get_state();
    const at::Tensor got = make(5)->step(velocity, 0, sample, generator_);
    generator_.set_state(random);
    EXPECT_EQ(got.scalar_type(), at::kFloat);
    EXPECT_EQ(got.sizes(), sample.sizes());
    EXPECT_TRUE(got.equal(make(5)->step(velocity.to(at::kFloat), 0, sample, generator_)));

    EXPECT_THROW(make(5)->step(velocity, 0, sample.to(at::kBFloat16), generator_), Error);
    EXPECT_THROW(make(5)->step(noise(), 0, sample, generator_), Error);
    EXPECT_THROW(make(5)->step(at::Tensor(), 0, sample, generator_), Error);
}

TEST_P(EveryScheduler, RefusesStatesOfOtherRuns) {
    const auto scheduler = make(3);
    const auto kind_of = [&](const SchedulerState& state) {
        try {
            scheduler->restore(state);
        } catch (const Error& error) {
            return error.kind();
        }
        return ErrorKind::cancelled;
    };
    EXPECT_EQ(kind_of({.next_step = calls(3) + 1}), ErrorKind::io);
    EXPECT_EQ(kind_of({.next_step = -1}), ErrorKind::io);
    EXPECT_EQ(kind_of({.next_step = 1, .tensors = {7, noise()}}), ErrorKind::io);
    EXPECT_EQ(kind_of({.next_step = 1, .numbers = {1, 2, 3, 4, 5}}), ErrorKind::io);
    EXPECT_EQ(kind_of({.next_step = 3}), ErrorKind::cancelled);

    scheduler->restore({});
    at::Tensor sample = scheduler->step(noise(), 0, noise(), generator_);
    const SchedulerState good = scheduler->state();
    if (good.tensors.empty()) return;  // without history
    SchedulerState bad = good;
    bad.lower_order_nums = 2;  // more than the steps that were run
    EXPECT_EQ(kind_of(bad), ErrorKind::io);
    bad = good;
    bad.tensors.assign(good.tensors.size(), at::Tensor());
    EXPECT_EQ(kind_of(bad), ErrorKind::io);
}

TEST_P(EveryScheduler, TakesTheFlowShiftAskedFor) {
    const json configs[] = {unipc_config(), dpm_config(), euler_config()};
    for (const json& config : configs) {
        const auto asked = make_scheduler(config, {.name = GetParam(), .flow_shift = 7.5});
        json written = config;
        written["flow_shift"] = written["shift"] = 7.5;
        const auto read = make_scheduler(written, {.name = GetParam()});
        const auto other = make_scheduler(config, {.name = GetParam()});
        for (const auto& scheduler : {asked.get(), read.get(), other.get()}) {
            scheduler->set_timesteps(10);
        }
        EXPECT_EQ(asked->sigmas(), read->sigmas());
        EXPECT_NE(asked->sigmas(), other->sigmas());
    }
}

// The same model keeps its shift whichever class its config names.
TEST_P(EveryScheduler, CarriesTheShiftOverFromEveryClass) {
    if (GetParam() == "auto") return;
    const auto want = make(10);
    for (const json& config : {unipc_config(), dpm_config(), euler_config()}) {
        const auto got = make(10, config);
        EXPECT_EQ(got->name(), GetParam());
        EXPECT_EQ(got->sigmas(), want->sigmas()) << config;
    }
    // A key left over from another class is not this config's shift.
    EXPECT_EQ(make(10, unipc_config({{"shift", 9.0}}))->sigmas()[5], want->sigmas()[5]);
}

INSTANTIATE_TEST_SUITE_P(Schedulers, EveryScheduler, testing::ValuesIn(scheduler_names()),
                         [](const auto& test) {
                             std::string name = test.param;
                             std::ranges::replace(name, '+', 'p');
                             std::ranges::replace(name, '-', '_');
                             return name;
                         });

TEST(Schedulers, AutoTakesTheClassOfTheConfig) {
    EXPECT_EQ(make_scheduler(unipc_config(), {})->name(), "unipc");
    EXPECT_EQ(make_scheduler(dpm_config(), {})->name(), "dpm++");
    EXPECT_EQ(make_scheduler(euler_config(), {})->name(), "euler");
    EXPECT_EQ(make_scheduler(dpm_config({{"algorithm_type", "sde-dpmsolver++"}}), {})->name(),
              "dpm++-sde");
    const auto name_of_class = [](const char* name) {
        return make_scheduler({{"_class_name", name}}, {})->name();
    };
    EXPECT_EQ(name_of_class("FlowMatchHeunDiscreteScheduler"), "heun");
    EXPECT_EQ(name_of_class("FlowMatchLCMScheduler"), "lcm");
    EXPECT_EQ(name_of_class("FlowUniPCMultistepScheduler"), "flow-unipc");
    EXPECT_EQ(name_of_class("FlowDPMSolverMultistepScheduler"), "flow-dpm++");
    EXPECT_THAT(scheduler_names(),
                testing::ElementsAre("auto", "unipc", "dpm++", "dpm++-sde", "euler",
                                     "euler-ancestral", "heun", "lcm", "flow-unipc", "flow-dpm++"));
}

// The first step of UniPC is 999, not 1000: its first sigma is 1 - 1e-6, cut to an integer.
TEST(Schedulers, TimeStepsAreCutWhereDiffusersCutsThem) {
    const auto first = [](const json& config, int steps) {
        const auto scheduler = make_scheduler(config, {});
        scheduler->set_timesteps(steps);
        return scheduler->timesteps();
    };
    EXPECT_THAT(first(unipc_config(), 4), testing::ElementsAre(999, 900, 750, 500));
    EXPECT_THAT(first(dpm_config(), 2), testing::ElementsAre(999, 749));
    EXPECT_EQ(first(euler_config(), 4).front(), 1000.0F);
    // Shifted twice: the last of 4 steps is far above 1/1000, 3/1002 shifted again.
    EXPECT_NEAR(first(euler_config(), 4).back(), 1000 * 3 * (3.0 / 1002) / (1 + 2 * (3.0 / 1002)),
                1e-3);
}

TEST(Schedulers, UnknownNamesAreRefused) {
    const auto [kind, message] = error_of(unipc_config(), {.name = "ddim"});
    EXPECT_EQ(kind, ErrorKind::bad_request);
    EXPECT_EQ(message,
              "--scheduler is \"ddim\": accepted are auto, unipc, dpm++, dpm++-sde, euler, "
              "euler-ancestral, heun, lcm, flow-unipc, flow-dpm++");

    // Its formulas are those of models that predict noise.
    json other = unipc_config({{"_class_name", "LCMScheduler"}});
    EXPECT_EQ(error_of(other).first, ErrorKind::unsupported);
    EXPECT_THAT(error_of(other).second, HasSubstr("LCMScheduler"));
    EXPECT_EQ(make_scheduler(other, {.name = "euler"})->name(), "euler");
    other.erase("_class_name");
    EXPECT_EQ(error_of(other).first, ErrorKind::unsupported);
}

TEST(Schedulers, SettingsThatAreNotDoneAreRefusedByName) {
    const std::pair<json (*)(json), json> cases[] = {
        {unipc_config, {{"use_flow_sigmas", false}}},
        {unipc_config, {{"prediction_type", "epsilon"}}},
        {unipc_config, {{"predict_x0", false}}},
        {unipc_config, {{"thresholding", true}}},
        {unipc_config, {{"solver_p", "DDIMScheduler"}}},
        {unipc_config, {{"solver_type", "bh3"}}},
        {unipc_config, {{"solver_order", 4}}},
        {unipc_config, {{"lower_order_final", false}}},
        {unipc_config, {{"final_sigmas_type", "one"}}},
        {unipc_config, {{"use_exponential_sigmas", true}}},
        {unipc_config, {{"use_beta_sigmas", true}}},
        {unipc_config, {{"use_dynamic_shifting", true}}},
        {dpm_config, {{"algorithm_type", "dpmsolver"}}},
        {dpm_config, {{"use_karras_sigmas", true}}},
        {dpm_config, {{"use_lu_lambdas", true}}},
        {dpm_config, {{"solver_type", "bh3"}}},
        {dpm_config, {{"use_flow_sigmas", false}}},
        {euler_config, {{"invert_sigmas", true}}},
        {euler_config, {{"use_dynamic_shifting", true}}},
    };
    for (const auto& [config_of, setting] : cases) {
        const auto [kind, message] = error_of(config_of(setting));
        EXPECT_EQ(kind, ErrorKind::unsupported) << setting;
        EXPECT_THAT(message, HasSubstr(setting.begin().key()));
        EXPECT_THAT(message, HasSubstr("accepted is"));
    }
    const auto [kind, message] =
        error_of(unipc_config({{"use_karras_sigmas", true}, {"trained_betas", {0.1}}}));
    EXPECT_EQ(kind, ErrorKind::unsupported);
    EXPECT_THAT(message, HasSubstr("trained_betas"));
}

TEST(Schedulers, BrokenSettingsAreErrors) {
    for (const json& setting : {json{{"flow_shift", "three"}}, json{{"solver_order", 2.5}},
                                json{{"disable_corrector", {1, "2"}}}, json{{"_class_name", 3}},
                                json{{"num_train_timesteps", 0}}, json{{"shift_terminal", 1.5}},
                                json{{"lower_order_final", "yes"}}}) {
        EXPECT_EQ(error_of(unipc_config(setting)).first, ErrorKind::io) << setting;
    }
    EXPECT_EQ(error_of(json::array()).first, ErrorKind::io);
    for (const double shift : {0.0, -1.0, 1001.0, std::nan(""), HUGE_VAL}) {
        EXPECT_EQ(error_of(unipc_config(), {.flow_shift = shift}).first, ErrorKind::bad_request);
    }
    EXPECT_EQ(error_of(unipc_config({{"flow_shift", 0}})).first, ErrorKind::bad_request);

    const auto stretched = make_scheduler(unipc_config({{"shift_terminal", 0.1}}), {});
    EXPECT_THROW(stretched->set_timesteps(1), Error);
    stretched->set_timesteps(2);
    EXPECT_FLOAT_EQ(stretched->sigmas()[1], 0.1F);
}

// In Diffusers bh1 ends in NaN at sigma 0 (infinity * 0); here the last step is the predicted
// picture, as with bh2.
TEST(Schedulers, Bh1EndsAtThePicture) {
    const auto scheduler = make_scheduler(unipc_config({{"solver_type", "bh1"}}), {});
    scheduler->set_timesteps(3);
    at::Generator generator = generator_of(1);
    at::Tensor sample = at::randn({1, 4, 2, 3, 3}, generator, at::kFloat);
    const at::Tensor velocity = at::randn({1, 4, 2, 3, 3}, generator, at::kFloat);
    for (int i = 0; i < 3; ++i) sample = scheduler->step(velocity, i, sample, generator);
    EXPECT_TRUE(sample.isfinite().all().item<bool>());
}

}  // namespace
}  // namespace zoetrope
