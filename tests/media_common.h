// What the tests of media share: a folder per test, test pictures, error capture.
#pragma once

#include "base/error.h"
#include "base/frames.h"
#include "errors.h"
#include "media/writer.h"
#include "scratch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace zoetrope::media_test {

namespace fs = std::filesystem;

class Media : public testing::Test {
protected:
    std::vector<std::string> files() const {
        std::vector<std::string> names;
        for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
            names.push_back(fs::relative(entry.path(), folder_).string());
        }
        std::sort(names.begin(), names.end());
        return names;
    }

    const Scratch scratch_;
    const fs::path folder_ = scratch_.path();
};

inline Frame flat(int width, int height, std::array<std::uint8_t, 3> color) {
    Frame frame(width, height);
    for (std::size_t i = 0; i < frame.rgb.size(); ++i) frame.rgb[i] = color[i % 3];
    return frame;
}

// Waves of all colours that move with `time`, smooth as natural pictures mostly are.
inline Frame waves(int width, int height, int time) {
    Frame frame(width, height);
    std::size_t i = 0;
    for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
            const double u = x / 80.0 + 0.05 * time;
            const double v = y / 60.0;
            for (int c = 0; c < 3; ++c) {
                const double wave = std::sin(6 * u + 1.3 * c) * std::cos(5 * v - c);
                frame.rgb[i++] = static_cast<std::uint8_t>(std::lround(127 + 100 * wave));
            }
        }
    }
    return frame;
}

constexpr int kWidth = 96;
constexpr int kHeight = 64;

// Mean error of waves() in 255 colours, with a tenth on top.
constexpr double kGifError = 9;

inline std::vector<Frame> wave_video(int count) {
    std::vector<Frame> frames;
    for (int t = 0; t < count; ++t) frames.push_back(waves(kWidth, kHeight, t));
    return frames;
}

inline std::vector<fs::path> write_video(const fs::path& path, const std::vector<Frame>& frames,
                                         WriteOptions options = {}) {
    VideoWriter writer(path, std::move(options));
    for (const Frame& frame : frames) writer.write(frame);
    return writer.finish();
}

inline std::vector<std::uint8_t> bytes_of(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void write_bytes(const fs::path& path, std::span<const std::uint8_t> bytes) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
}

// The mean absolute difference of two frames of one size.
inline double mean_error(const Frame& a, const Frame& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.rgb.size(); ++i) sum += std::abs(a.rgb[i] - b.rgb[i]);
    return sum / static_cast<double>(a.rgb.size());
}

inline int max_error(const Frame& a, const Frame& b) {
    int worst = 0;
    for (std::size_t i = 0; i < a.rgb.size(); ++i) {
        worst = std::max(worst, std::abs(a.rgb[i] - b.rgb[i]));
    }
    return worst;
}

}  // namespace zoetrope::media_test
