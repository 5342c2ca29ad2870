// The pose picture as the Wan-Animate models were trained to see it.
//
// Limbs are flat ellipses in the colours of OpenPose at 0.6 of their brightness, joints discs in
// full colour, hands lines around the colour circle with blue joints; no face. Widths follow the
// picture's shorter side. Pixel for pixel what the Wan2.2 repository's drawer gives for the same
// points.
#pragma once

#include "base/frames.h"
#include "preprocess/skeleton.h"

namespace zoetrope::preprocess {

// Points with a lower score are not drawn, nor limbs that end in them.
inline constexpr float kDrawnScore = 0.5F;

// Draws on the picture; points that are not numbers or far outside are left out.
void draw_pose(Frame& picture, const DrawnPose& pose);

}  // namespace zoetrope::preprocess
