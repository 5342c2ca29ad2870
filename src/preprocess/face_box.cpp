#include "preprocess/face_box.h"

#include <cmath>

namespace zoetrope::preprocess {
namespace {

constexpr float kAreaGrowth = 1.3F;
constexpr float kLeastScore = 0.3F;  // of the face's points, in the mean, and of the head's points
constexpr float kHeadSide = 1.6F;    // of the square, in widths of the head's points

}  // namespace

std::optional<Box> face_box_of(const WholeBody& points) {
    const auto first = points.begin() + kFirstFacePoint;
    const auto last = first + kFacePoints;
    Box box{first->x, first->y, first->x, first->y};
    float score = 0;
    for (auto point = first; point != last; ++point) {
        score += point->score / static_cast<float>(kFacePoints);
        box = {std::min(box.x0, point->x), std::min(box.y0, point->y), std::max(box.x1, point->x),
               std::max(box.y1, point->y)};
    }
    if (!(score >= kLeastScore) || !(box.width() > 0) || !(box.height() > 0)) return std::nullopt;
    const float growth = std::sqrt(kAreaGrowth) - 1;  // of both sides
    const float aside = box.width() * growth / 2;
    const float below = box.height() * growth / 4;
    return Box{box.x0 - aside, box.y0 - 3 * below, box.x1 + aside, box.y1 + below};
}

std::optional<Box> head_box_of(const WholeBody& points) {
    constexpr std::size_t kHeadPoints = 5;  // nose, eyes, ears
    std::optional<Box> box;
    for (std::size_t i = 0; i < kHeadPoints; ++i) {
        const Point& point = points[i];
        if (point.score < kLeastScore) continue;
        if (!box) box = Box{point.x, point.y, point.x, point.y};
        box = Box{std::min(box->x0, point.x), std::min(box->y0, point.y),
                  std::max(box->x1, point.x), std::max(box->y1, point.y)};
    }
    if (!box || !(std::max(box->width(), box->height()) > 0)) return std::nullopt;
    const float half = kHeadSide * std::max(box->width(), box->height()) / 2;
    const float x = (box->x0 + box->x1) / 2;
    const float y = (box->y0 + box->y1) / 2;
    return Box{x - half, y - half, x + half, y + half};
}

std::optional<Box> smoothed(std::span<const std::optional<Box>> boxes, std::size_t centre) {
    Box sum;
    float total = 0;
    for (std::size_t i = 0; i < boxes.size(); ++i) {
        if (!boxes[i]) continue;
        const std::size_t away = i > centre ? i - centre : centre - i;
        const float weight = 1.0F / (1.0F + static_cast<float>(away));
        sum = {sum.x0 + weight * boxes[i]->x0, sum.y0 + weight * boxes[i]->y0,
               sum.x1 + weight * boxes[i]->x1, sum.y1 + weight * boxes[i]->y1};
        total += weight;
    }
    if (!(total > 0)) return std::nullopt;
    return Box{sum.x0 / total, sum.y0 / total, sum.x1 / total, sum.y1 / total};
}

}  // namespace zoetrope::preprocess
