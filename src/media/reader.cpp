#include "media/reader.h"

#include "base/error.h"
#include "media/frame_source.h"

#include <cmath>
#include <utility>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<FrameSource> open_source(const fs::path& path, const ReadOptions& options) {
    ZT_CHECK(std::isfinite(options.pictures_fps) && options.pictures_fps > 0, bad_request,
             "the frame rate of pictures is {}: accepted is more than 0", options.pictures_fps);
    std::error_code error;
    return fs::is_directory(path, error) ? open_picture_folder(path, options.pictures_fps)
                                         : open_media_file(path, options.threads);
}

}  // namespace

VideoReader::VideoReader(const fs::path& path, const ReadOptions& options)
    : source_(open_source(path, options)) {}

VideoReader::~VideoReader() = default;
VideoReader::VideoReader(VideoReader&&) noexcept = default;
VideoReader& VideoReader::operator=(VideoReader&&) noexcept = default;

const MediaInfo& VideoReader::info() const { return source_->info(); }
std::optional<TimedFrame> VideoReader::read() { return source_->read(); }
std::optional<double> VideoReader::skip() { return source_->skip(); }
const std::string& VideoReader::damage() const { return source_->damage(); }

MediaInfo probe_media(const fs::path& path) { return VideoReader(path).info(); }

Frame read_picture(const fs::path& path) {
    const auto source = open_media_file(path);
    std::optional<TimedFrame> first = source->read();
    ZT_CHECK(first.has_value(), internal, "'{}' was opened without its first frame", path.string());
    const bool is_picture = source->info().fps == 0;
    if (is_picture && !source->read()) {
        ZT_CHECK(source->damage().empty(), io, "{}", source->damage());
    }
    return std::move(first->frame);
}

}  // namespace zoetrope
