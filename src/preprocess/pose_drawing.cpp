#include "preprocess/pose_drawing.h"

#include "preprocess/canvas.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <optional>

namespace zoetrope::preprocess {
namespace {

struct Limb {
    std::uint8_t from;
    std::uint8_t to;
};

// Between the points of DrawnPose::body, in the order in which they are drawn.
constexpr std::array<Limb, 19> kLimbs = {{
    {1, 2},   {1, 5},                        // shoulders
    {2, 3},   {3, 4},                        // right arm
    {5, 6},   {6, 7},                        // left arm
    {1, 8},   {8, 9},   {9, 10},             // right leg
    {1, 11},  {11, 12}, {12, 13},            // left leg
    {1, 0},                                  // neck
    {0, 14},  {14, 16}, {0, 15},  {15, 17},  // head
    {13, 18}, {10, 19},                      // feet
}};

// Of limbs and of joints.
constexpr std::array<Color, kBodyPoints> kColors = {{
    {255, 0, 0},   {255, 85, 0},  {255, 170, 0}, {255, 255, 0}, {170, 255, 0},
    {85, 255, 0},  {0, 255, 0},   {0, 255, 85},  {0, 255, 170}, {0, 255, 255},
    {0, 170, 255}, {0, 85, 255},  {0, 0, 255},   {85, 0, 255},  {170, 0, 255},
    {255, 0, 255}, {255, 0, 170}, {255, 0, 85},  {200, 200, 0}, {100, 100, 0},
}};

constexpr Color kHandJoint = {0, 0, 255};
constexpr double kLimbBrightness = 0.6;
constexpr int kFingers = 5;
constexpr int kFingerBones = 4;
constexpr float kFarthest = 1e6F;  // pixels; points beyond are not drawn

bool drawn(const Point& point) {
    return point.score >= kDrawnScore && std::abs(point.x) < kFarthest &&
           std::abs(point.y) < kFarthest;
}

Pixel pixel_of(const Point& point) {
    return {static_cast<std::int64_t>(point.x), static_cast<std::int64_t>(point.y)};
}

// The hue's place in the colour circle, 0 to 1, at full saturation and brightness.
Color color_of_hue(double hue) {
    const int sixth = static_cast<int>(hue * 6);
    const double part = hue * 6 - sixth;
    const double falling = 1.0 - part;
    const double rising = 1.0 - (1.0 - part);
    constexpr double kFull = 1;
    constexpr std::array<std::array<int, 3>, 6> kWhich = {
        {{0, 1, 3}, {2, 0, 3}, {3, 0, 1}, {3, 2, 0}, {1, 3, 0}, {0, 3, 2}}};
    const std::array<double, 4> values = {kFull, rising, falling, 0};
    Color color{};
    for (std::size_t i = 0; i < 3; ++i) {
        const int which = kWhich[static_cast<std::size_t>(sixth % 6)][i];
        color[i] =
            static_cast<std::uint8_t>(std::lrint(values[static_cast<std::size_t>(which)] * 255));
    }
    return color;
}

void draw_limb(Frame& picture, const Point& a, const Point& b, const Color& full, int half_width) {
    // In double, as the repository has it: the cuts to whole numbers below hang on it.
    const double ax = a.x, ay = a.y, bx = b.x, by = b.y;
    const double length = std::sqrt((ay - by) * (ay - by) + (ax - bx) * (ax - bx));
    const double degrees = std::atan2(ay - by, ax - bx) * 180 / std::numbers::pi;
    const Pixel centre{static_cast<std::int64_t>((ax + bx) / 2),
                       static_cast<std::int64_t>((ay + by) / 2)};
    Color dimmed{};
    for (std::size_t i = 0; i < dimmed.size(); ++i)
        dimmed[i] = static_cast<std::uint8_t>(full[i] * kLimbBrightness);
    const auto outline = ellipse_outline(centre, static_cast<int>(length / 2), half_width,
                                         static_cast<int>(degrees));
    fill_polygon(picture, outline, dimmed);
}

void draw_hand(Frame& picture, const std::array<Point, kHandPoints>& hand, int thickness) {
    const auto inside = [](const Point& point) {
        const Pixel pixel = pixel_of(point);
        return drawn(point) && pixel.x > 0 && pixel.y > 0;
    };
    constexpr int kBones = kFingers * kFingerBones;
    for (int bone = 0; bone < kBones; ++bone) {
        const Point& to = hand[static_cast<std::size_t>(bone + 1)];
        const Point& from = hand[static_cast<std::size_t>(bone % kFingerBones == 0 ? 0 : bone)];
        if (!inside(from) || !inside(to)) continue;
        draw_line(picture, pixel_of(from), pixel_of(to),
                  color_of_hue(bone / static_cast<double>(kBones)), thickness);
    }
    for (const Point& point : hand) {
        if (inside(point)) fill_disc(picture, pixel_of(point), thickness, kHandJoint);
    }
}

}  // namespace

void draw_pose(Frame& picture, const DrawnPose& pose) {
    const int width = std::max(std::min(picture.width, picture.height) / 200 - 1, 1);
    for (std::size_t i = 0; i < kLimbs.size(); ++i) {
        const Point& from = pose.body[kLimbs[i].from];
        const Point& to = pose.body[kLimbs[i].to];
        if (drawn(from) && drawn(to)) draw_limb(picture, from, to, kColors[i], width);
    }
    for (std::size_t i = 0; i < kBodyPoints; ++i) {
        if (drawn(pose.body[i])) fill_disc(picture, pixel_of(pose.body[i]), width, kColors[i]);
    }
    const int hand_width = std::max(width / 2, 1);
    draw_hand(picture, pose.left_hand, hand_width);
    draw_hand(picture, pose.right_hand, hand_width);
}

}  // namespace zoetrope::preprocess
