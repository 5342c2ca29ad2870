#include "media/writer.h"

#include "base/error.h"
#include "base/partial_file.h"
#include "media/formats.h"
#include "media/frame_sink.h"

#include <utility>

namespace zoetrope {
namespace {

const VideoFormat& format_for(const std::filesystem::path& path, const WriteOptions& options) {
    const VideoFormat& format = video_format_of(path);
    ZT_CHECK(!options.lossless || format.ending == lossless_format().ending, bad_request,
             "cannot write '{}': what is lossless is written as {}", path.string(),
             lossless_format().ending);
    return options.lossless ? lossless_format() : format;
}

std::unique_ptr<FrameSink> make_sink(const std::filesystem::path& path, const VideoFormat& format,
                                     const WriteOptions& options) {
    constexpr int kAnyEvenSize = 2;
    check_video_output(path, format, kAnyEvenSize, kAnyEvenSize, options.fps);
    ZT_CHECK(options.crf == -1 || format.max_crf < 0 ||
                 (options.crf >= 0 && options.crf <= format.max_crf),
             bad_request, "cannot write '{}': the crf is {}; {} takes 0 (best) to {}",
             path.string(), options.crf, format.ending, format.max_crf);
    ZT_CHECK(options.threads >= 1, bad_request,
             "cannot write '{}': {} encoder threads were asked for; accepted are 1 and more",
             path.string(), options.threads);
    remove_stale(path);
    return format.muxer.empty() ? make_png_sink(path, options)
                                : make_container_sink(path, format, options);
}

}  // namespace

VideoWriter::VideoWriter(const std::filesystem::path& path, WriteOptions options)
    : path_(path),
      options_(std::move(options)),
      format_(&format_for(path_, options_)),
      sink_(make_sink(path_, *format_, options_)) {}

VideoWriter::~VideoWriter() = default;
VideoWriter::VideoWriter(VideoWriter&&) noexcept = default;
VideoWriter& VideoWriter::operator=(VideoWriter&&) noexcept = default;

void VideoWriter::write(const Frame& frame) {
    ZT_CHECK(sink_ != nullptr, internal, "'{}' is finished or failed and takes no more frames",
             path_.string());
    if (frames_ == 0) {
        check_video_output(path_, *format_, frame.width, frame.height, options_.fps);
        width_ = frame.width;
        height_ = frame.height;
    }
    ZT_CHECK(frame.width == width_ && frame.height == height_, bad_request,
             "cannot write '{}': frame {} is {}x{}, the first one is {}x{}", path_.string(),
             frames_, frame.width, frame.height, width_, height_);
    ZT_CHECK(frame.rgb.size() == Frame(width_, height_).rgb.size(), internal,
             "frame {} has {} bytes, which is not 3 * {} * {}", frames_, frame.rgb.size(), width_,
             height_);
    try {
        sink_->write(frame);
    } catch (...) {
        sink_.reset();  // removes the hidden file at once
        throw;
    }
    ++frames_;
}

std::vector<std::filesystem::path> VideoWriter::finish() {
    ZT_CHECK(sink_ != nullptr, internal, "'{}' was finished before, or failed", path_.string());
    const std::unique_ptr<FrameSink> sink = std::move(sink_);
    ZT_CHECK(frames_ > 0, bad_request, "cannot write '{}': there are no frames", path_.string());
    return sink->finish();
}

}  // namespace zoetrope
