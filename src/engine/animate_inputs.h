// Wan-Animate's pictures as the model takes them.
//
// Private to the engine's sources. Any thread.
#pragma once

#include "base/frames.h"

#include <ATen/core/Tensor.h>

namespace zoetrope {

// Fitted into that size with its proportions kept, black around it: what WanAnimatePipeline does
// with the character's picture. (It asks its processor for bilinear resizing and gets Lanczos: the
// base class sets the filter anew.) -> [3, height, width] fp32, [-1, 1]
at::Tensor to_filled(const Frame& frame, int height, int width);

// Brightness of a mask, stretched to that size. -> [height, width] fp32 in [0, 1]
at::Tensor to_mask(const Frame& frame, int height, int width);

}  // namespace zoetrope
