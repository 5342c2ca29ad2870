#include "media/webp_frames.h"

#include "base/error.h"

#include <webp/decode.h>
#include <webp/demux.h>

#include <algorithm>
#include <string_view>

namespace zoetrope::picture {
namespace {

std::string_view chunk_of(const WebPDemuxer* demuxer, const char* name) {
    WebPChunkIterator chunk;
    if (WebPDemuxGetChunk(demuxer, name, 1, &chunk) == 0) return {};
    const std::string_view bytes(reinterpret_cast<const char*>(chunk.chunk.bytes),
                                 chunk.chunk.size);  // within the file
    WebPDemuxReleaseChunkIterator(&chunk);
    return bytes;
}

}  // namespace

void WebpFrames::FreeDecoder::operator()(WebPAnimDecoder* decoder) const {
    WebPAnimDecoderDelete(decoder);
}

WebpFrames::WebpFrames(const File& file) {
    WebPBitstreamFeatures features;
    const bool known =
        WebPGetFeatures(file.bytes.data(), file.bytes.size(), &features) == VP8_STATUS_OK;
    ZT_CHECK(known, io, "the WebP '{}' is broken: its header cannot be read", file.name);
    check_size(file, features.width, features.height);

    WebPAnimDecoderOptions options;
    ZT_CHECK(WebPAnimDecoderOptionsInit(&options) != 0, internal,
             "libwebpdemux is of another version than its header");
    options.color_mode = MODE_RGBA;
    const WebPData data{.bytes = file.bytes.data(), .size = file.bytes.size()};
    decoder_.reset(WebPAnimDecoderNew(&data, &options));
    WebPAnimInfo info;
    ZT_CHECK(decoder_ != nullptr && WebPAnimDecoderGetInfo(decoder_.get(), &info) != 0, io,
             "the WebP '{}' is broken or truncated", file.name);
    check_size(file, info.canvas_width, info.canvas_height);
    width_ = static_cast<int>(info.canvas_width);
    height_ = static_cast<int>(info.canvas_height);
    count_ = static_cast<int>(info.frame_count);
    const WebPDemuxer* demuxer = WebPAnimDecoderGetDemuxer(decoder_.get());
    const std::string_view exif = chunk_of(demuxer, "EXIF");
    orientation_ = orientation_of({reinterpret_cast<const std::uint8_t*>(exif.data()), exif.size()},
                                  chunk_of(demuxer, "XMP "));
}

WebpFrames::~WebpFrames() = default;

std::int64_t WebpFrames::milliseconds() const {
    const WebPDemuxer* demuxer = WebPAnimDecoderGetDemuxer(decoder_.get());
    WebPIterator frame;
    std::int64_t sum = 0;
    if (WebPDemuxGetFrame(demuxer, 1, &frame) == 0) return 0;
    do sum += frame.duration;
    while (WebPDemuxNextFrame(&frame) != 0);
    WebPDemuxReleaseIterator(&frame);
    return sum;
}

bool WebpFrames::has_more() const { return WebPAnimDecoderHasMoreFrames(decoder_.get()) != 0; }

std::optional<Frame> WebpFrames::next() {
    std::uint8_t* canvas = nullptr;  // the decoder's
    if (!has_more() || WebPAnimDecoderGetNext(decoder_.get(), &canvas, &end_) == 0)
        return std::nullopt;
    Frame frame(width_, height_);
    for (std::size_t i = 0; i < frame.rgb.size() / 3; ++i)
        std::copy_n(canvas + 4 * i, 3, frame.rgb.data() + 3 * i);
    return frame;
}

}  // namespace zoetrope::picture
