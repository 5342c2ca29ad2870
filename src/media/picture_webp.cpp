// WebP by libwebp, lossy and lossless; of an animation the first frame on its canvas.
#include "base/error.h"
#include "media/picture_codecs.h"
#include "media/webp_frames.h"

namespace zoetrope::picture {

Stored decode_webp(const File& file) {
    WebpFrames frames(file);
    std::optional<Frame> first = frames.next();
    ZT_CHECK(first, io, "the WebP '{}' is broken or truncated", file.name);
    return {.frame = std::move(*first), .orientation = frames.orientation()};
}

}  // namespace zoetrope::picture
