// How alike two pictures are: PSNR, SSIM and LPIPS.
//
// Frames are fp32 on the CPU, [3, H, W] with values in [0, 1] as they are shown (gamma encoded).
// Pure functions; an Lpips owns its weights and is not changed by use. Any thread. Errors:
// bad_request where the sizes differ or are too small.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <filesystem>
#include <vector>

namespace zoetrope::benchmark {

// Over all channels and pixels, in float64.
double mean_squared_error(const at::Tensor& a, const at::Tensor& b);

// Decibels, for a peak of 1; infinity for 0.
double psnr_of(double mean_squared_error);

// The index of Wang, Bovik, Sheikh and Simoncelli (2004): windows of 11x11 pixels with Gaussian
// weights of sigma 1.5, K1 0.01, K2 0.03, of the luma (BT.601: 0.299 R + 0.587 G + 0.114 B), mean
// over all windows that lie within the picture. Sides of 11 pixels at least.
double ssim(const at::Tensor& a, const at::Tensor& b);

// The distance of Zhang, Isola, Efros, Shechtman and Wang (2018), version 0.1, on AlexNet's
// features: 0 for equal pictures. Sides of 31 pixels at least.
class Lpips {
public:
    // A file of the parameters that the authors' Python package has for net="alex"
    // (net.slice1.0.weight to net.slice5.10.bias, lin0.model.1.weight to lin4.model.1.weight), as
    // torch.save or safetensors write it. Errors: not_found, io; bad_request for another network.
    explicit Lpips(const std::filesystem::path& file);

    struct Layer {
        at::Tensor weight, bias;  // of the convolution: [out, in, k, k], [out]
        at::Tensor importance;    // of the output's channels: [1, out, 1, 1]
    };
    explicit Lpips(std::array<Layer, 5> layers) : layers_(std::move(layers)) {}

    double distance(const at::Tensor& a, const at::Tensor& b) const;

private:
    std::array<Layer, 5> layers_;
};

}  // namespace zoetrope::benchmark
