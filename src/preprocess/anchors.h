// What MediaPipe's detectors give: boxes and key points relative to a grid of anchors.
//
// SSD with anchors of one size (Bazarevsky et al., BlazeFace, 2019). Positions are shares of the
// network's square input. Pure functions, any thread.
#pragma once

#include "preprocess/skeleton.h"

#include <span>
#include <vector>

namespace zoetrope::preprocess {

struct Anchor {
    float x = 0;
    float y = 0;
};

// strides: of each layer, in pixels of the input; two anchors per cell and layer, and layers of one
// stride that follow each other share their cells.
std::vector<Anchor> make_anchors(int input_side, std::span<const int> strides);

struct Detection {
    Box box;
    float score = 0;
    std::vector<Point> key_points{};
};

struct DetectorOutput {
    std::span<const float> regressions;  // [anchors, 4 + 2 * key points]: centre, size, points
    std::span<const float> logits;       // [anchors]
    int input_side = 0;                  // pixels, the unit of the regressions
    float least_score = 0.5F;
};

// Detections that overlap by more than 0.3 are averaged by their scores; the best first.
std::vector<Detection> decode_detections(const DetectorOutput& output,
                                         std::span<const Anchor> anchors);

float sigmoid(float logit);

}  // namespace zoetrope::preprocess
