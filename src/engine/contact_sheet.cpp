#include "engine/contact_sheet.h"

#include "base/error.h"
#include "media/frame_sequence.h"
#include "media/resize.h"
#include "media/writer.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace zoetrope {
namespace {

constexpr std::int64_t kMostPixels = std::int64_t{1} << 27;  // of the sheet

// The frames of a video that are shown, all of the height asked for.
std::vector<Frame> shown_frames(const std::filesystem::path& path,
                                const ContactSheetOptions& options) {
    const FrameSequence video = FrameSequence::open(path, {.window_frames = 1});
    const double aspect = static_cast<double>(video.width()) / video.height();
    const int width = std::max(1, static_cast<int>(std::lround(aspect * options.height)));
    // Small videos in squares, larger ones smoothly.
    const ResizeFilter filter =
        video.height() < options.height ? ResizeFilter::nearest : ResizeFilter::lanczos;
    std::vector<Frame> frames;
    for (int column = 0; column < options.columns; ++column) {
        const int last = video.size() - 1;
        const int at = options.columns == 1 ? 0 : (column * last) / (options.columns - 1);
        frames.push_back(resize(video.at(at), width, options.height, filter));
    }
    return frames;
}

void paste(const Frame& frame, int left, int top, Frame& onto) {
    for (int row = 0; row < frame.height; ++row) {
        const auto from = static_cast<std::size_t>(row) * static_cast<std::size_t>(frame.width) * 3;
        const auto to =
            (static_cast<std::size_t>(row + top) * static_cast<std::size_t>(onto.width) +
             static_cast<std::size_t>(left)) *
            3;
        std::copy_n(frame.rgb.begin() + static_cast<std::ptrdiff_t>(from), frame.width * 3,
                    onto.rgb.begin() + static_cast<std::ptrdiff_t>(to));
    }
}

}  // namespace

void write_contact_sheet(std::span<const std::filesystem::path> videos,
                         const std::filesystem::path& output, const ContactSheetOptions& options) {
    ZT_CHECK(output.extension() == ".png", bad_request,
             "the sheet's file is '{}': a name that ends in .png is wanted", output.string());
    ZT_CHECK(
        !videos.empty() && options.columns >= 1 && options.height >= 1, bad_request,
        "a sheet of {} videos, {} columns and {} pixels of height is asked for: 1 and more are "
        "accepted of each",
        videos.size(), options.columns, options.height);
    std::vector<std::vector<Frame>> rows;
    int cell = 0;
    for (const auto& video : videos) {
        rows.push_back(shown_frames(video, options));
        cell = std::max(cell, rows.back().front().width);
        const std::int64_t pixels = std::int64_t{cell} * options.columns * options.height *
                                    static_cast<std::int64_t>(videos.size());
        ZT_CHECK(pixels <= kMostPixels, bad_request,
                 "the sheet would have {} pixels: accepted are {}; make --height or --columns "
                 "smaller",
                 pixels, kMostPixels);
    }
    Frame sheet(cell * options.columns, options.height * static_cast<int>(rows.size()));
    for (std::size_t row = 0; row < rows.size(); ++row) {
        for (int column = 0; column < options.columns; ++column) {
            const Frame& frame = rows[row][static_cast<std::size_t>(column)];
            paste(frame, column * cell + (cell - frame.width) / 2,
                  static_cast<int>(row) * options.height, sheet);
        }
    }
    VideoWriter writer(output, {});
    writer.write(sheet);
    writer.finish();
}

}  // namespace zoetrope
