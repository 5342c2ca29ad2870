// PSNR and SSIM beside scikit-image, LPIPS beside its authors' package (tools/oracle/
// metrics_golden.py), on pictures and parameters made here again.
#include "benchmark/metrics.h"

#include "base/json.h"
#include "errors.h"
#include "golden.h"
#include "scratch.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <tuple>

namespace zoetrope::benchmark {
namespace {

using testing::HasSubstr;

int level_of(const std::string& name, int x, int y, int c, int width, int height) {
    const int slope = (x * 255 / width + y * 255 / height + c * 40) / 3;
    const int texture = (x * 7 + y * 13 + c * 50 + x * y / 3) % 256;
    if (name == "slope") return slope;
    if (name == "texture") return texture;
    if (name == "inverse") return 255 - texture;
    if (name == "flat") return 77;
    return std::clamp(slope + (x * 31 + y * 17 + c * 11) % 41 - 20, 0, 255);  // noisy
}

at::Tensor picture(const std::string& name, int width, int height) {
    at::Tensor made = at::empty({3, height, width}, at::kFloat);
    float* out = made.mutable_data_ptr<float>();
    for (int c = 0; c < 3; ++c) {
        for (int y = 0; y < height; ++y) {
            for (int x = 0; x < width; ++x)
                *out++ = static_cast<float>(level_of(name, x, y, c, width, height) / 255.0);
        }
    }
    return made;
}

// The parameters of the oracle's network, by name.
std::vector<NamedTensor> lpips_parameters() {
    constexpr std::array<std::string_view, 5> kNames{"net.slice1.0", "net.slice2.3", "net.slice3.6",
                                                     "net.slice4.8", "net.slice5.10"};
    constexpr std::array<std::array<std::int64_t, 3>, 5> kShapes{
        {{64, 3, 11}, {192, 64, 5}, {384, 192, 3}, {256, 384, 3}, {256, 256, 3}}};
    const at::Generator generator = at::detail::createCPUGenerator(5);
    std::vector<NamedTensor> parameters;
    for (std::size_t i = 0; i < 5; ++i) {
        const auto [out, in, kernel] = kShapes[i];
        const at::Tensor weight = at::randn({out, in, kernel, kernel}, generator, at::kFloat);
        const double scale = std::sqrt(2.0 / static_cast<double>(in * kernel * kernel));
        parameters.push_back({std::string(kNames[i]) + ".weight", weight * scale});
        parameters.push_back(
            {std::string(kNames[i]) + ".bias", at::randn({out}, generator, at::kFloat) * 0.1});
    }
    for (std::size_t i = 0; i < 5; ++i) {
        parameters.push_back({"lin" + std::to_string(i) + ".model.1.weight",
                              at::randn({1, kShapes[i][0], 1, 1}, generator, at::kFloat).abs()});
    }
    return parameters;
}

TEST(Metrics, EqualThoseOfOtherPrograms) {
    const Scratch scratch;
    const std::filesystem::path file = scratch / "alex.safetensors";
    write_safetensors(file, lpips_parameters());
    const Lpips lpips(file);
    int measured = 0;
    for (const auto& row : read_json(golden_folder() / "metrics.json")) {
        SCOPED_TRACE(row.dump());
        const int width = row["width"], height = row["height"];
        const at::Tensor a = picture(row["a"], width, height), b = picture(row["b"], width, height);
        EXPECT_NEAR(psnr_of(mean_squared_error(a, b)), row["psnr"].get<double>(), 1e-5);
        EXPECT_NEAR(ssim(a, b), row["ssim"].get<double>(), 1e-9);
        EXPECT_NEAR(ssim(b, a), row["ssim"].get<double>(), 1e-9);
        if (!row.contains("lpips")) continue;
        const double distance = row["lpips"];
        EXPECT_NEAR(lpips.distance(a, b), distance, 2e-5 * distance);
        ++measured;
    }
    EXPECT_EQ(measured, 8);
}

TEST(Metrics, EqualPicturesAreEqual) {
    const at::Tensor a = picture("texture", 32, 32);
    EXPECT_EQ(mean_squared_error(a, a), 0);
    EXPECT_TRUE(std::isinf(psnr_of(0)));
    EXPECT_NEAR(ssim(a, a), 1, 1e-12);
    EXPECT_NEAR(psnr_of(0.01), 20, 1e-12);
}

TEST(Metrics, SizesAreChecked) {
    const at::Tensor a = picture("slope", 40, 20);
    const auto refusal = [](const auto& call) {
        const auto [kind, message] = error_of(call);
        EXPECT_EQ(kind, ErrorKind::bad_request);
        return message;
    };
    EXPECT_THAT(refusal([&] { mean_squared_error(a, picture("slope", 41, 20)); }),
                HasSubstr("40x20 and 41x20"));
    const at::Tensor low = picture("slope", 40, 10);
    EXPECT_THAT(refusal([&] { ssim(low, low); }), HasSubstr("11 pixels at least: 40x10"));
    std::array<Lpips::Layer, 5> none;
    EXPECT_THAT(refusal([&] { Lpips(none).distance(a, a); }), HasSubstr("31 pixels at least"));
}

TEST(Metrics, OtherFilesOfParametersAreRefused) {
    const Scratch scratch;
    const std::filesystem::path file = scratch / "other.safetensors";
    std::vector<NamedTensor> parameters = lpips_parameters();
    parameters[2].tensor = at::zeros({192, 64, 3, 3});
    write_safetensors(file, parameters);
    auto [kind, message] = error_of([&] { Lpips{file}; });
    EXPECT_EQ(kind, ErrorKind::bad_request);
    EXPECT_THAT(message, HasSubstr("net.slice2.3.weight is [192, 64, 3, 3]"));
    parameters.erase(parameters.begin() + 2);
    write_safetensors(file, parameters);
    std::tie(kind, message) = error_of([&] { Lpips{file}; });
    EXPECT_EQ(kind, ErrorKind::bad_request);
    EXPECT_THAT(message, HasSubstr("has no net.slice2.3.weight"));
    std::filesystem::remove(file);
    EXPECT_EQ(error_of([&] { Lpips{file}; }).first, ErrorKind::not_found);
}

}  // namespace
}  // namespace zoetrope::benchmark
