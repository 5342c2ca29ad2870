// YOLOv10 and ViTPose in ONNX files, as a Wan-Animate checkpoint's process_checkpoint folder has
// them.
//
// The two parts of their use beside inference: boxes from the detector's rows, points from heat
// maps. Pure functions, any thread.
#pragma once

#include "base/frames.h"
#include "preprocess/skeleton.h"

#include <span>
#include <vector>

namespace zoetrope::preprocess {

// rows: [n, 6] of x0, y0, x1, y1 in pixels of the square input, score, class; people are class 0.
// The picture was stretched to the square. The largest first, at most kMostPeople; boxes are whole
// pixels, as the reference has them.
struct DetectorRows {
    std::span<const float> rows;
    int input_side = 640;
    int picture_width = 0;
    int picture_height = 0;
};
struct DetectedBox {
    Box box;
    float score = 0;
};
std::vector<DetectedBox> people_of(const DetectorRows& detections);

// The part of a picture that the pose network sees: around a box, in the network's shape, a quarter
// larger. Its corners are whole pixels and may lie outside.
struct PoseCrop {
    float centre_x = 0;
    float centre_y = 0;
    float width = 0;  // before rounding: what heat maps are scaled by
    float height = 0;
    int x0 = 0;
    int y0 = 0;
    int x1 = 0;
    int y1 = 0;
};
PoseCrop pose_crop(const Box& box, int input_width, int input_height);

// The crop, black outside the picture, resized and normalised. into: [3, height, width]. Channels
// in reverse order, as the reference feeds them.
void sample_crop(const Frame& picture, const PoseCrop& crop, int width, int height,
                 std::span<float> into);

// heat_maps: [points, height, width]. The maximum, moved to the top of a parabola through the
// logarithm of the smoothed map (Zhang et al., Distribution-Aware Coordinate Representation, 2020);
// the score is the maximum. points: one per map.
void points_of(std::span<const float> heat_maps, int width, int height, const PoseCrop& crop,
               std::span<Point> points);

}  // namespace zoetrope::preprocess
