// Noise levels: spacings, the user's own, and the beta distribution behind one of them.
#include "denoise/sigmas.h"

#include "denoise/beta_quantile.h"
#include "denoise/scheduler.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/randn.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/json.h"

namespace zoetrope {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using Levels = std::vector<double>;

const json kWan = {{"_class_name", "UniPCMultistepScheduler"},
                   {"use_flow_sigmas", true},
                   {"prediction_type", "flow_prediction"},
                   {"flow_shift", 3.0}};

std::string error_of(const SchedulerOptions& options, int steps = 4) {
    try {
        make_scheduler(kWan, options)->set_timesteps(steps);
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::bad_request);
        return error.what();
    }
    return "nothing was thrown";
}

TEST(Sigmas, BetaQuantilesAreScipys) {
    const std::filesystem::path source = ZT_SOURCE_DIR;
    const json golden = read_json(source / "tests" / "golden" / "schedulers" / "more.json");
    double worst = 0;
    for (const json& row : golden["beta_quantiles"]) {
        const double p = row[0], a = row[1], b = row[2], want = row[3];
        const double error = std::abs(beta_quantile(p, a, b) - want);
        EXPECT_LE(error, 2e-15) << row;
        EXPECT_LE(error, 1e-14 * want) << row;
        worst = std::max(worst, error);
    }
    RecordProperty("worst_error", fmt::format("{:.2e}", worst));
    EXPECT_EQ(golden["beta_quantiles"].size(), 90u);
}

TEST(Sigmas, BetaQuantilesEndWhereTheDistributionDoes) {
    EXPECT_EQ(beta_quantile(0, 0.6, 0.6), 0);
    EXPECT_EQ(beta_quantile(1, 0.6, 0.6), 1);
    EXPECT_NEAR(beta_quantile(0.5, 0.6, 0.6), 0.5, 1e-15);
    EXPECT_NEAR(beta_quantile(0.3, 1, 1), 0.3, 1e-15);  // the uniform distribution
}

TEST(Sigmas, EverySpacingKeepsTheEnds) {
    for (const auto spacing : {SigmaSpacing::simple, SigmaSpacing::karras,
                               SigmaSpacing::exponential, SigmaSpacing::beta}) {
        Levels sigmas = linspace(0.97, 0.02, 20);
        respace_sigmas(sigmas, spacing);
        EXPECT_NEAR(sigmas.front(), 0.97, 1e-14);
        EXPECT_NEAR(sigmas.back(), 0.02, 1e-14);
        EXPECT_TRUE(std::ranges::is_sorted(sigmas, std::ranges::greater_equal()));
    }
    Levels alone = {0.8};
    respace_sigmas(alone, SigmaSpacing::beta);
    EXPECT_EQ(alone.front(), 0.8);
}

// The option comes before what the config says, and "simple" undoes it.
TEST(Sigmas, TheScheduleAskedForComesFirst) {
    const auto sigmas_of = [](const json& config, const SchedulerOptions& options) {
        const auto scheduler = make_scheduler(config, options);
        scheduler->set_timesteps(6);
        return scheduler->sigmas();
    };
    json karras = kWan;
    karras["use_karras_sigmas"] = true;
    const auto simple = sigmas_of(kWan, {});
    EXPECT_EQ(sigmas_of(kWan, {.sigma_schedule = "simple"}), simple);
    EXPECT_NE(sigmas_of(karras, {}), simple);
    EXPECT_EQ(sigmas_of(karras, {.sigma_schedule = "simple"}), simple);
    EXPECT_EQ(sigmas_of(kWan, {.sigma_schedule = "karras"}), sigmas_of(karras, {}));
    EXPECT_THAT(
        error_of({.sigma_schedule = "cosine"}),
        testing::AllOf(HasSubstr("cosine"), HasSubstr("simple, beta, karras, exponential")));
}

TEST(Sigmas, TheUsersLevelsAreTakenAsTheyAre) {
    for (const std::string& name : scheduler_names()) {
        const Levels levels = {0.96, 0.9, 0.7, 0.25};
        const auto scheduler = make_scheduler(kWan, {.name = name, .sigmas = levels});
        scheduler->set_timesteps(4);
        std::vector<float> sigmas = scheduler->sigmas();
        sigmas.erase(std::unique(sigmas.begin(), sigmas.end()), sigmas.end());  // Heun's are twice
        EXPECT_THAT(sigmas, testing::ElementsAre(0.96F, 0.9F, 0.7F, 0.25F, 0.0F)) << name;
        EXPECT_EQ(scheduler->timesteps().front(), 960.0F) << name;

        const auto ended =
            make_scheduler(kWan, {.name = name, .sigmas = Levels{0.96, 0.9, 0.7, 0.25, 0}});
        ended->set_timesteps(4);
        EXPECT_EQ(ended->sigmas(), scheduler->sigmas()) << name;
    }
}

// From pure noise (sigma 1, where a flow has no logarithm) every solver stays finite and arrives.
TEST(Sigmas, RunsMayBeginAtPureNoise) {
    at::Generator generator = at::detail::createCPUGenerator(5);
    const at::Tensor picture = at::randn({1, 4, 2, 3, 3}, generator, at::kFloat);
    for (const std::string& name : scheduler_names()) {
        json config = kWan;
        config["solver_order"] = 3;
        const auto scheduler =
            make_scheduler(config, {.name = name, .sigmas = Levels{1, 0.9, 0.8, 0.6, 0.3}});
        scheduler->set_timesteps(5);
        at::Tensor sample = at::randn(picture.sizes(), generator, at::kFloat);
        for (std::size_t i = 0; i < scheduler->timesteps().size(); ++i) {
            const at::Tensor velocity = (sample - picture) / scheduler->sigmas()[i];
            sample = scheduler->step(velocity, static_cast<int>(i), sample, generator);
        }
        EXPECT_LE((sample - picture).abs().max().item<float>(), 2e-5F) << name;
    }
}

TEST(Sigmas, ListsThatAreNoScheduleAreRefused) {
    EXPECT_THAT(error_of({.sigmas = Levels{}}), HasSubstr("no noise level above 0"));
    EXPECT_THAT(error_of({.sigmas = Levels{0.0}}), HasSubstr("no noise level above 0"));
    EXPECT_THAT(error_of({.sigmas = Levels{1, 0.5, 0.5}}), HasSubstr("0.5 after 0.5"));
    EXPECT_THAT(error_of({.sigmas = Levels{1, 0, 0.5}}), HasSubstr("above 0"));
    EXPECT_THAT(error_of({.sigmas = Levels{1.01, 0.5}}), HasSubstr("up to 1"));
    EXPECT_THAT(error_of({.sigmas = Levels{std::nan(""), 0.5}}), HasSubstr("up to 1"));
    EXPECT_THAT(error_of({.sigmas = Levels{1, 0.5, 0.25}}), HasSubstr("the levels of 3"));
    EXPECT_THAT(error_of({.flow_shift = 2, .sigmas = Levels{1, 0.5}}),
                HasSubstr("leave --flow-shift"));
    EXPECT_THAT(error_of({.sigma_schedule = "beta", .sigmas = Levels{1, 0.5}}),
                HasSubstr("leave --sigma-schedule"));
}

}  // namespace
}  // namespace zoetrope
