// Resizing of 8-bit RGB pictures, bit for bit as the Image.resize of Pillow 13 does it.
//
// Each pass (along the rows, along the columns; the other way round where a picture gets much
// flatter) weighs pixels with the filter's values in fixed point and rounds to 8 bits; when it
// shrinks, the filter is as much wider. The formulas are those of Pillow's Resample.c and, for
// `nearest`, Geometry.c. Pure function, any thread. Errors: bad_request for sizes below 1 or beyond
// what a picture may have.
#pragma once

#include "base/frames.h"

namespace zoetrope {

Frame resize(const Frame& picture, int width, int height, ResizeFilter filter);

}  // namespace zoetrope
