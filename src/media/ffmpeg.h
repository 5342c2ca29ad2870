// What the files of this folder share of FFmpeg: owning handles, its messages as our errors.
//
// FFmpeg has one log callback per process; it is installed once and prints nothing. While a
// LogCapture lives, what FFmpeg complains about on this thread is kept for the error message.
#pragma once

#include "base/error.h"

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libswscale/swscale.h>
}

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope::ffmpeg {

// Calls a free function of FFmpeg that takes the address of the pointer.
template <auto Free>
struct FreeByAddress {
    template <typename T>
    void operator()(T* pointer) const {
        Free(&pointer);
    }
};
struct FreeScaler {
    void operator()(SwsContext* scaler) const { sws_freeContext(scaler); }
};

using CodecContext = std::unique_ptr<AVCodecContext, FreeByAddress<avcodec_free_context>>;
using PictureHandle = std::unique_ptr<AVFrame, FreeByAddress<av_frame_free>>;
using PacketHandle = std::unique_ptr<AVPacket, FreeByAddress<av_packet_free>>;
using ParametersHandle = std::unique_ptr<AVCodecParameters, FreeByAddress<avcodec_parameters_free>>;
using InputContext = std::unique_ptr<AVFormatContext, FreeByAddress<avformat_close_input>>;
using Scaler = std::unique_ptr<SwsContext, FreeScaler>;

// Made at the top of every public call that enters FFmpeg; they may nest.
class LogCapture {
public:
    LogCapture();
    ~LogCapture();
    LogCapture(const LogCapture&) = delete;
    LogCapture& operator=(const LogCapture&) = delete;

    void add(std::string_view text);

    // The last lines that the innermost capture of this thread has, as one; may be empty.
    static std::string text();

private:
    LogCapture* outer_;
    std::vector<std::string> lines_;
    std::string piece_;  // of a line that has not ended
};

// "No space left on device" for -ENOSPC, with the captured complaints behind it in brackets.
std::string describe(int error_code);

// Throws Error{kind, "<what>: <describe(code)>"} where code is negative, else returns it.
int check(int code, ErrorKind kind, std::string_view what);

// For the constructors of handles: throws where FFmpeg gave no memory.
template <typename Handle>
Handle made(Handle handle) {
    ZT_CHECK(handle != nullptr, out_of_memory, "FFmpeg could not allocate its buffers");
    return handle;
}

PacketHandle new_packet();
PictureHandle new_picture();
ParametersHandle new_parameters();

// The rational frame rate that a rounded decimal means: 23.976 and 23.98 are 24000/1001, 29.97 is
// 30000/1001, 16 is 16/1, 12.5 is 25/2.
AVRational frame_rate(double fps);

}  // namespace zoetrope::ffmpeg
