#include "media/echo.h"

#include <utility>

namespace zoetrope::ffmpeg {
namespace {

constexpr const char* kDoing = "the written frames cannot be decoded again";

}  // namespace

EchoDecoder::EchoDecoder(const AVCodecContext& encoder, std::function<void(Frame)> sink)
    : sink_(std::move(sink)) {
    const AVCodec* codec = avcodec_find_decoder(encoder.codec_id);
    ZT_CHECK(codec != nullptr, unsupported, "{}: this FFmpeg has no decoder for {}", kDoing,
             avcodec_get_name(encoder.codec_id));
    decoder_ = made(CodecContext(avcodec_alloc_context3(codec)));
    const ParametersHandle parameters = new_parameters();
    check(avcodec_parameters_from_context(parameters.get(), &encoder), ErrorKind::out_of_memory,
          kDoing);
    check(avcodec_parameters_to_context(decoder_.get(), parameters.get()), ErrorKind::out_of_memory,
          kDoing);
    decoder_->thread_count = 1;
    check(avcodec_open2(decoder_.get(), codec, nullptr), ErrorKind::unsupported, kDoing);
}

void EchoDecoder::push(const AVPacket* packet) {
    check(avcodec_send_packet(decoder_.get(), packet), ErrorKind::io, kDoing);
    while (true) {
        const int result = avcodec_receive_frame(decoder_.get(), picture_.get());
        if (result == AVERROR(EAGAIN) || result == AVERROR_EOF) return;
        check(result, ErrorKind::io, kDoing);
        sink_(converter_.convert(*picture_, color_space_of(*picture_, false), {}, picture_->width,
                                 picture_->height));
    }
}

}  // namespace zoetrope::ffmpeg
