// The element-wise kernels, each that this CPU can run, beside the reference.
#include "kernels/cpu.h"
#include "kernels/norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace zoetrope::kernels {
namespace {

struct Kernel {
    const char* name;
    const NormKernels& run;
};

std::vector<Kernel> kernels_here() {
    std::vector<Kernel> found = {{"ref", norm_ref}};
    if (has(Isa::avx2)) found.push_back({"avx2", norm_avx2});
    if (has(Isa::avx512)) found.push_back({"avx512", norm_avx512});
    return found;
}

constexpr Element kTypes[] = {Element::fp32, Element::bf16};

float widened(std::uint16_t bf16) {
    const std::uint32_t bits = std::uint32_t{bf16} << 16;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// Rows wider than their channels; the elements between belong to somebody else.
class Matrix {
public:
    static constexpr float kForeign = 77;

    Matrix(Element type, std::int64_t rows, std::int64_t channels)
        : type_(type), rows_(rows), channels_(channels), stride_(channels + 3) {
        words_.assign(static_cast<std::size_t>(rows * stride_), 0);
        for (std::int64_t at = 0; at < rows * stride_; ++at) set(at, kForeign);
    }

    static Matrix random(Element type, std::int64_t rows, std::int64_t channels, float mean) {
        Matrix matrix(type, rows, channels);
        std::mt19937 generator(static_cast<std::uint32_t>(rows * 7919 + channels));
        std::normal_distribution<float> normal(mean, 1.5F);
        for (std::int64_t row = 0; row < rows; ++row) {
            for (std::int64_t c = 0; c < channels; ++c) matrix.put(row, c, normal(generator));
        }
        return matrix;
    }

    void put(std::int64_t row, std::int64_t channel, float x) { set(row * stride_ + channel, x); }
    float at(std::int64_t row, std::int64_t channel) const { return get(row * stride_ + channel); }
    Rows write() { return {words_.data(), stride_, type_}; }
    ConstRows read() const { return {words_.data(), stride_, type_}; }

    // Every number near the wanted one; a bf16 may lie one step (2^-7 at most) off.
    void expect_near(const Matrix& wanted, double absolute, double relative) const {
        if (type_ == Element::bf16) relative += std::ldexp(1.0, -7);
        for (std::int64_t row = 0; row < rows_; ++row) {
            for (std::int64_t c = 0; c < channels_; ++c) {
                const double w = wanted.at(row, c);
                ASSERT_NEAR(at(row, c), w, absolute + relative * std::abs(w)) << row << ' ' << c;
            }
            for (std::int64_t c = channels_; c < stride_; ++c) ASSERT_EQ(at(row, c), kForeign);
        }
    }

private:
    void set(std::int64_t at, float x) {
        std::uint32_t bits;
        std::memcpy(&bits, &x, sizeof bits);
        if (type_ == Element::bf16) {
            const auto half = static_cast<std::uint16_t>(bits >> 16);
            std::memcpy(reinterpret_cast<std::uint16_t*>(words_.data()) + at, &half, sizeof half);
        } else {
            std::memcpy(words_.data() + at, &bits, sizeof bits);
        }
    }
    float get(std::int64_t at) const {
        if (type_ == Element::bf16)
            return widened(reinterpret_cast<const std::uint16_t*>(words_.data())[at]);
        float x;
        std::memcpy(&x, words_.data() + at, sizeof x);
        return x;
    }

    Element type_;
    std::int64_t rows_, channels_, stride_;
    std::vector<std::uint32_t> words_;
};

std::vector<float> numbers(std::int64_t count, float mean, std::uint32_t seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(mean, 0.5F);
    std::vector<float> found(static_cast<std::size_t>(count));
    for (float& x : found) x = normal(generator);
    return found;
}

// One, around a register and a pair of them (8 and 16 lanes), odd, and those of the models.
constexpr std::int64_t kChannels[] = {1,  2,  7,  8,  9,  15, 16,  17,   24,   31,
                                      32, 33, 47, 63, 64, 65, 129, 1001, 1536, 5120};

template <class Test>
void for_every_kernel(const Test& test) {
    for (const Kernel& kernel : kernels_here()) {
        for (const Element from : kTypes) {
            for (const Element to : kTypes) {
                SCOPED_TRACE(std::string(kernel.name) +
                             (from == Element::fp32 ? " fp32" : " bf16") +
                             (to == Element::fp32 ? " to fp32" : " to bf16"));
                test(kernel, from, to);
            }
        }
    }
}

TEST(NormKernels, LayerNormAndRmsNorm) {
    for_every_kernel([](const Kernel& kernel, Element from, Element to) {
        for (const std::int64_t channels : kChannels) {
            SCOPED_TRACE(channels);
            // A mean far from zero is what a variance of one pass would not survive.
            const Matrix x = Matrix::random(from, 3, channels, 100);
            const auto factor = numbers(channels, 1, 1), offset = numbers(channels, 0, 2);
            for (const float* shift : {offset.data(), static_cast<const float*>(nullptr)}) {
                Matrix out(to, 3, channels), wanted(to, 3, channels);
                NormCall call{.x = x.read(),
                              .out = wanted.write(),
                              .rows = 3,
                              .channels = channels,
                              .factor = factor.data(),
                              .offset = shift,
                              .eps = 1e-6F};
                norm_ref.normalize(call);
                call.out = out.write();
                kernel.run.normalize(call);
                // The mean's rounding, 100 * 2^-24, over a deviation of about 1.5.
                out.expect_near(wanted, shift != nullptr && channels > 1 ? 4e-5 : 1e-6, 5e-7);
            }
        }
    });
}

TEST(NormKernels, RmsNormWithRotation) {
    for_every_kernel([](const Kernel& kernel, Element from, Element to) {
        for (const auto& [heads, pairs] :
             {std::pair{1, 1}, {2, 3}, {3, 6}, {2, 8}, {5, 11}, {1, 16}, {2, 17}, {12, 64}}) {
            SCOPED_TRACE(pairs);
            const std::int64_t channels = 2L * heads * pairs;
            const Matrix x = Matrix::random(from, 4, channels, 0);
            const auto factor = numbers(channels, 1, 1), angles = numbers(4L * pairs, 0, 2);
            std::vector<float> cos, sin;
            for (const float angle : angles) {
                cos.push_back(std::cos(angle));
                sin.push_back(std::sin(angle));
            }
            Matrix out(to, 4, channels), wanted(to, 4, channels);
            NormCall call{.x = x.read(),
                          .out = wanted.write(),
                          .rows = 4,
                          .channels = channels,
                          .factor = factor.data(),
                          .eps = 1e-6F,
                          .cos = cos.data(),
                          .sin = sin.data(),
                          .pairs = pairs};
            norm_ref.normalize(call);
            call.out = out.write();
            kernel.run.normalize(call);
            out.expect_near(wanted, 1e-6, 5e-7);
        }
    });
}

TEST(NormKernels, SumsWithAndWithoutGate) {
    for (const Kernel& kernel : kernels_here()) {
        for (const Element type : kTypes) {
            for (const std::int64_t channels : kChannels) {
                SCOPED_TRACE(std::string(kernel.name) + ' ' + std::to_string(channels));
                const Matrix x = Matrix::random(type, 3, channels, 0);
                const auto gate = numbers(channels, 1, 1);
                for (const float* factor : {gate.data(), static_cast<const float*>(nullptr)}) {
                    Matrix sum = Matrix::random(Element::fp32, 3, channels, 1), wanted = sum;
                    AddCall call{.sum = wanted.write(),
                                 .x = x.read(),
                                 .rows = 3,
                                 .channels = channels,
                                 .gate = factor};
                    norm_ref.add(call);
                    call.sum = sum.write();
                    kernel.run.add(call);
                    sum.expect_near(wanted, 0, 1.2e-7);  // rounded once, like the reference
                }
            }
        }
    }
}

TEST(NormKernels, Activations) {
    for_every_kernel([](const Kernel& kernel, Element from, Element to) {
        for (const auto which : {Activation::gelu_tanh, Activation::silu}) {
            for (const std::int64_t channels : kChannels) {
                SCOPED_TRACE(channels);
                const Matrix x = Matrix::random(from, 3, channels, 0);
                Matrix out(to, 3, channels), wanted(to, 3, channels);
                ActivationCall call{.x = x.read(),
                                    .out = wanted.write(),
                                    .rows = 3,
                                    .channels = channels,
                                    .which = which};
                norm_ref.activate(call);
                call.out = out.write();
                kernel.run.activate(call);
                out.expect_near(wanted, 2e-7, 3e-7);
            }
        }
    });
}

// Every 4099th float: what norm_math.h states, to which one rounding of the reference is added.
TEST(NormKernels, ActivationsOfEveryMagnitude) {
    std::vector<float> x;
    for (std::uint64_t bits = 0; bits < std::uint64_t{1} << 32; bits += 4099) {
        const auto word = static_cast<std::uint32_t>(bits);
        float value;
        std::memcpy(&value, &word, sizeof value);
        if (std::isfinite(value) && std::abs(value) < 1e30F) x.push_back(value);
    }
    std::vector<float> out(x.size()), wanted(x.size());
    const auto channels = static_cast<std::int64_t>(x.size());
    for (const Kernel& kernel : kernels_here()) {
        for (const auto which : {Activation::gelu_tanh, Activation::silu}) {
            ActivationCall call{
                .x = {x.data()}, .out = {wanted.data()}, .rows = 1, .channels = channels};
            call.which = which;
            norm_ref.activate(call);
            call.out = {out.data()};
            kernel.run.activate(call);
            double largest = 0;
            for (std::size_t i = 0; i < x.size(); ++i) {
                const double size = std::max(std::abs(double{x[i]}), 1e-37);
                largest = std::max(largest, std::abs(double{out[i]} - wanted[i]) / size);
                ASSERT_FALSE(std::isnan(out[i])) << x[i];
            }
            EXPECT_LT(largest, 1.3e-7 + 6e-8) << kernel.name;
        }
    }
}

TEST(NormKernels, SpecialNumbersGoThrough) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const std::uint32_t wrapping_nan = 0x7fffffff;  // rounding it to bf16 as a number gives -0
    float nan;
    std::memcpy(&nan, &wrapping_nan, sizeof nan);
    const std::vector<float> x = {kInfinity, nan, -nan, -0.0F, 1e-40F, 3.4e38F, 1.00390625F};
    const auto count = static_cast<std::int64_t>(x.size());
    const std::vector<float> zeros(x.size(), 0.0F);
    for (const Kernel& kernel : kernels_here()) {
        SCOPED_TRACE(kernel.name);
        std::vector<float> wide = x;
        kernel.run.activate({.x = {x.data()},
                             .out = {wide.data()},
                             .rows = 1,
                             .channels = count,
                             .which = Activation::gelu_tanh});
        EXPECT_EQ(wide[0], kInfinity);
        EXPECT_TRUE(std::isnan(wide[1]) && std::isnan(wide[2]));
        EXPECT_TRUE(wide[3] == 0 && std::signbit(wide[3]));
        EXPECT_NEAR(wide[4], 5e-41F, 1e-44F);
        EXPECT_EQ(wide[5], 3.4e38F);

        // The rounding to bf16 alone: RMSNorm's factor undoes what a single channel becomes.
        for (const float value : x) {
            std::uint16_t narrow = 0;
            const float one = 1;
            kernel.run.normalize({.x = {&one},
                                  .out = {&narrow, 0, Element::bf16},
                                  .rows = 1,
                                  .channels = 1,
                                  .factor = &value});
            std::uint16_t wanted = 0;
            norm_ref.normalize({.x = {&one},
                                .out = {&wanted, 0, Element::bf16},
                                .rows = 1,
                                .channels = 1,
                                .factor = &value});
            if (std::isnan(value)) {
                EXPECT_TRUE(std::isnan(widened(narrow)));
            } else {
                EXPECT_EQ(narrow, wanted) << value;
            }
        }

        // One NaN makes its row NaN and leaves the next alone.
        Matrix rows = Matrix::random(Element::fp32, 2, 40, 0);
        rows.put(0, 39, nan);
        const auto factor = numbers(40, 1, 1), offset = numbers(40, 0, 2);
        kernel.run.normalize({.x = rows.read(),
                              .out = rows.write(),
                              .rows = 2,
                              .channels = 40,
                              .factor = factor.data(),
                              .offset = offset.data()});
        EXPECT_TRUE(std::isnan(rows.at(0, 0)));
        EXPECT_FALSE(std::isnan(rows.at(1, 0)));
    }
}

}  // namespace
}  // namespace zoetrope::kernels
