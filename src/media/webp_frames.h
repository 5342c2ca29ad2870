// The frames of a WebP, still or animated, each on its canvas, by libwebp. Inside media only.
//
// Owns the decoder, not the file's bytes, which must outlive it. One thread. Errors: those of
// picture.h.
#pragma once

#include "media/picture_codecs.h"

#include <memory>
#include <optional>

struct WebPAnimDecoder;

namespace zoetrope::picture {

class WebpFrames {
public:
    // Reads the headers.
    explicit WebpFrames(const File& file);
    ~WebpFrames();
    WebpFrames(const WebpFrames&) = delete;
    WebpFrames& operator=(const WebpFrames&) = delete;

    int width() const { return width_; }  // of the canvas, as stored
    int height() const { return height_; }
    int count() const { return count_; }
    int orientation() const { return orientation_; }  // EXIF 2.3, tag 274
    std::int64_t milliseconds() const;                // of all frames

    // The next one, as stored; nothing behind the last, or where the file is broken: then
    // has_more().
    std::optional<Frame> next();
    bool has_more() const;
    // How far next() came: where its frame gives way to the one behind it.
    int end_milliseconds() const { return end_; }

private:
    struct FreeDecoder {
        void operator()(WebPAnimDecoder* decoder) const;
    };

    std::unique_ptr<WebPAnimDecoder, FreeDecoder> decoder_;
    int width_ = 0, height_ = 0, count_ = 0, orientation_ = 1, end_ = 0;
};

}  // namespace zoetrope::picture
