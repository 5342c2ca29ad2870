// The formulas of norm.h, one number after the other. Sums and functions are float64, so that the
// vector kernels can be measured against them.
#include "kernels/norm.h"

#include <cmath>
#include <cstring>

namespace zoetrope::kernels {
namespace {

float load(const ConstRows& rows, std::int64_t row, std::int64_t channel) {
    const std::int64_t at = row * rows.stride + channel;
    if (rows.type == Element::fp32) return static_cast<const float*>(rows.data)[at];
    const auto bits = std::uint32_t{static_cast<const std::uint16_t*>(rows.data)[at]} << 16;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

void store(const Rows& rows, std::int64_t row, std::int64_t channel, float x) {
    const std::int64_t at = row * rows.stride + channel;
    if (rows.type == Element::fp32) {
        static_cast<float*>(rows.data)[at] = x;
        return;
    }
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const std::uint32_t rounded = (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16;
    static_cast<std::uint16_t*>(rows.data)[at] =
        static_cast<std::uint16_t>(std::isnan(x) ? bits >> 16 | 0x40U : rounded);
}

// mean and 1 / deviation of a row; RMSNorm has the mean 0.
struct Moments {
    double mean = 0;
    double inverse = 0;
};

Moments moments_of(const NormCall& call, std::int64_t row) {
    const auto count = static_cast<double>(call.channels);
    Moments moments;
    for (std::int64_t c = 0; call.offset != nullptr && c < call.channels; ++c)
        moments.mean += load(call.x, row, c) / count;
    double squares = 0;
    for (std::int64_t c = 0; c < call.channels; ++c) {
        const double centred = load(call.x, row, c) - moments.mean;
        squares += centred * centred;
    }
    moments.inverse = 1 / std::sqrt(squares / count + call.eps);
    return moments;
}

double normed(const NormCall& call, std::int64_t row, std::int64_t channel,
              const Moments& moments) {
    const double centred = load(call.x, row, channel) - moments.mean;
    const double scaled = centred * moments.inverse * call.factor[channel];
    return call.offset != nullptr ? scaled + call.offset[channel] : scaled;
}

void normalize(const NormCall& call) {
    for (std::int64_t row = 0; row < call.rows; ++row) {
        const Moments moments = moments_of(call, row);
        if (call.cos == nullptr) {
            for (std::int64_t c = 0; c < call.channels; ++c)
                store(call.out, row, c, static_cast<float>(normed(call, row, c, moments)));
            continue;
        }
        for (std::int64_t pair = 0; pair < call.channels / 2; ++pair) {
            const double even = normed(call, row, 2 * pair, moments);
            const double odd = normed(call, row, 2 * pair + 1, moments);
            const std::int64_t angle = row * call.pairs + pair % call.pairs;
            const double cos = call.cos[angle], sin = call.sin[angle];
            store(call.out, row, 2 * pair, static_cast<float>(even * cos - odd * sin));
            store(call.out, row, 2 * pair + 1, static_cast<float>(even * sin + odd * cos));
        }
    }
}

void add(const AddCall& call) {
    const ConstRows before{call.sum.data, call.sum.stride, call.sum.type};
    for (std::int64_t row = 0; row < call.rows; ++row) {
        for (std::int64_t c = 0; c < call.channels; ++c) {
            const double gate = call.gate != nullptr ? call.gate[c] : 1;
            store(call.sum, row, c,
                  static_cast<float>(load(before, row, c) + load(call.x, row, c) * gate));
        }
    }
}

double activation(Activation which, double x) {
    switch (which) {
        case Activation::gelu_tanh: {
            constexpr double kRoot = 0.7978845608028654;  // sqrt(2 / pi)
            return x / (1 + std::exp(-2 * kRoot * (x + 0.044715 * x * x * x)));
        }
        case Activation::silu: return x / (1 + std::exp(-x));
    }
    return x;
}

void activate(const ActivationCall& call) {
    for (std::int64_t row = 0; row < call.rows; ++row) {
        for (std::int64_t c = 0; c < call.channels; ++c)
            store(call.out, row, c,
                  static_cast<float>(activation(call.which, load(call.x, row, c))));
    }
}

}  // namespace

constinit const NormKernels norm_ref = {normalize, add, activate};

}  // namespace zoetrope::kernels
