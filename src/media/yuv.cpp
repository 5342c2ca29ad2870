#include "media/yuv.h"

#include <array>

namespace zoetrope {
namespace {

// ITU-R BT.709-6, section 3: Y' = 0.2126 R' + 0.7152 G' + 0.0722 B', Cb = (B' - Y') / 1.8556,
// Cr = (R' - Y') / 1.5748; section 4: Y' takes codes 16 to 235, Cb and Cr 16 to 240 around 128.
constexpr double kRed = 0.2126;
constexpr double kGreen = 0.7152;
constexpr double kBlue = 0.0722;
constexpr int kFractionBits = 16;
constexpr double kOne = 1 << kFractionBits;

constexpr int nearest(double value) {
    return static_cast<int>(value < 0 ? value - 0.5 : value + 0.5);
}

// Green is what is left of the sum, so that grey stays grey to the last bit.
constexpr int kLumaSum = nearest(219.0 / 255 * kOne);
constexpr int kLumaR = nearest(219.0 / 255 * kRed * kOne);
constexpr int kLumaB = nearest(219.0 / 255 * kBlue * kOne);
constexpr int kLumaG = kLumaSum - kLumaR - kLumaB;
constexpr double kCbScale = 224.0 / 255 / (2 * (1 - kBlue)) * kOne;
constexpr double kCrScale = 224.0 / 255 / (2 * (1 - kRed)) * kOne;
constexpr int kCbR = nearest(-kRed * kCbScale);
constexpr int kCbB = nearest((1 - kBlue) * kCbScale);
constexpr int kCbG = -kCbR - kCbB;
constexpr int kCrR = nearest((1 - kRed) * kCrScale);
constexpr int kCrB = nearest(-kBlue * kCrScale);
constexpr int kCrG = -kCrR - kCrB;

constexpr int kLumaOffset = (16 << kFractionBits) + (1 << (kFractionBits - 1));

// A chroma sample stands for 8 weighted pixels: 1 2 1 across, since it lies on the left pixel of
// its pair (ITU-T H.264, figure 6-1), and 1 1 down.
constexpr int kChromaWeightBits = 3;
constexpr int kChromaShift = kFractionBits + kChromaWeightBits;
constexpr int kChromaOffset = (128 << kChromaShift) + (1 << (kChromaShift - 1));

void convert_luma_row(const std::uint8_t* rgb, int width, std::uint8_t* y) {
    for (int x = 0; x < width; ++x, rgb += 3) {
        y[x] = static_cast<std::uint8_t>(
            (kLumaR * rgb[0] + kLumaG * rgb[1] + kLumaB * rgb[2] + kLumaOffset) >> kFractionBits);
    }
}

void convert_chroma_row(const std::uint8_t* upper, const std::uint8_t* lower, int width,
                        std::uint8_t* cb, std::uint8_t* cr) {
    for (int x = 0; x < width; x += 2) {
        const int left = x == 0 ? 0 : -3;  // the first column is its own left neighbour
        std::array<int, 3> sum{};          // of 8 pixels
        for (int c = 0; c < 3; ++c) {
            const std::uint8_t* a = upper + 3 * x + c;
            const std::uint8_t* b = lower + 3 * x + c;
            sum[c] = a[left] + b[left] + 2 * (a[0] + b[0]) + a[3] + b[3];
        }
        const int blue_difference = kCbR * sum[0] + kCbG * sum[1] + kCbB * sum[2] + kChromaOffset;
        const int red_difference = kCrR * sum[0] + kCrG * sum[1] + kCrB * sum[2] + kChromaOffset;
        cb[x / 2] = static_cast<std::uint8_t>(blue_difference >> kChromaShift);
        cr[x / 2] = static_cast<std::uint8_t>(red_difference >> kChromaShift);
    }
}

}  // namespace

void rgb_to_yuv420(const Frame& frame, const Planes420& planes) {
    const std::ptrdiff_t stride = static_cast<std::ptrdiff_t>(frame.width) * 3;
    for (int row = 0; row < frame.height; row += 2) {
        const std::uint8_t* upper = frame.rgb.data() + row * stride;
        const std::uint8_t* lower = upper + stride;
        convert_luma_row(upper, frame.width, planes.y + row * planes.y_stride);
        convert_luma_row(lower, frame.width, planes.y + (row + 1) * planes.y_stride);
        convert_chroma_row(upper, lower, frame.width, planes.cb + row / 2 * planes.cb_stride,
                           planes.cr + row / 2 * planes.cr_stride);
    }
}

}  // namespace zoetrope
