// The part of a frame that the face video shows.
//
// Pure functions, any thread.
#pragma once

#include "preprocess/skeleton.h"

#include <optional>
#include <span>

namespace zoetrope::preprocess {

inline constexpr int kFaceSide = 512;  // pixels of the face video

// Around the 68 points of the face, 1.3 times their area, three quarters of what is added in height
// above them. Nothing where the face was not found; not cut to the picture.
std::optional<Box> face_box_of(const WholeBody& points);

// Where only the head's five points of the body were found: a square around them.
std::optional<Box> head_box_of(const WholeBody& points);

// The mean of boxes, the weight falling with the distance from boxes[centre]; boxes that are not
// there count nothing.
std::optional<Box> smoothed(std::span<const std::optional<Box>> boxes, std::size_t centre);

}  // namespace zoetrope::preprocess
