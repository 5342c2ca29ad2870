// People in a picture: the 133 points of COCO-WholeBody, and the 20 + 21 + 21 that Wan-Animate
// draws.
//
// Points are in pixels of the picture, the centre of its first pixel at (0, 0); scores are in [0,
// 1] (ViTPose's may exceed 1). Plain values.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

namespace zoetrope::preprocess {

struct Point {
    float x = 0;
    float y = 0;
    float score = 0;
};

// COCO-WholeBody's order (Jin et al., ECCV 2020): 17 of the body, 6 of the feet, 68 of the face, 21
// of each hand.
inline constexpr std::size_t kWholeBodyPoints = 133;
inline constexpr std::size_t kFirstFacePoint = 23;
inline constexpr std::size_t kFacePoints = 68;
inline constexpr std::size_t kFirstLeftHandPoint = 91;
inline constexpr std::size_t kFirstRightHandPoint = 112;
inline constexpr std::size_t kHandPoints = 21;

using WholeBody = std::array<Point, kWholeBodyPoints>;

struct Box {
    float x0 = 0;
    float y0 = 0;
    float x1 = 0;
    float y1 = 0;

    float width() const { return x1 - x0; }
    float height() const { return y1 - y0; }
    float area() const { return std::max(width(), 0.0F) * std::max(height(), 0.0F); }
};

// Intersection over union; 0 where both are empty.
float overlap_of(const Box& a, const Box& b);

// A square or rectangle that may be turned: what a network sees of a picture.
struct Region {
    float x = 0;  // centre
    float y = 0;
    float width = 0;
    float height = 0;
    float angle = 0;  // radians, clockwise on the screen

    // From the unit square of the region ((0, 0) its upper left corner) to the picture.
    Point to_picture(float u, float v) const {
        const float c = std::cos(angle);
        const float s = std::sin(angle);
        const float dx = (u - 0.5F) * width;
        const float dy = (v - 0.5F) * height;
        return {x + dx * c - dy * s, y + dx * s + dy * c, 0};
    }
};

// A person's outline in 8 bit, 255 inside, over a region of the picture.
struct PersonMask {
    Region region;
    int width = 0;  // 0: none
    int height = 0;
    std::vector<std::uint8_t> alpha{};  // [height, width]
};

struct Person {
    Box box;          // of the detector, or around the points
    float score = 0;  // of the detection
    // Enough to follow somebody from here on; others are believed where they go on in time.
    bool sure = true;
    WholeBody points{};
    PersonMask mask{};
};

// What Wan-Animate draws: nose, neck, shoulders, elbows, wrists, hips, knees, ankles, eyes, ears,
// toes (right before left but for the toes), and the hands.
inline constexpr std::size_t kBodyPoints = 20;

struct DrawnPose {
    std::array<Point, kBodyPoints> body{};
    std::array<Point, kHandPoints> left_hand{};
    std::array<Point, kHandPoints> right_hand{};
};

// Points that are means (the neck of the shoulders, a toe of the big and the small one) have the
// means' score too.
DrawnPose drawn_pose_of(const WholeBody& points);

// The box around the points of at least that score; nothing where there are none.
std::optional<Box> box_around(const WholeBody& points, float least_score);

}  // namespace zoetrope::preprocess
