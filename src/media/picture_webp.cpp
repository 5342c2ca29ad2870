// WebP by libwebp, lossy and lossless; of an animation the first frame on its canvas.
#include "base/error.h"
#include "media/picture_codecs.h"

#include <webp/decode.h>
#include <webp/demux.h>

#include <algorithm>
#include <memory>
#include <string_view>

namespace zoetrope::picture {
namespace {

struct FreeDecoder {
    void operator()(WebPAnimDecoder* decoder) const { WebPAnimDecoderDelete(decoder); }
};

std::string_view chunk_of(const WebPDemuxer* demuxer, const char* name) {
    WebPChunkIterator chunk;
    if (WebPDemuxGetChunk(demuxer, name, 1, &chunk) == 0) return {};
    const std::string_view bytes(reinterpret_cast<const char*>(chunk.chunk.bytes),
                                 chunk.chunk.size);  // within the file
    WebPDemuxReleaseChunkIterator(&chunk);
    return bytes;
}

}  // namespace

Stored decode_webp(const File& file) {
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
    const std::unique_ptr<WebPAnimDecoder, FreeDecoder> decoder(
        WebPAnimDecoderNew(&data, &options));
    WebPAnimInfo info;
    std::uint8_t* canvas = nullptr;  // the decoder's
    int milliseconds = 0;
    const bool decoded = decoder != nullptr && WebPAnimDecoderGetInfo(decoder.get(), &info) != 0 &&
                         WebPAnimDecoderGetNext(decoder.get(), &canvas, &milliseconds) != 0;
    ZT_CHECK(decoded, io, "the WebP '{}' is broken or truncated", file.name);
    check_size(file, info.canvas_width, info.canvas_height);

    Stored stored{
        .frame = Frame(static_cast<int>(info.canvas_width), static_cast<int>(info.canvas_height))};
    for (std::size_t i = 0; i < stored.frame.rgb.size() / 3; ++i) {
        std::copy_n(canvas + 4 * i, 3, stored.frame.rgb.data() + 3 * i);
    }
    const WebPDemuxer* demuxer = WebPAnimDecoderGetDemuxer(decoder.get());
    const std::string_view exif = chunk_of(demuxer, "EXIF");
    stored.orientation =
        orientation_of({reinterpret_cast<const std::uint8_t*>(exif.data()), exif.size()},
                       chunk_of(demuxer, "XMP "));
    return stored;
}

}  // namespace zoetrope::picture
