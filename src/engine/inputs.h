// A request's pictures and videos as pixels.
//
// Private to the engine's sources. Pictures are read, and videos decoded once from end to end, when
// the request is resolved, so that a broken one is told before any work. Any thread.
#pragma once

#include "base/frames.h"
#include "engine/engine.h"

#include <ATen/core/Tensor.h>

#include <vector>

namespace zoetrope {

// Opens what the request names. At most max_frames frames of each video (0: all). Errors: those of
// load_picture and FrameSequence, with the flag's name; bad_request for videos that differ in
// length.
// driven: `video` is a driving clip, which is left to DrivingClip.
VisualInputs read_inputs(const Request& request, int max_frames, bool driven);

// Stretched to that size as Pillow's Lanczos does, in [-1, 1]: what Diffusers' VideoProcessor gives
// the VAE. -> [3, height, width] fp32
at::Tensor to_pixels(const Frame& frame, int height, int width);

// Fitted into that size with its proportions kept (bilinear), white around it: what WanVACEPipeline
// does with reference pictures. -> [3, height, width] fp32 in [-1, 1]
// multiple: the frame is cut to it first, as VideoProcessor does.
at::Tensor to_canvas(const Frame& frame, int height, int width, int multiple);

}  // namespace zoetrope
