// What a reader of a video will see, while it is written. Inside media only.
//
// An EchoDecoder decodes an encoder's packets again and hands the frames out as the reader of the
// finished file does, bit for bit. One thread. Errors: io, unsupported (an FFmpeg without the
// decoder).
#pragma once

#include "base/frames.h"
#include "media/ffmpeg.h"
#include "media/to_rgb.h"

#include <functional>

namespace zoetrope::ffmpeg {

class EchoDecoder {
public:
    // encoder: opened, with global headers.
    EchoDecoder(const AVCodecContext& encoder, std::function<void(Frame)> sink);

    // The packets in their order; null: the end.
    void push(const AVPacket* packet);

private:
    CodecContext decoder_;
    PictureHandle picture_ = new_picture();
    RgbConverter converter_;
    std::function<void(Frame)> sink_;
};

}  // namespace zoetrope::ffmpeg
