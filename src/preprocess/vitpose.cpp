#include "preprocess/vitpose.h"

#include "base/error.h"
#include "preprocess/estimator.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace zoetrope::preprocess {
namespace {

constexpr float kLeastScore = 0.05F;  // of a detection
constexpr float kSameObject = 0.5F;   // overlap above which the weaker of two boxes is dropped
constexpr float kSmallPerson = 0.4F;  // of the longest side of all: shorter boxes are dropped
constexpr float kCropMargin = 1.25F;
constexpr int kBlurRadius = 5;  // pixels of the heat map
constexpr double kBlurSigma = 2.0;
constexpr float kLeastHeat = 1e-10F;  // below which the logarithm is not taken
// ImageNet's, in the order in which they are applied.
constexpr std::array<double, 3> kMean = {0.485, 0.456, 0.406};
constexpr std::array<double, 3> kDeviation = {0.229, 0.224, 0.225};

float longest_side(const Box& box) { return std::max(box.width(), box.height()); }

// Python's round: halves to even.
int rounded(double value) { return static_cast<int>(std::nearbyint(value)); }

std::array<float, 2 * kBlurRadius + 1> blur_weights() {
    std::array<double, 2 * kBlurRadius + 1> exact{};
    double total = 0;
    for (int i = -kBlurRadius; i <= kBlurRadius; ++i) {
        const double value = std::exp(-0.5 * i * i / (kBlurSigma * kBlurSigma));
        exact[static_cast<std::size_t>(i + kBlurRadius)] = value;
        total += value;
    }
    std::array<float, 2 * kBlurRadius + 1> weights{};
    for (std::size_t i = 0; i < weights.size(); ++i)
        weights[i] = static_cast<float>(exact[i] / total);
    return weights;
}

// Smoothed with zeros around it. Sums are those of OpenCV's GaussianBlur to the last bit: where a
// map has no clear maximum, the step below multiplies their rounding by thousands.
void blur(std::span<const float> map, int width, int height, std::vector<float>& across,
          std::vector<float>& out) {
    static const auto weights = blur_weights();
    across.assign(map.size(), 0);
    out.assign(map.size(), 0);
    const auto row_of = [width](auto* data, int y) {
        return data + static_cast<std::size_t>(y) * static_cast<std::size_t>(width);
    };
    const auto weight = [](int k) { return weights[static_cast<std::size_t>(k + kBlurRadius)]; };
    for (int y = 0; y < height; ++y) {
        const float* row = row_of(map.data(), y);
        float* target = row_of(across.data(), y);
        for (int x = 0; x < width; ++x) {
            float sum = 0;
            for (int k = std::max(-kBlurRadius, -x); k <= std::min(kBlurRadius, width - 1 - x); ++k)
                sum = std::fma(row[x + k], weight(k), sum);
            target[x] = sum;
        }
    }
    const std::vector<float> zeros(static_cast<std::size_t>(width));
    const auto row_or_zeros = [&](int y) -> const float* {
        return y >= 0 && y < height ? row_of(across.data(), y) : zeros.data();
    };
    for (int y = 0; y < height; ++y) {
        float* target = row_of(out.data(), y);
        const float* middle = row_or_zeros(y);
        for (int x = 0; x < width; ++x) target[x] = middle[x] * weight(0);
        for (int k = 1; k <= kBlurRadius; ++k) {
            const float* above = row_or_zeros(y - k);
            const float* below = row_or_zeros(y + k);
            for (int x = 0; x < width; ++x)
                target[x] = std::fma(above[x] + below[x], weight(k), target[x]);
        }
    }
}

// One step of Newton's method from (x, y), which lies two pixels or more from the border.
template <typename Heat>
Point top_near(int x, int y, const Heat& heat) {
    const double dx = 0.5 * (heat(x + 1, y) - heat(x - 1, y));
    const double dy = 0.5 * (heat(x, y + 1) - heat(x, y - 1));
    const double dxx = 0.25 * (heat(x + 2, y) - 2 * heat(x, y) + heat(x - 2, y));
    const double dyy = 0.25 * (heat(x, y + 2) - 2 * heat(x, y) + heat(x, y - 2));
    const double dxy =
        0.25 * (heat(x + 1, y + 1) - heat(x + 1, y - 1) - heat(x - 1, y + 1) + heat(x - 1, y - 1));
    const double determinant = dxx * dyy - dxy * dxy;
    if (determinant == 0) return {static_cast<float>(x), static_cast<float>(y), 0};
    return {static_cast<float>(x - (dyy * dx - dxy * dy) / determinant),
            static_cast<float>(y - (dxx * dy - dxy * dx) / determinant), 0};
}

}  // namespace

std::vector<DetectedBox> people_of(const DetectorRows& detections) {
    const float across =
        static_cast<float>(detections.picture_width) / static_cast<float>(detections.input_side);
    const float down =
        static_cast<float>(detections.picture_height) / static_cast<float>(detections.input_side);
    std::vector<DetectedBox> found;
    for (std::size_t i = 0; i + 6 <= detections.rows.size(); i += 6) {
        const auto row = detections.rows.subspan(i, 6);
        const bool numbers = std::all_of(
            row.begin(), row.end(), [](float v) { return std::isfinite(v) && std::abs(v) < 1e7F; });
        if (!numbers || row[4] < kLeastScore || row[5] != 0) continue;
        const Box box{std::trunc(row[0] * across), std::trunc(row[1] * down),
                      std::trunc(row[0] * across) + std::trunc((row[2] - row[0]) * across),
                      std::trunc(row[1] * down) + std::trunc((row[3] - row[1]) * down)};
        if (box.width() >= 1 && box.height() >= 1) found.push_back({box, row[4]});
    }
    std::stable_sort(found.begin(), found.end(),
                     [](const DetectedBox& a, const DetectedBox& b) { return a.score > b.score; });
    std::vector<DetectedBox> kept;
    float longest = 0;
    for (const DetectedBox& one : found) {
        const bool twice = std::any_of(kept.begin(), kept.end(), [&](const DetectedBox& other) {
            return overlap_of(other.box, one.box) > kSameObject;
        });
        if (twice) continue;
        kept.push_back(one);
        longest = std::max(longest, longest_side(one.box));
    }
    std::erase_if(kept, [longest](const DetectedBox& one) {
        return longest_side(one.box) < kSmallPerson * longest;
    });
    std::stable_sort(kept.begin(), kept.end(), [](const DetectedBox& a, const DetectedBox& b) {
        return a.box.area() > b.box.area();
    });
    if (kept.size() > kMostPeople) kept.resize(kMostPeople);
    return kept;
}

PoseCrop pose_crop(const Box& box, int input_width, int input_height) {
    const double shape = static_cast<double>(input_height) / input_width;
    const double height =
        std::max(box.width() * shape, static_cast<double>(box.height())) * kCropMargin;
    const double width = height / shape;
    const double x = (static_cast<double>(box.x0) + box.x1) / 2;
    const double y = (static_cast<double>(box.y0) + box.y1) / 2;
    PoseCrop crop{static_cast<float>(x), static_cast<float>(y), static_cast<float>(width),
                  static_cast<float>(height)};
    crop.x0 = rounded(x - width / 2);
    crop.y0 = rounded(y - height / 2);
    crop.x1 = std::max(rounded(x + width / 2), crop.x0 + 1);
    crop.y1 = std::max(rounded(y + height / 2), crop.y0 + 1);
    return crop;
}

void sample_crop(const Frame& picture, const PoseCrop& crop, int width, int height,
                 std::span<float> into) {
    const auto plane = static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
    ZT_CHECK(into.size() == 3 * plane, internal, "a pose network's input of {} numbers",
             into.size());
    const int crop_width = crop.x1 - crop.x0;
    const int crop_height = crop.y1 - crop.y0;
    const double across = static_cast<double>(crop_width) / width;
    const double down = static_cast<double>(crop_height) / height;
    // Neighbours are looked for in the crop: at its border the last pixel is repeated.
    const auto value = [&](int x, int y, std::size_t channel) -> float {
        const int px = crop.x0 + std::clamp(x, 0, crop_width - 1);
        const int py = crop.y0 + std::clamp(y, 0, crop_height - 1);
        if (px < 0 || py < 0 || px >= picture.width || py >= picture.height) return 0;
        return picture.rgb[(static_cast<std::size_t>(py) * static_cast<std::size_t>(picture.width) +
                            static_cast<std::size_t>(px)) *
                               3 +
                           channel];
    };
    for (int j = 0; j < height; ++j) {
        const double y = (j + 0.5) * down - 0.5;
        const int top = static_cast<int>(std::floor(y));
        const auto lower_share = static_cast<float>(y - top);
        for (int i = 0; i < width; ++i) {
            const double x = (i + 0.5) * across - 0.5;
            const int left = static_cast<int>(std::floor(x));
            const auto right_share = static_cast<float>(x - left);
            const std::size_t target =
                static_cast<std::size_t>(j) * static_cast<std::size_t>(width) +
                static_cast<std::size_t>(i);
            for (std::size_t c = 0; c < 3; ++c) {
                const std::size_t channel = 2 - c;
                // OpenCV's own rounding of a bilinear mean.
                const auto across_row = [&](int row) {
                    const float first = value(left, row, channel);
                    return std::fma(value(left + 1, row, channel) - first, right_share, first);
                };
                const float upper = across_row(top);
                const float mixed = std::fma(across_row(top + 1) - upper, lower_share, upper);
                into[c * plane + target] =
                    static_cast<float>((mixed / 255.0F - kMean[c]) / kDeviation[c]);
            }
        }
    }
}

void points_of(std::span<const float> heat_maps, int width, int height, const PoseCrop& crop,
               std::span<Point> points) {
    const auto plane = static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
    ZT_CHECK(heat_maps.size() == plane * points.size(), internal,
             "{} numbers for {} heat maps of {}x{}", heat_maps.size(), points.size(), width,
             height);
    std::vector<float> across, smooth;
    for (std::size_t i = 0; i < points.size(); ++i) {
        const auto map = heat_maps.subspan(i * plane, plane);
        const auto top = std::max_element(map.begin(), map.end());
        const auto place = static_cast<int>(top - map.begin());
        int x = place % width;
        int y = place / width;
        if (!(*top > 0)) x = y = -1;
        Point point{static_cast<float>(x), static_cast<float>(y), 0};
        if (x > 1 && y > 1 && x < width - 2 && y < height - 2) {
            blur(map, width, height, across, smooth);
            const float gain = *top / *std::max_element(smooth.begin(), smooth.end());
            const auto heat = [&](int column, int row) -> double {
                const float value =
                    smooth[static_cast<std::size_t>(row) * static_cast<std::size_t>(width) +
                           static_cast<std::size_t>(column)];
                return std::log(std::max(value * gain, kLeastHeat));
            };
            point = top_near(x, y, heat);
        }
        points[i] = {
            point.x * crop.width / static_cast<float>(width) + crop.centre_x - crop.width / 2,
            point.y * crop.height / static_cast<float>(height) + crop.centre_y - crop.height / 2,
            std::isfinite(*top) ? *top : 0};
        if (!std::isfinite(points[i].x) || !std::isfinite(points[i].y)) points[i] = {};
    }
}

}  // namespace zoetrope::preprocess
