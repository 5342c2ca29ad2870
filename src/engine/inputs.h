// A request's pictures and videos as pixels.
//
// Private to the engine's sources. Files are read when the request is resolved, so that a broken
// one is told before any work; what is kept are 8-bit frames. Any thread.
#pragma once

#include "base/frames.h"
#include "engine/engine.h"

#include <ATen/core/Tensor.h>

#include <vector>

namespace zoetrope {

// Reads what the request names. At most max_frames frames of each video (0: all). Errors: those of
// read_picture and VideoReader, with the flag's name; bad_request for videos that differ in length.
VisualInputs read_inputs(const Request& request, int max_frames);

// Stretched to that size as Pillow's Lanczos does, in [-1, 1]: what Diffusers' VideoProcessor gives
// the VAE. -> [3, height, width] fp32
at::Tensor to_pixels(const Frame& frame, int height, int width);

// Fitted into that size with its proportions kept (bilinear), white around it: what WanVACEPipeline
// does with reference pictures. -> [3, height, width] fp32 in [-1, 1]
// multiple: the frame is cut to it first, as VideoProcessor does.
at::Tensor to_canvas(const Frame& frame, int height, int width, int multiple);

}  // namespace zoetrope
