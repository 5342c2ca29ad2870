#include "media/resize.h"

#include "base/error.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

namespace zoetrope {
namespace {

constexpr int kChannels = 3;
// Fraction bits of a weight: 32 less 8 of the pixel and 2 of headroom for negative lobes.
constexpr int kPrecisionBits = 32 - 8 - 2;
constexpr std::int64_t kMostPixels = std::int64_t{1} << 30;  // of a result

struct Filter {
    double support;  // half its width in pixels of the larger grid
    double (*value)(double x);
};

double sinc(double x) {
    if (x == 0) return 1;
    x *= std::numbers::pi;
    return std::sin(x) / x;
}

double box(double x) { return x > -0.5 && x <= 0.5 ? 1 : 0; }

double bilinear(double x) { return std::max(1 - std::abs(x), 0.0); }

// Keys' cubic convolution with a = -1/2.
double bicubic(double x) {
    constexpr double a = -0.5;
    x = std::abs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

double lanczos(double x) { return -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0; }

double hamming(double x) {
    x = std::abs(x);
    if (x == 0) return 1;
    if (x >= 1) return 0;
    x *= std::numbers::pi;
    return std::sin(x) / x * (0.54 + 0.46 * std::cos(x));
}

Filter filter_of(ResizeFilter filter) {
    switch (filter) {
        case ResizeFilter::nearest: break;  // not weighed
        case ResizeFilter::lanczos: return {3, lanczos};
        case ResizeFilter::bilinear: return {1, bilinear};
        case ResizeFilter::bicubic: return {2, bicubic};
        case ResizeFilter::box: return {0.5, box};
        case ResizeFilter::hamming: return {1, hamming};
    }
    fail(ErrorKind::internal, "resize: no such filter");
}

// What every pixel of one direction is a sum of.
struct Taps {
    struct Span {
        int first = 0;  // source pixel
        int count = 0;
    };
    std::vector<Span> spans;           // by result pixel
    std::vector<std::int32_t> values;  // [result pixel][most taps]
    std::size_t most = 0;

    const std::int32_t* of(int pixel) const {
        return values.data() + static_cast<std::size_t>(pixel) * most;
    }
};

Taps taps_of(int in, int out, const Filter& filter) {
    const double scale = static_cast<double>(in) / out;
    const double filter_scale = std::max(scale, 1.0);
    const double support = filter.support * filter_scale;
    Taps taps;
    taps.most = static_cast<std::size_t>(std::ceil(support)) * 2 + 1;
    taps.spans.resize(static_cast<std::size_t>(out));
    taps.values.resize(static_cast<std::size_t>(out) * taps.most);
    std::vector<double> weights(taps.most);
    for (int pixel = 0; pixel < out; ++pixel) {
        const double center = (pixel + 0.5) * scale;
        const int first = std::max(static_cast<int>(center - support + 0.5), 0);
        const int count = std::min(static_cast<int>(center + support + 0.5), in) - first;
        double sum = 0;
        for (int i = 0; i < count; ++i) {
            const double weight = filter.value((i + first - center + 0.5) * (1 / filter_scale));
            weights[static_cast<std::size_t>(i)] = weight;
            sum += weight;
        }
        std::int32_t* values = taps.values.data() + static_cast<std::size_t>(pixel) * taps.most;
        for (int i = 0; i < count; ++i) {
            double weight = weights[static_cast<std::size_t>(i)];
            if (sum != 0) weight /= sum;
            values[i] = static_cast<std::int32_t>((weight < 0 ? -0.5 : 0.5) +
                                                  weight * (1 << kPrecisionBits));
        }
        taps.spans[static_cast<std::size_t>(pixel)] = {first, count};
    }
    return taps;
}

constexpr std::int32_t kHalf = 1 << (kPrecisionBits - 1);

std::uint8_t round_to_byte(std::int32_t sum) {
    return static_cast<std::uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255));
}

std::size_t row_bytes(int width) { return static_cast<std::size_t>(width) * kChannels; }

// Rows [first, first + count) of the picture, `width` wide.
Frame resize_rows(const Frame& picture, int width, const Taps& taps, int first, int count) {
    Frame out(width, count);
    for (int y = 0; y < count; ++y) {
        const std::uint8_t* row =
            picture.rgb.data() + static_cast<std::size_t>(first + y) * row_bytes(picture.width);
        std::uint8_t* result = out.rgb.data() + static_cast<std::size_t>(y) * row_bytes(width);
        for (int x = 0; x < width; ++x, result += kChannels) {
            const Taps::Span span = taps.spans[static_cast<std::size_t>(x)];
            const std::int32_t* weights = taps.of(x);
            const std::uint8_t* pixel = row + row_bytes(span.first);
            std::int32_t red = kHalf, green = kHalf, blue = kHalf;
            for (int i = 0; i < span.count; ++i, pixel += kChannels) {
                red += weights[i] * pixel[0];
                green += weights[i] * pixel[1];
                blue += weights[i] * pixel[2];
            }
            result[0] = round_to_byte(red);
            result[1] = round_to_byte(green);
            result[2] = round_to_byte(blue);
        }
    }
    return out;
}

// `skipped`: rows of the source that the picture no longer has in front.
Frame resize_columns(const Frame& picture, int height, const Taps& taps, int skipped) {
    Frame out(picture.width, height);
    const std::size_t bytes = row_bytes(picture.width);
    std::vector<std::int32_t> sums(bytes);
    for (int y = 0; y < height; ++y) {
        const Taps::Span span = taps.spans[static_cast<std::size_t>(y)];
        const std::int32_t* weights = taps.of(y);
        std::fill(sums.begin(), sums.end(), kHalf);
        for (int i = 0; i < span.count; ++i) {
            const std::uint8_t* row =
                picture.rgb.data() + static_cast<std::size_t>(span.first - skipped + i) * bytes;
            const std::int32_t weight = weights[i];
            for (std::size_t x = 0; x < bytes; ++x) sums[x] += weight * row[x];
        }
        std::transform(
            sums.begin(), sums.end(),
            out.rgb.begin() + static_cast<std::ptrdiff_t>(y) * static_cast<std::ptrdiff_t>(bytes),
            round_to_byte);
    }
    return out;
}

// Where the height shrinks by more than twice as many pixels as the width; so since Pillow 13.
bool is_columns_first(const Frame& picture, int width, int height) {
    const int shorter = picture.height - height, narrower = picture.width - width;
    return shorter > 0 && shorter > 2 * std::int64_t{narrower};
}

// Source pixel of each result pixel: positions are added up, as Pillow does, not multiplied.
std::vector<int> nearest_positions(int in, int out) {
    const double step = static_cast<double>(in) / out;
    double position = step * 0.5;
    std::vector<int> result(static_cast<std::size_t>(out));
    for (int& pixel : result) {
        pixel = std::min(static_cast<int>(position), in - 1);
        position += step;
    }
    return result;
}

Frame resize_nearest(const Frame& picture, int width, int height) {
    Frame out(width, height);
    const std::vector<int> columns = nearest_positions(picture.width, width);
    std::uint8_t* result = out.rgb.data();
    for (const int y : nearest_positions(picture.height, height)) {
        const std::uint8_t* row =
            picture.rgb.data() + static_cast<std::size_t>(y) * row_bytes(picture.width);
        for (const int x : columns) result = std::copy_n(row + row_bytes(x), kChannels, result);
    }
    return out;
}

}  // namespace

Frame resize(const Frame& picture, int width, int height, ResizeFilter filter) {
    ZT_CHECK(picture.width > 0 && picture.height > 0, bad_request,
             "a picture of {}x{} pixels cannot be resized", picture.width, picture.height);
    ZT_CHECK(width > 0 && height > 0 && std::int64_t{width} * height <= kMostPixels, bad_request,
             "a picture cannot be resized to {}x{}: accepted are sizes of 1 and more, and {} "
             "pixels in all",
             width, height, kMostPixels);
    if (width == picture.width && height == picture.height) return picture;
    if (filter == ResizeFilter::nearest) return resize_nearest(picture, width, height);
    const Filter weigh = filter_of(filter);
    const Taps across = taps_of(picture.width, width, weigh);
    const Taps down = taps_of(picture.height, height, weigh);
    if (height == picture.height) return resize_rows(picture, width, across, 0, height);
    if (width == picture.width) return resize_columns(picture, height, down, 0);
    if (is_columns_first(picture, width, height)) {
        return resize_rows(resize_columns(picture, height, down, 0), width, across, 0, height);
    }
    // Only the rows that the second pass reads.
    const int first = down.spans.front().first;
    const int last = down.spans.back().first + down.spans.back().count;
    return resize_columns(resize_rows(picture, width, across, first, last - first), height, down,
                          first);
}

}  // namespace zoetrope
