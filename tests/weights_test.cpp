// Declaring parameters, checking them against the source, and leasing them.
#include "weights/weights.h"

#include "base/error.h"
#include "errors.h"
#include "scratch.h"
#include "weights/params.h"
#include "weights/source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <filesystem>
#include <optional>
#include <thread>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

// A file with matrix [6, 4] fp32, bias [6] bf16, norm [4] bf16, conv [2, 3, 1, 1, 1] fp32 and table
// [5, 4] fp16, with values 0, 1, 2, ...
class WeightsTest : public testing::Test {
protected:
    void SetUp() override {
        const auto values = [](std::vector<std::int64_t> shape, at::ScalarType dtype) {
            std::int64_t count = 1;
            for (const auto size : shape) count *= size;
            return at::arange(count, at::kFloat).view(shape).to(dtype);
        };
        const std::vector<NamedTensor> tensors = {
            {"matrix", values({6, 4}, at::kFloat)}, {"bias", values({6}, at::kBFloat16)},
            {"norm", values({4}, at::kBFloat16)},   {"conv", values({2, 3, 1, 1, 1}, at::kFloat)},
            {"table", values({5, 4}, at::kHalf)},
        };
        write_safetensors(file_, tensors);
    }

    struct Params {
        Param matrix, bias, norm, conv, table;
    };
    static Params declare(Weights& weights) {
        return {weights.param("matrix", {6, 4}, Role::matrix),
                weights.param("bias", {6}, Role::vector), weights.param("norm", {4}, Role::fp32),
                weights.param("conv", {2, 3, 1, 1, 1}, Role::conv),
                weights.param("table", {5, 4}, Role::embedding)};
    }

    Weights open() const { return Weights::open("transformer", file_); }

    const Scratch scratch_;
    const fs::path file_ = scratch_ / "weights.safetensors";
};

TEST_F(WeightsTest, DeclaredParametersFitTheFile) {
    Weights weights = open();
    const Params params = declare(weights);
    weights.check();
    EXPECT_EQ(weights.params().size(), 5u);
    EXPECT_EQ(params.conv.id, 3);
    EXPECT_TRUE(params.conv.declared());
    EXPECT_FALSE(Param{}.declared());
    EXPECT_TRUE(weights.contains("bias"));
    EXPECT_FALSE(weights.contains("other"));
    EXPECT_EQ(weights.shape_of("conv"), (std::vector<std::int64_t>{2, 3, 1, 1, 1}));
    EXPECT_EQ(error_of([&] { weights.shape_of("other"); }).first, ErrorKind::io);
    EXPECT_EQ(weights.stored_dtype(params.bias), at::kBFloat16);
    EXPECT_EQ(weights.main_dtype(), at::kFloat);  // 30 elements of 60
}

TEST_F(WeightsTest, CheckNamesAllThatDoesNotFit) {
    Weights weights = open();
    weights.param("matrix", {4, 6}, Role::matrix);
    weights.param("bias", {6}, Role::vector);
    weights.param("bias_2", {6}, Role::vector);
    weights.param("conv", {2, 3}, Role::conv);
    weights.ignore("table");
    weights.ignore("never there");
    const auto [kind, message] = error_of([&] { weights.check(); });
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_THAT(message, AllOf(HasSubstr("the transformer weights of " + file_.string()),
                               HasSubstr("1 missing: bias_2."), HasSubstr("1 unexpected: norm."),
                               HasSubstr("2 of the wrong shape: matrix is [6, 4], wanted [4, 6], "
                                         "conv is [2, 3, 1, 1, 1], wanted [2, 3]."),
                               HasSubstr("config.json")));
}

TEST_F(WeightsTest, CheckNamesAtMostTenOfAKind) {
    Weights weights = open();
    declare(weights);
    for (int i = 0; i < 25; ++i) weights.param(fmt::format("p{}", i), {1}, Role::vector);
    EXPECT_THAT(
        error_of([&] { weights.check(); }).second,
        AllOf(HasSubstr("25 missing: p0, "), HasSubstr("p9 and 15 more."), Not(HasSubstr("p10"))));
}

TEST_F(WeightsTest, RolesDecideTheDtype) {
    for (const at::ScalarType compute : {at::kFloat, at::kBFloat16, at::kHalf}) {
        Weights weights = open();
        const Params params = declare(weights);
        Residency residency(std::move(weights), {.compute_dtype = compute});
        const Lease lease = residency.lease_all();
        EXPECT_EQ(lease[params.bias].scalar_type(), compute);
        EXPECT_EQ(lease[params.conv].scalar_type(), compute);
        EXPECT_EQ(lease[params.norm].scalar_type(), at::kFloat);
        EXPECT_EQ(lease[params.table].scalar_type(), at::kHalf);
        for (const Param* param : {&params.bias, &params.conv, &params.norm, &params.table}) {
            EXPECT_EQ(lease[*param].scalar_type(), residency.dtype_of(*param)) << param->name;
            EXPECT_EQ(lease[*param].sizes(), at::IntArrayRef(param->shape)) << param->name;
            const at::Tensor flat = lease[*param].to(at::kFloat).flatten();
            EXPECT_TRUE(flat.equal(at::arange(flat.numel(), at::kFloat))) << param->name;
        }
        const ops::Matrix matrix = lease.matrix(params.matrix);
        if (matrix.layout == ops::MatrixLayout::plain) {
            EXPECT_EQ(matrix.data.scalar_type(), compute);
            EXPECT_TRUE(matrix.data.to(at::kFloat).flatten().equal(at::arange(24, at::kFloat)));
        }
    }
}

TEST_F(WeightsTest, MappedAndOwnBytesAreCountedApart) {
    Weights weights = open();
    const Params params = declare(weights);
    Residency residency(std::move(weights), {.compute_dtype = at::kFloat});
    const std::vector<Param> mapped = {params.conv, params.table};
    const std::vector<Param> converted = {params.bias, params.norm};
    {
        const Lease views = residency.lease(mapped);
        EXPECT_EQ(residency.mapped_bytes(), 6 * 4 + 20 * 2);
        EXPECT_EQ(residency.leased_bytes(), 0);
        {
            const Lease copies = residency.lease(converted);
            EXPECT_EQ(residency.leased_bytes(), (6 + 4) * 4);
        }
        EXPECT_EQ(residency.leased_bytes(), 0);
        EXPECT_EQ(residency.peak_leased_bytes(), (6 + 4) * 4);
        EXPECT_EQ(residency.mapped_bytes(), 6 * 4 + 20 * 2);
    }
    EXPECT_EQ(residency.mapped_bytes(), 0);
}

TEST_F(WeightsTest, LeasesShareAndReleaseInAnyOrder) {
    Weights weights = open();
    const Params params = declare(weights);
    Residency residency(std::move(weights), {.compute_dtype = at::kFloat});
    const std::vector<Param> one = {params.bias};
    const std::vector<Param> two = {params.norm, params.bias, params.bias};
    std::optional<Lease> first = residency.lease(one);
    std::optional<Lease> second = residency.lease(two);
    const void* data = (*first)[params.bias].const_data_ptr();
    EXPECT_EQ((*second)[params.bias].const_data_ptr(), data);
    EXPECT_EQ(residency.leased_bytes(), 40);
    first.reset();
    EXPECT_EQ((*second)[params.bias].const_data_ptr(), data);
    EXPECT_EQ(residency.leased_bytes(), 40);
    first = residency.lease(one);
    second.reset();
    EXPECT_EQ((*first)[params.bias].const_data_ptr(), data);
    EXPECT_EQ(residency.leased_bytes(), 24);
    first.reset();
    EXPECT_EQ(residency.leased_bytes(), 0);
    EXPECT_EQ(residency.peak_leased_bytes(), 40);
}

TEST_F(WeightsTest, TensorsOutliveTheirLease) {
    Weights weights = open();
    const Params params = declare(weights);
    at::Tensor bias;
    {
        Residency residency(std::move(weights), {.compute_dtype = at::kFloat});
        bias = residency.lease_all()[params.bias];
    }
    EXPECT_TRUE(bias.equal(at::arange(6, at::kFloat)));
}

TEST_F(WeightsTest, MovedLeasesReleaseOnce) {
    Weights weights = open();
    const Params params = declare(weights);
    Residency residency(std::move(weights), {.compute_dtype = at::kFloat});
    const std::vector<Param> bias = {params.bias};
    const std::vector<Param> norm = {params.norm};
    {
        Lease first = residency.lease(bias);
        Lease moved(std::move(first));
        EXPECT_EQ(moved[params.bias].numel(), 6);
        EXPECT_EQ(residency.leased_bytes(), 24);
        moved = residency.lease(norm);
        EXPECT_EQ(residency.leased_bytes(), 16) << "assignment returns what was held";
        EXPECT_EQ(moved[params.norm].numel(), 4);
        moved = Lease();
        EXPECT_EQ(residency.leased_bytes(), 0);
    }
    EXPECT_EQ(residency.leased_bytes(), 0);
}

TEST_F(WeightsTest, MisuseIsAnInternalError) {
    Weights weights = open();
    const Params params = declare(weights);
    Residency residency(std::move(weights), {});
    const std::vector<Param> bias = {params.bias};
    const Lease lease = residency.lease(bias);
    for (const Param& param : {params.norm, Param{.name = "nobody"}}) {
        const auto [kind, message] = error_of([&] { static_cast<void>(lease[param]); });
        EXPECT_EQ(kind, ErrorKind::internal);
        EXPECT_THAT(message, HasSubstr("'" + param.name + "' is not part of this lease"));
    }
    EXPECT_THROW(Lease()[params.bias], Error);
    const std::vector<Param> foreign = {params.norm, Param{.name = "nobody", .id = 5}};
    EXPECT_THAT(error_of([&] { residency.lease(foreign); }).second, HasSubstr("'nobody'"));
    EXPECT_EQ(residency.leased_bytes(), 24) << "a lease that fails holds nothing; the first has 24";
}

TEST_F(WeightsTest, ALeaseThatFailsHoldsNothing) {
    Weights weights = Weights::random("transformer", {.dtype = at::kBFloat16});
    const std::vector<Param> params = {weights.param("small", {8}, Role::vector),
                                       weights.param("huge", {1LL << 50, 8}, Role::vector)};
    Residency residency(std::move(weights), {.compute_dtype = at::kFloat});
    const auto [kind, message] = error_of([&] { residency.lease(params); });
    EXPECT_EQ(kind, ErrorKind::out_of_memory) << message;
    EXPECT_THAT(message, AllOf(HasSubstr("no memory on cpu for huge of the transformer"),
                               HasSubstr("[1125899906842624, 8]")));
    EXPECT_EQ(residency.leased_bytes(), 0);
}

TEST_F(WeightsTest, ManyThreadsLeaseAtOnce) {
    Weights weights = Weights::random("transformer", {.dtype = at::kFloat});
    std::vector<Param> params;
    for (int i = 0; i < 16; ++i) {
        params.push_back(weights.param(fmt::format("w{}", i), {64}, Role::vector));
    }
    Residency residency(std::move(weights), {.compute_dtype = at::kFloat});
    std::vector<double> sums;
    {
        const Lease all = residency.lease_all();
        for (const Param& param : params) sums.push_back(all[param].sum().item<double>());
    }
    std::atomic<int> wrong = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (int round = 0; round < 200; ++round) {
                const std::size_t first = static_cast<std::size_t>(round * 3 + t) % 13;
                const Lease lease = residency.lease(std::span(params).subspan(first, 3));
                for (std::size_t i = first; i < first + 3; ++i) {
                    if (lease[params[i]].sum().item<double>() != sums[i]) ++wrong;
                }
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(residency.leased_bytes(), 0);
}

TEST(RandomWeights, AreReproducibleByName) {
    const auto values_of = [](std::vector<std::string> names, std::uint64_t seed) {
        Weights weights = Weights::random("transformer", {.seed = seed, .dtype = at::kFloat});
        std::map<std::string, at::Tensor> values;
        for (const auto& name : names) {
            values[name] = weights.read(weights.param(name, {300, 400}, Role::matrix));
        }
        weights.check();
        return values;
    };
    const auto one = values_of({"a.weight", "b.weight"}, 1);
    const auto other_order = values_of({"b.weight", "c.weight", "a.weight"}, 1);
    const auto other_seed = values_of({"a.weight"}, 2);
    EXPECT_TRUE(one.at("a.weight").equal(other_order.at("a.weight")));
    EXPECT_TRUE(one.at("b.weight").equal(other_order.at("b.weight")));
    EXPECT_FALSE(one.at("a.weight").equal(one.at("b.weight")));
    EXPECT_FALSE(one.at("a.weight").equal(other_seed.at("a.weight")));
    // 120,000 samples: the standard error of the deviation is 0.2 %, that of the mean 0.29 % of it.
    const double deviation = 1 / std::sqrt(400.0);
    EXPECT_NEAR(one.at("a.weight").std().item<double>(), deviation, 0.01 * deviation);
    EXPECT_NEAR(one.at("a.weight").mean().item<double>(), 0, 0.015 * deviation);
}

TEST(RandomWeights, RepeatAfterAPrimeNumberOfValues) {
    Weights weights = Weights::random("transformer", {.dtype = at::kFloat});
    const std::int64_t period = 1048573;
    const auto values = weights.read(weights.param("a", {2 * period + 5}, Role::matrix));
    const auto start = values.slice(0, 0, 5);
    EXPECT_TRUE(values.slice(0, period, period + 5).equal(start));
    EXPECT_TRUE(values.slice(0, 2 * period).equal(start));
    EXPECT_FALSE(values.slice(0, 5, 10).equal(start));
}

TEST(RandomWeights, NormsAreOnesAndBiasesZeros) {
    Weights weights = Weights::random("transformer", {});
    const auto read = [&](const std::string& name, std::vector<std::int64_t> shape) {
        const at::Tensor tensor = weights.read(weights.param(name, std::move(shape), Role::vector));
        EXPECT_EQ(tensor.scalar_type(), at::kBFloat16);
        return tensor.to(at::kFloat);
    };
    EXPECT_TRUE(read("blocks.0.norm2.weight", {4}).equal(at::ones({4})));
    EXPECT_TRUE(read("decoder.norm_out.gamma", {4, 1, 1}).equal(at::ones({4, 1, 1})));
    EXPECT_TRUE(read("blocks.0.norm2.bias", {4}).equal(at::zeros({4})));
    EXPECT_EQ(read("conv.weight", {8, 3, 1, 3, 3}).numel(), 8 * 27);
    EXPECT_TRUE(weights.contains("anything"));
    EXPECT_EQ(weights.main_dtype(), at::kBFloat16);
    EXPECT_EQ(error_of([&] { weights.shape_of("anything"); }).first, ErrorKind::io);
}

}  // namespace
}  // namespace zoetrope
