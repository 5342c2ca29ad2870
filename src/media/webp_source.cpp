// Frames out of an animated WebP, which FFmpeg does not decode.
#include "base/error.h"
#include "base/mapped_file.h"
#include "media/ffmpeg.h"
#include "media/frame_source.h"
#include "media/to_rgb.h"
#include "media/webp_frames.h"

#include <array>
#include <cmath>
#include <fstream>
#include <string_view>
#include <utility>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

constexpr double kMillisecond = 1e-3;  // seconds
// What browsers show a frame for whose duration is nothing.
constexpr double kLeastSeconds = 0.1;

class WebpSource : public FrameSource {
public:
    explicit WebpSource(const fs::path& path);
    std::optional<TimedFrame> read() override;

private:
    std::optional<TimedFrame> decode();

    std::shared_ptr<const MappedFile> file_;
    std::string name_ = file_->path().string();
    picture::WebpFrames frames_;
    std::optional<TimedFrame> first_;
    std::int64_t given_ = 0;  // frames that were decoded
    bool timed_ = true;       // the file says how long its frames last
};

picture::File file_of(const MappedFile& file, std::string_view name) {
    const auto bytes = file.bytes();
    return {.bytes = {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()},
            .name = name,
            .limits = {}};
}

// Frames per second. Encoders round each duration to a millisecond: a whole rate is taken where the
// durations allow it.
double rate_of(int frames, double seconds) {
    const double rate = frames / seconds;
    const bool whole = std::abs(std::round(rate) - rate) <= kMillisecond * rate * rate;
    return whole && std::round(rate) >= 1 ? std::round(rate) : rate;
}

WebpSource::WebpSource(const fs::path& path)
    : file_(MappedFile::open(path)), frames_(file_of(*file_, name_)) {
    const auto orientation = ffmpeg::orientation_of_exif(frames_.orientation());
    info_ = {.width = orientation.swaps_sides() ? frames_.height() : frames_.width(),
             .height = orientation.swaps_sides() ? frames_.width() : frames_.height(),
             .frames = frames_.count(),
             .seconds = static_cast<double>(frames_.milliseconds()) * kMillisecond,
             .rotation = orientation.rotation(),
             .mirrored = orientation.mirrored(),
             .container = "webp",
             .codec = "webp",
             .pixel_format = "rgba",
             .matrix = "rgb",
             .full_range = true};
    timed_ = info_.seconds > 0;
    if (!timed_) info_.seconds = kLeastSeconds * frames_.count();
    info_.fps = rate_of(frames_.count(), info_.seconds);
    first_ = decode();
    ZT_CHECK(first_, io, "cannot read '{}': no frame in it can be decoded", name_);
}

std::optional<TimedFrame> WebpSource::decode() {
    const double seconds = timed_ ? frames_.end_milliseconds() * kMillisecond
                                  : kLeastSeconds * static_cast<double>(given_);
    std::optional<Frame> frame = frames_.next();
    if (!frame) {
        if (frames_.has_more() && damage_.empty())
            damage_ = fmt::format("'{}' ends early, after {} {}: a frame cannot be decoded", name_,
                                  given_, given_ == 1 ? "frame" : "frames");
        return std::nullopt;
    }
    ++given_;
    return TimedFrame{picture::upright(std::move(*frame), frames_.orientation()), seconds};
}

std::optional<TimedFrame> WebpSource::read() {
    return first_ ? std::exchange(first_, std::nullopt) : decode();
}

}  // namespace

// WebP container specification: a chunk VP8X comes first, whose flags say so.
bool is_webp_animation(const fs::path& path) {
    constexpr std::size_t kFlags = 20;
    constexpr char kAnimation = 0x02;
    std::error_code ignored;
    if (!fs::is_regular_file(path, ignored)) return false;  // what a pipe gives is gone once read
    std::array<char, kFlags + 1> head{};
    std::ifstream file(path, std::ios::binary);
    if (!file.read(head.data(), head.size())) return false;
    const std::string_view text(head.data(), head.size());
    return text.starts_with("RIFF") && text.substr(8, 8) == "WEBPVP8X" &&
           (head[kFlags] & kAnimation) != 0;
}

std::unique_ptr<FrameSource> open_webp_animation(const fs::path& path) {
    return std::make_unique<WebpSource>(path);
}

}  // namespace zoetrope
