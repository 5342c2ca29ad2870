// Frames out of a folder of numbered pictures.
#include "base/error.h"
#include "media/frame_source.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>
#include <utility>
#include <vector>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

bool is_picture(const fs::path& path) {
    constexpr std::array<std::string_view, 7> kEndings{".png", ".jpg",  ".jpeg", ".webp",
                                                       ".bmp", ".tiff", ".tif"};
    std::string ending = path.extension().string();
    std::transform(ending.begin(), ending.end(), ending.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const std::string name = path.filename().string();
    return !name.starts_with('.') &&
           std::find(kEndings.begin(), kEndings.end(), ending) != kEndings.end();
}

// Compares names as people count: "frame2" comes before "frame10".
bool natural_less(std::string_view a, std::string_view b) {
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    const auto take_number = [&](std::string_view& text) {
        std::size_t length = 0;
        while (length < text.size() && is_digit(text[length])) ++length;
        std::string_view number = text.substr(0, length);
        text.remove_prefix(length);
        while (number.size() > 1 && number.front() == '0') number.remove_prefix(1);
        return number;
    };
    std::string_view left = a;
    std::string_view right = b;
    while (!left.empty() && !right.empty()) {
        if (is_digit(left.front()) && is_digit(right.front())) {
            const std::string_view m = take_number(left);
            const std::string_view n = take_number(right);
            if (m.size() != n.size()) return m.size() < n.size();
            if (m != n) return m < n;
        } else if (left.front() != right.front()) {
            return left.front() < right.front();
        } else {
            left.remove_prefix(1);
            right.remove_prefix(1);
        }
    }
    if (left.empty() != right.empty()) return left.empty();
    return a < b;  // "1" and "01"
}

class FolderSource : public FrameSource {
public:
    FolderSource(const fs::path& folder, double fps);
    std::optional<TimedFrame> read() override;

private:
    std::vector<fs::path> pictures_;
    std::size_t next_ = 0;
    std::optional<TimedFrame> first_;
};

FolderSource::FolderSource(const fs::path& folder, double fps) {
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; entry != end; entry.increment(error)) {
        if (is_picture(entry->path())) pictures_.push_back(entry->path());
        if (error) break;
    }
    ZT_CHECK(!error, io, "cannot read the folder '{}': {}", folder.string(), error.message());
    ZT_CHECK(!pictures_.empty(), bad_request,
             "the folder '{}' has no pictures; PNG, JPEG, WebP, BMP and TIFF are read",
             folder.string());
    std::sort(pictures_.begin(), pictures_.end(), [](const fs::path& a, const fs::path& b) {
        return natural_less(a.filename().string(), b.filename().string());
    });
    const auto source = open_media_file(pictures_.front());
    first_ = source->read();
    info_ = source->info();
    info_.container = "folder";
    info_.fps = fps;
    info_.frames = static_cast<std::int64_t>(pictures_.size());
    info_.seconds = static_cast<double>(pictures_.size()) / fps;
}

std::optional<TimedFrame> FolderSource::read() {
    if (next_ == pictures_.size() || !damage_.empty()) return std::nullopt;
    const fs::path& path = pictures_[next_];
    TimedFrame next;
    next.seconds = static_cast<double>(next_) / info_.fps;
    if (next_ == 0) {
        next.frame = std::move(first_->frame);
        first_.reset();
    } else {
        try {
            next.frame = read_picture(path);
        } catch (const Error& error) {
            damage_ = error.what();
            return std::nullopt;
        }
    }
    if (next.frame.width != info_.width || next.frame.height != info_.height) {
        damage_ = fmt::format("'{}' is {}x{}, the first picture of its folder {}x{}", path.string(),
                              next.frame.width, next.frame.height, info_.width, info_.height);
        return std::nullopt;
    }
    ++next_;
    return next;
}

}  // namespace

std::unique_ptr<FrameSource> open_picture_folder(const fs::path& path, double fps) {
    return std::make_unique<FolderSource>(path, fps);
}

}  // namespace zoetrope
