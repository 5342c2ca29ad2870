// RGB to Y'CbCr as video files hold it: BT.709 matrix, limited range, 4:2:0, chroma sited left.
//
// Exact to half a code value per sample (integer arithmetic, rounded to nearest), so that bytes do
// not depend on the machine. Pure function, any thread.
#pragma once

#include "base/frames.h"

#include <cstddef>
#include <cstdint>

namespace zoetrope {

// The three planes of a picture; strides in bytes. The caller owns the memory.
struct Planes420 {
    std::uint8_t* y = nullptr;   // [height, width]
    std::uint8_t* cb = nullptr;  // [height / 2, width / 2]
    std::uint8_t* cr = nullptr;  // [height / 2, width / 2]
    std::ptrdiff_t y_stride = 0;
    std::ptrdiff_t cb_stride = 0;
    std::ptrdiff_t cr_stride = 0;
};

// frame: even width and height.
void rgb_to_yuv420(const Frame& frame, const Planes420& planes);

}  // namespace zoetrope
