#include "media/palette.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

namespace zoetrope {

// Pixels of one 5:5:5-bit colour cell: how many, and the sum of their exact colours.
struct PaletteQuantizer::Bin {
    double count = 0;
    std::array<double, 3> sum{};

    std::array<double, 3> mean() const { return {sum[0] / count, sum[1] / count, sum[2] / count}; }
};

namespace {

using Color = PaletteQuantizer::Color;
using Point = PaletteQuantizer::Point;

constexpr int kBinBits = 5;
constexpr int kLookupBits = 6;
constexpr int kRefinements = 4;  // k-means rounds; more change the error by under 1 %

// A palette is kept while its error is below this many times that of a new, not yet refined one.
constexpr double kKeepFactor = 1.1;

// Errors weigh the channels about as luma does: the eye sees green steps best, blue steps least.
constexpr std::array<double, 3> kWeight{0.30, 0.59, 0.11};

// 8x8 ordered dithering: Bayer, "An optimum method for two-level rendition of continuous-tone
// pictures", 1973. The threshold interleaves the bits of x ^ y and y, lowest bits first. Unlike
// diffused errors the pattern stands still from frame to frame.
constexpr int kDitherSize = 8;
constexpr auto kThresholds = [] {
    std::array<std::array<int, kDitherSize>, kDitherSize> table{};
    for (int y = 0; y < kDitherSize; ++y) {
        for (int x = 0; x < kDitherSize; ++x) {
            int value = 0;
            for (int bit = 0; bit < 3; ++bit) {
                value = value << 2 | (((x ^ y) >> bit) & 1) << 1 | ((y >> bit) & 1);
            }
            table[y][x] = 2 * value - 63;  // -63 to 63, mean 0
        }
    }
    return table;
}();

double distance(const Point& a, const Point& b) {
    double sum = 0;
    for (int c = 0; c < 3; ++c) sum += kWeight[c] * (a[c] - b[c]) * (a[c] - b[c]);
    return sum;
}

Point point_of(const Color& color) {
    return {double(color[0]), double(color[1]), double(color[2])};
}

Color color_of(const Point& point) {
    Color color{};
    for (int c = 0; c < 3; ++c) color[c] = static_cast<std::uint8_t>(std::lround(point[c]));
    return color;
}

std::size_t nearest_of(const std::vector<Point>& points, const Point& to) {
    std::size_t best = 0;
    double best_distance = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < points.size(); ++i) {
        const double d = distance(points[i], to);
        if (d < best_distance) {
            best_distance = d;
            best = i;
        }
    }
    return best;
}

// A run of histogram cells, [first, last), and where cutting it helps most.
struct Box {
    std::size_t first = 0;
    std::size_t last = 0;
    int axis = 0;         // of the largest weighted variance
    double variance = 0;  // times the number of pixels, along that axis; 0: one colour
    Point mean{};
};

}  // namespace

std::vector<PaletteQuantizer::Bin> PaletteQuantizer::histogram(const Frame& frame) {
    std::vector<Bin> bins(std::size_t{1} << (3 * kBinBits));
    constexpr int kDrop = 8 - kBinBits;
    for (std::size_t i = 0; i + 2 < frame.rgb.size(); i += 3) {
        const std::uint8_t* p = frame.rgb.data() + i;
        Bin& bin = bins[static_cast<std::size_t>(p[0] >> kDrop) << (2 * kBinBits) |
                        static_cast<std::size_t>(p[1] >> kDrop) << kBinBits |
                        static_cast<std::size_t>(p[2] >> kDrop)];
        bin.count += 1;
        for (int c = 0; c < 3; ++c) bin.sum[c] += p[c];
    }
    std::erase_if(bins, [](const Bin& bin) { return bin.count == 0; });
    return bins;
}

// Median cut's successor: cuts the box of the largest variance at its mean (Heckbert 1982 with the
// variance criterion of Wan, Prusinkiewicz and Wong 1990).
std::vector<PaletteQuantizer::Point> PaletteQuantizer::cut(const std::vector<Bin>& bins) {
    std::vector<Bin> cells = bins;
    const auto measure = [&](std::size_t first, std::size_t last) {
        Box box{.first = first, .last = last};
        double count = 0;
        Point square{};
        for (std::size_t i = first; i < last; ++i) {
            const Point mean = cells[i].mean();
            count += cells[i].count;
            for (int c = 0; c < 3; ++c) {
                box.mean[c] += cells[i].sum[c];
                square[c] += mean[c] * mean[c] * cells[i].count;
            }
        }
        for (int c = 0; c < 3; ++c) {
            const double variance =
                last - first < 2 ? 0 : kWeight[c] * (square[c] - box.mean[c] * box.mean[c] / count);
            if (variance > box.variance) {
                box.variance = variance;
                box.axis = c;
            }
            box.mean[c] /= count;
        }
        return box;
    };

    std::vector<Box> boxes{measure(0, cells.size())};
    while (boxes.size() < kColors) {
        const auto widest =
            std::max_element(boxes.begin(), boxes.end(),
                             [](const Box& a, const Box& b) { return a.variance < b.variance; });
        const Box box = *widest;
        if (box.variance <= 1e-6) break;  // one colour in every box
        const auto begin = cells.begin();
        const auto middle = std::partition(
            begin + static_cast<std::ptrdiff_t>(box.first),
            begin + static_cast<std::ptrdiff_t>(box.last),
            [&](const Bin& bin) { return bin.mean()[box.axis] < box.mean[box.axis]; });
        const auto cut = static_cast<std::size_t>(middle - begin);
        if (cut == box.first || cut == box.last) {  // equal but for rounding
            widest->variance = 0;
            continue;
        }
        *widest = measure(box.first, cut);
        boxes.push_back(measure(cut, box.last));
    }

    std::vector<Point> centres;
    for (const Box& box : boxes) centres.push_back(box.mean);
    return centres;
}

// k-means, starting from the given centres.
std::vector<Color> PaletteQuantizer::refine(const std::vector<Bin>& bins,
                                            std::vector<Point> centres) {
    for (int round = 0; round < kRefinements; ++round) {
        std::vector<Bin> clusters(centres.size());
        for (const Bin& bin : bins) {
            Bin& cluster = clusters[nearest_of(centres, bin.mean())];
            cluster.count += bin.count;
            for (int c = 0; c < 3; ++c) cluster.sum[c] += bin.sum[c];
        }
        for (std::size_t i = 0; i < centres.size(); ++i) {
            if (clusters[i].count > 0) centres[i] = clusters[i].mean();
        }
    }
    std::vector<Color> palette;
    for (const Point& centre : centres) palette.push_back(color_of(centre));
    return palette;
}

void PaletteQuantizer::take_palette(std::vector<Color> palette) {
    used_ = static_cast<int>(palette.size());
    nearest_.assign(std::size_t{1} << (3 * kLookupBits), -1);
    // Dithering spreads a colour over its neighbours in the palette: by the mean distance of two.
    double total = 0;
    for (const Color& a : palette) {
        double best = std::numeric_limits<double>::infinity();
        for (const Color& b : palette) {
            const double d = distance(point_of(a), point_of(b));
            if (d > 0) best = std::min(best, d);
        }
        total += std::isfinite(best) ? std::sqrt(best) : 0;
    }
    spread_ = static_cast<int>(std::lround(total / used_));
    palette.resize(kColors);
    palette_ = std::move(palette);
}

int PaletteQuantizer::nearest(int r, int g, int b) {
    constexpr int kDrop = 8 - kLookupBits;
    const std::size_t key = static_cast<std::size_t>(r >> kDrop) << (2 * kLookupBits) |
                            static_cast<std::size_t>(g >> kDrop) << kLookupBits |
                            static_cast<std::size_t>(b >> kDrop);
    if (nearest_[key] < 0) {
        // The middle of the cell stands for its colours.
        constexpr double kHalf = ((1 << kDrop) - 1) / 2.0;
        const auto middle_of = [](int value) { return (value >> kDrop << kDrop) + kHalf; };
        const Point middle{middle_of(r), middle_of(g), middle_of(b)};
        double best = std::numeric_limits<double>::infinity();
        for (int i = 0; i < used_; ++i) {
            const double d = distance(point_of(palette_[i]), middle);
            if (d < best) {
                best = d;
                nearest_[key] = static_cast<std::int16_t>(i);
            }
        }
    }
    return nearest_[key];
}

// Frames of at most kColors colours (drawings, captions) keep them exactly.
bool PaletteQuantizer::quantize_exactly(const Frame& frame, std::uint8_t* indices,
                                        std::ptrdiff_t stride) {
    const auto color_at = [&](std::size_t i) {
        return Color{frame.rgb[i], frame.rgb[i + 1], frame.rgb[i + 2]};
    };
    std::set<Color> colors;
    for (std::size_t i = 0; i < frame.rgb.size(); i += 3) {
        colors.insert(color_at(i));
        if (colors.size() > kColors) return false;
    }
    palette_.assign(colors.begin(), colors.end());
    std::size_t i = 0;
    for (int y = 0; y < frame.height; ++y) {
        for (int x = 0; x < frame.width; ++x, i += 3) {
            const auto place = std::lower_bound(palette_.begin(), palette_.end(), color_at(i));
            indices[y * stride + x] = static_cast<std::uint8_t>(place - palette_.begin());
        }
    }
    palette_.resize(kColors);
    used_ = 0;  // nothing to keep for the next frame
    return true;
}

void PaletteQuantizer::quantize(const Frame& frame, std::uint8_t* indices, std::ptrdiff_t stride) {
    if (quantize_exactly(frame, indices, stride)) return;
    const std::vector<Bin> bins = histogram(frame);
    std::vector<Point> fresh = cut(bins);
    const auto error_with = [&](const std::vector<Point>& points) {
        double error = 0;
        for (const Bin& bin : bins) {
            const Point mean = bin.mean();
            error += bin.count * distance(points[nearest_of(points, mean)], mean);
        }
        return error;
    };
    std::vector<Point> kept;
    for (int i = 0; i < used_; ++i) kept.push_back(point_of(palette_[static_cast<std::size_t>(i)]));
    // The rounding of colours to 8 bits alone may make the error of a kept palette this large.
    const double rounding = 0.25 * frame.width * frame.height;
    if (kept.empty() || error_with(kept) > kKeepFactor * error_with(fresh) + rounding) {
        take_palette(refine(bins, std::move(fresh)));
    }
    const std::uint8_t* pixel = frame.rgb.data();
    for (int y = 0; y < frame.height; ++y) {
        const auto& row = kThresholds[y % kDitherSize];
        for (int x = 0; x < frame.width; ++x, pixel += 3) {
            // Red and blue have patterns of their own, so that hues are mixed too.
            const int column = x % kDitherSize;
            const std::array<int, 3> threshold{row[column ^ 1], row[column], row[column ^ 1]};
            std::array<int, 3> shifted{};
            for (int c = 0; c < 3; ++c) {
                shifted[c] = std::clamp(pixel[c] + threshold[c] * spread_ / 126, 0, 255);
            }
            indices[y * stride + x] =
                static_cast<std::uint8_t>(nearest(shifted[0], shifted[1], shifted[2]));
        }
    }
}

}  // namespace zoetrope
