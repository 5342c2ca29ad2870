#include "preprocess/skeleton.h"

namespace zoetrope::preprocess {
namespace {

// Each drawn point is the mean of two points of COCO-WholeBody (the same twice for most).
constexpr std::array<std::array<std::uint8_t, 2>, kBodyPoints> kBodySources = {{
    {0, 0},                                  // nose
    {6, 5},                                  // neck: between the shoulders
    {6, 6},                                  // right shoulder, elbow, wrist
    {8, 8},   {10, 10}, {5, 5},              // left shoulder, elbow, wrist
    {7, 7},   {9, 9},   {12, 12},            // right hip, knee, ankle
    {14, 14}, {16, 16}, {11, 11},            // left hip, knee, ankle
    {13, 13}, {15, 15}, {2, 2},              // right eye, left eye, right ear, left ear
    {1, 1},   {4, 4},   {3, 3},   {17, 18},  // left toes, right toes
    {20, 21},
}};

}  // namespace

float overlap_of(const Box& a, const Box& b) {
    const Box both{std::max(a.x0, b.x0), std::max(a.y0, b.y0), std::min(a.x1, b.x1),
                   std::min(a.y1, b.y1)};
    const float joint = both.width() > 0 && both.height() > 0 ? both.area() : 0.0F;
    const float either = a.area() + b.area() - joint;
    return either > 0 ? joint / either : 0.0F;
}

DrawnPose drawn_pose_of(const WholeBody& points) {
    DrawnPose pose;
    for (std::size_t i = 0; i < kBodyPoints; ++i) {
        const Point& a = points[kBodySources[i][0]];
        const Point& b = points[kBodySources[i][1]];
        pose.body[i] = {(a.x + b.x) / 2, (a.y + b.y) / 2, (a.score + b.score) / 2};
    }
    std::copy_n(points.begin() + kFirstLeftHandPoint, kHandPoints, pose.left_hand.begin());
    std::copy_n(points.begin() + kFirstRightHandPoint, kHandPoints, pose.right_hand.begin());
    return pose;
}

std::optional<Box> box_around(const WholeBody& points, float least_score) {
    std::optional<Box> box;
    for (const Point& point : points) {
        if (point.score < least_score) continue;
        if (!box) box = Box{point.x, point.y, point.x, point.y};
        box->x0 = std::min(box->x0, point.x);
        box->y0 = std::min(box->y0, point.y);
        box->x1 = std::max(box->x1, point.x);
        box->y1 = std::max(box->y1, point.y);
    }
    return box;
}

}  // namespace zoetrope::preprocess
