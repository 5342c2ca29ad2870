// Where a VideoReader gets its frames: a file, an animated WebP or a folder of pictures. Inside
// media only.
//
// A source owns its open files. One thread.
#pragma once

#include "media/reader.h"

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace zoetrope {

class FrameSource {
public:
    virtual ~FrameSource() = default;
    virtual std::optional<TimedFrame> read() = 0;
    // As read(), for the time alone.
    virtual std::optional<double> skip() {
        const auto next = read();
        return next ? std::optional(next->seconds) : std::nullopt;
    }

    const MediaInfo& info() const { return info_; }
    const std::string& damage() const { return damage_; }

protected:
    MediaInfo info_;
    std::string damage_;
};

// threads: of the decoder; 0: as many as the machine has.
std::unique_ptr<FrameSource> open_media_file(const std::filesystem::path& path, int threads = 0);

// Animations, which open_media_file() hands on.
bool is_webp_animation(const std::filesystem::path& path);
std::unique_ptr<FrameSource> open_webp_animation(const std::filesystem::path& path);

std::unique_ptr<FrameSource> open_picture_folder(const std::filesystem::path& path, double fps);

}  // namespace zoetrope
