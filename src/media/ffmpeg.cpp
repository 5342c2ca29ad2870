#include "media/ffmpeg.h"

#include "base/log.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <mutex>

namespace zoetrope::ffmpeg {
namespace {

constexpr std::size_t kMaxLines = 2;  // a message stays a sentence

thread_local LogCapture* current_capture = nullptr;

void on_log(void*, int level, const char* format, va_list arguments) {
    if (level > AV_LOG_WARNING) return;
    std::array<char, 1024> line{};
    std::vsnprintf(line.data(), line.size(), format, arguments);
    if (level <= AV_LOG_ERROR && current_capture != nullptr) {
        current_capture->add(line.data());
    } else {
        std::string_view text = line.data();
        while (text.ends_with('\n')) text.remove_suffix(1);
        log::debug("FFmpeg: {}", text);
    }
}

}  // namespace

LogCapture::LogCapture() : outer_(current_capture) {
    static std::once_flag installed;
    std::call_once(installed, [] { av_log_set_callback(on_log); });
    current_capture = this;
}

LogCapture::~LogCapture() { current_capture = outer_; }

void LogCapture::add(std::string_view text) {
    // FFmpeg may write a line in pieces, the last of which ends it.
    for (const char c : text) {
        if (static_cast<unsigned char>(c) >= ' ') piece_ += c;
        if (c != '\n' || piece_.empty()) continue;
        if (std::find(lines_.begin(), lines_.end(), piece_) == lines_.end()) {
            lines_.push_back(piece_);
        }
        if (lines_.size() > kMaxLines) lines_.erase(lines_.begin());
        piece_.clear();
    }
}

std::string LogCapture::text() {
    if (current_capture == nullptr) return "";
    return fmt::format("{}", fmt::join(current_capture->lines_, "; "));
}

std::string describe(int error_code) {
    std::array<char, AV_ERROR_MAX_STRING_SIZE> reason{};
    av_strerror(error_code, reason.data(), reason.size());
    const std::string captured = LogCapture::text();
    return captured.empty() ? std::string(reason.data())
                            : fmt::format("{} ({})", reason.data(), captured);
}

int check(int code, ErrorKind kind, std::string_view what) {
    if (code < 0) fail(kind, "{}: {}", what, describe(code));
    return code;
}

PacketHandle new_packet() { return made(PacketHandle(av_packet_alloc())); }
PictureHandle new_picture() { return made(PictureHandle(av_frame_alloc())); }
ParametersHandle new_parameters() { return made(ParametersHandle(avcodec_parameters_alloc())); }

AVRational frame_rate(double fps) {
    // The rates of NTSC television and its multiples, which people write with two or three
    // decimals.
    constexpr double kRounding = 0.0045;
    for (const int nominal : {24, 30, 48, 60, 120}) {
        if (std::abs(fps - nominal * 1000.0 / 1001.0) < kRounding) return {nominal * 1000, 1001};
    }
    return av_d2q(fps, 100000);
}

}  // namespace zoetrope::ffmpeg
