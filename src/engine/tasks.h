// Which tasks a model can do, and which of them a request asks for.
//
// Pure functions on plain values. A model's kind follows from its config; a request names its
// inputs; what does not go together is refused with what the model takes.
#pragma once

#include "engine/request.h"

#include <string_view>

namespace zoetrope {

enum class ModelKind {
    text,              // a prompt; a source video too (Wan2.1 and Wan2.2 T2V)
    image,             // a first picture as channels, perhaps a last one (I2V, FLF2V, Fun-InP)
    text_or_image,     // a prompt, or a first picture as a known frame (Wan2.2 TI2V)
    control,           // control video, mask and reference pictures, all optional (VACE)
    animate,           // a character's picture, a driving clip or what is made of it (Wan-Animate)
    control_channels,  // control video and perhaps a first picture, as channels (Fun-Control)
};

// What a model of that kind takes, as a part of a sentence.
std::string_view inputs_of(ModelKind kind);

// The task of a request. two_pictures: the model's picture tokens are those of a first and a last
// picture. num_frames: as asked for or by default, rounded. Errors: bad_request where the inputs do
// not fit the model or the task, unsupported for tasks that are not built.
Task resolve_task(ModelKind kind, bool two_pictures, const Request& request, int num_frames);

// Whether the task or the inputs ask for a picture that is moved by a video of somebody: a clip
// with a picture, or what is made of a clip.
bool wants_animation(const Request& request);

}  // namespace zoetrope
