#include "benchmark/metrics.h"

#include "base/error.h"
#include "weights/source.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>

#include <cmath>
#include <limits>
#include <string_view>

namespace zoetrope::benchmark {
namespace {

void check_sizes(const at::Tensor& a, const at::Tensor& b, std::int64_t least,
                 std::string_view metric) {
    ZT_CHECK(a.sizes() == b.sizes(), bad_request,
             "{} compares pictures of one size: {}x{} and {}x{} were given", metric, a.size(2),
             a.size(1), b.size(2), b.size(1));
    ZT_CHECK(a.size(1) >= least && a.size(2) >= least, bad_request,
             "{} needs sides of {} pixels at least: {}x{} was given", metric, least, a.size(2),
             a.size(1));
}

constexpr int kWindow = 11;                             // pixels
constexpr double kSigma = 1.5;                          // pixels
constexpr double kC1 = 0.01 * 0.01, kC2 = 0.03 * 0.03;  // (K L)^2, values from 0 to L = 1

std::array<double, kWindow> gaussian() {
    std::array<double, kWindow> weights{};
    double sum = 0;
    for (int i = 0; i < kWindow; ++i) {
        const double x = i - kWindow / 2;
        sum += weights[static_cast<std::size_t>(i)] = std::exp(-x * x / (2 * kSigma * kSigma));
    }
    for (double& weight : weights) weight /= sum;
    return weights;
}

using Plane = std::vector<double>;

Plane luma_of(const at::Tensor& picture) {
    const at::Tensor rgb = picture.to(at::kFloat).contiguous();
    const auto pixels = static_cast<std::size_t>(rgb.size(1) * rgb.size(2));
    const float* data = rgb.const_data_ptr<float>();
    Plane luma(pixels);
    for (std::size_t i = 0; i < pixels; ++i) {
        luma[i] = 0.299 * double{data[i]} + 0.587 * double{data[pixels + i]} +
                  0.114 * double{data[2 * pixels + i]};
    }
    return luma;
}

// The Gaussian mean of each window within the picture: [height - 10, width - 10].
Plane filtered(const Plane& plane, std::size_t width, std::size_t height) {
    static const std::array<double, kWindow> kWeights = gaussian();
    const std::size_t narrow = width - kWindow + 1, low = height - kWindow + 1;
    Plane across(narrow * height), result(narrow * low);
    for (std::size_t y = 0; y < height; ++y) {
        for (std::size_t x = 0; x < narrow; ++x) {
            double sum = 0;
            for (std::size_t k = 0; k < kWindow; ++k) sum += kWeights[k] * plane[y * width + x + k];
            across[y * narrow + x] = sum;
        }
    }
    for (std::size_t y = 0; y < low; ++y) {
        double* row = result.data() + y * narrow;
        for (std::size_t k = 0; k < kWindow; ++k) {
            const double* from = across.data() + (y + k) * narrow;
            for (std::size_t x = 0; x < narrow; ++x) row[x] += kWeights[k] * from[x];
        }
    }
    return result;
}

Plane product(const Plane& a, const Plane& b) {
    Plane result(a.size());
    for (std::size_t i = 0; i < a.size(); ++i) result[i] = a[i] * b[i];
    return result;
}

}  // namespace

double mean_squared_error(const at::Tensor& a, const at::Tensor& b) {
    const c10::InferenceMode inference;
    check_sizes(a, b, 1, "PSNR");
    return (a.to(at::kDouble) - b.to(at::kDouble)).square().mean().item<double>();
}

double psnr_of(double mean_squared_error) {
    if (mean_squared_error == 0) return std::numeric_limits<double>::infinity();
    return -10 * std::log10(mean_squared_error);
}

double ssim(const at::Tensor& a, const at::Tensor& b) {
    const c10::InferenceMode inference;
    check_sizes(a, b, kWindow, "SSIM");
    const auto height = static_cast<std::size_t>(a.size(1));
    const auto width = static_cast<std::size_t>(a.size(2));
    const Plane x = luma_of(a), y = luma_of(b);
    const auto mean = [&](const Plane& plane) { return filtered(plane, width, height); };
    const Plane mean_x = mean(x), mean_y = mean(y);
    const Plane mean_xx = mean(product(x, x)), mean_yy = mean(product(y, y)),
                mean_xy = mean(product(x, y));
    double sum = 0;
    for (std::size_t i = 0; i < mean_x.size(); ++i) {
        const double xx = mean_x[i] * mean_x[i], yy = mean_y[i] * mean_y[i],
                     xy = mean_x[i] * mean_y[i];
        const double variances = mean_xx[i] - xx + mean_yy[i] - yy;
        const double covariance = mean_xy[i] - xy;
        sum += (2 * xy + kC1) * (2 * covariance + kC2) / ((xx + yy + kC1) * (variances + kC2));
    }
    return sum / static_cast<double>(mean_x.size());
}

namespace {

// AlexNet's convolutions (Krizhevsky 2014, as torchvision has it), each behind a 3x3 max pooling of
// stride 2 or not. The names are those of the authors' package.
struct Convolution {
    std::string_view name;
    std::int64_t in, out, kernel, stride, padding;
    bool pooled;
};
constexpr std::array<Convolution, 5> kConvolutions = {{
    {"net.slice1.0", 3, 64, 11, 4, 2, false},
    {"net.slice2.3", 64, 192, 5, 1, 2, true},
    {"net.slice3.6", 192, 384, 3, 1, 1, true},
    {"net.slice4.8", 384, 256, 3, 1, 1, false},
    {"net.slice5.10", 256, 256, 3, 1, 1, false},
}};
constexpr std::int64_t kLeastSide = 31;  // pixels: what the second pooling leaves something of

at::Tensor parameter(const TensorSource& source, const std::string& name,
                     std::initializer_list<std::int64_t> shape, const std::string& file) {
    const auto tensors = source.tensors();
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        if (tensors[i].name != name) continue;
        ZT_CHECK(tensors[i].shape == std::vector<std::int64_t>(shape), bad_request,
                 "--lpips {}: {} is [{}], LPIPS on AlexNet has [{}]", file, name,
                 fmt::join(tensors[i].shape, ", "), fmt::join(shape, ", "));
        return source.read(i).to(at::kFloat).contiguous();
    }
    fail(ErrorKind::bad_request,
         "--lpips {}: it has no {}; wanted are the parameters of the lpips package's "
         "LPIPS(net=\"alex\"), saved with torch.save(model.state_dict(), FILE) or as safetensors",
         file, name);
}

// [1, 3, H, W] in [0, 1] -> the same with the means and deviations that the distance was fitted
// with
at::Tensor scaled(const at::Tensor& picture) {
    static constexpr std::array<float, 3> kShift{-0.030F, -0.088F, -0.188F};
    static constexpr std::array<float, 3> kScale{0.458F, 0.448F, 0.450F};
    const at::Tensor shift = at::tensor(c10::ArrayRef<float>(kShift)).view({1, 3, 1, 1});
    const at::Tensor scale = at::tensor(c10::ArrayRef<float>(kScale)).view({1, 3, 1, 1});
    return (picture.unsqueeze(0).to(at::kFloat) * 2 - 1 - shift) / scale;
}

at::Tensor unit_length(const at::Tensor& features) {
    constexpr double kTiny = 1e-10;
    return features / (features.square().sum(1, true).sqrt() + kTiny);
}

}  // namespace

Lpips::Lpips(const std::filesystem::path& file) {
    ZT_CHECK(std::filesystem::exists(file), not_found, "--lpips is '{}': there is no such file",
             file.string());
    const auto source = open_weights_file(file);
    for (std::size_t i = 0; i < kConvolutions.size(); ++i) {
        const Convolution& shape = kConvolutions[i];
        const std::string name(shape.name);
        layers_[i].weight =
            parameter(*source, name + ".weight", {shape.out, shape.in, shape.kernel, shape.kernel},
                      file.string());
        layers_[i].bias = parameter(*source, name + ".bias", {shape.out}, file.string());
        layers_[i].importance = parameter(*source, fmt::format("lin{}.model.1.weight", i),
                                          {1, shape.out, 1, 1}, file.string());
    }
}

double Lpips::distance(const at::Tensor& a, const at::Tensor& b) const {
    const c10::InferenceMode inference;
    check_sizes(a, b, kLeastSide, "LPIPS");
    at::Tensor x = scaled(a), y = scaled(b);
    double sum = 0;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
        const Convolution& shape = kConvolutions[i];
        const Layer& layer = layers_[i];
        const auto step = [&](at::Tensor features) {
            if (shape.pooled) features = at::max_pool2d(features, {3, 3}, {2, 2});
            return at::relu(
                at::conv2d(features, layer.weight, layer.bias, shape.stride, shape.padding));
        };
        x = step(x);
        y = step(y);
        const at::Tensor difference = (unit_length(x) - unit_length(y)).square();
        sum += (difference * layer.importance).sum(1).mean().item<double>();
    }
    return sum;
}

}  // namespace zoetrope::benchmark
