#include "preprocess/picture.h"

#include "base/error.h"

#include <cmath>
#include <vector>

namespace zoetrope::preprocess {
namespace {

constexpr std::size_t kChannels = 3;
constexpr int kStep = 16;        // sides of frames that the models take are multiples of it
constexpr int kWeightBits = 11;  // OpenCV's fixed point of 8-bit bilinear weights
constexpr int kWeightOne = 1 << kWeightBits;

void check_size(int width, int height) {
    ZT_CHECK(width > 0 && height > 0, bad_request, "a picture of {}x{} pixels was asked for", width,
             height);
}

// The two neighbours of a target pixel and the weight of the second.
struct Tap {
    int first = 0;
    int second = 0;
    int weight = 0;  // of kWeightOne
};

std::vector<Tap> linear_taps(int from, int to) {
    std::vector<Tap> taps(static_cast<std::size_t>(to));
    const double scale = static_cast<double>(from) / to;
    for (int i = 0; i < to; ++i) {
        float position = static_cast<float>((i + 0.5) * scale - 0.5);
        int left = static_cast<int>(std::floor(position));
        position -= static_cast<float>(left);
        if (left < 0) {
            left = 0;
            position = 0;
        }
        if (left >= from - 1) {
            left = from - 1;
            position = 0;
        }
        const auto weight = static_cast<int>(std::lrint(position * kWeightOne));
        taps[static_cast<std::size_t>(i)] = {left, std::min(left + 1, from - 1), weight};
    }
    return taps;
}

// The shares of source pixels in a target pixel.
struct Shares {
    int first = 0;
    std::vector<float> weights{};
};

std::vector<Shares> area_shares(int from, int to) {
    std::vector<Shares> all(static_cast<std::size_t>(to));
    const double scale = static_cast<double>(from) / to;
    for (int i = 0; i < to; ++i) {
        const double begin = i * scale;
        const double end = std::min((i + 1) * scale, static_cast<double>(from));
        Shares& shares = all[static_cast<std::size_t>(i)];
        shares.first = static_cast<int>(begin);
        for (int k = shares.first; k < end - 1e-9 && k < from; ++k) {
            const double share = std::min(end, k + 1.0) - std::max(begin, static_cast<double>(k));
            shares.weights.push_back(static_cast<float>(share / (end - begin)));
        }
    }
    return all;
}

const std::uint8_t* row_of(const Frame& picture, int y) {
    return picture.rgb.data() +
           static_cast<std::size_t>(y) * static_cast<std::size_t>(picture.width) * kChannels;
}

std::uint8_t* row_of(Frame& picture, int y) {
    return picture.rgb.data() +
           static_cast<std::size_t>(y) * static_cast<std::size_t>(picture.width) * kChannels;
}

}  // namespace

Frame resize_linear(const Frame& picture, int width, int height) {
    check_size(width, height);
    if (picture.width == width && picture.height == height) return picture;
    const auto across = linear_taps(picture.width, width);
    const auto down = linear_taps(picture.height, height);
    Frame out(width, height);
    const std::size_t row_size = static_cast<std::size_t>(width) * kChannels;
    // The two rows at hand, resized across, times kWeightOne.
    std::array<std::vector<int>, 2> rows = {std::vector<int>(row_size), std::vector<int>(row_size)};
    std::array<int, 2> held = {-1, -1};
    const auto resized_row = [&](int y, std::size_t keep) -> std::size_t {
        for (std::size_t i = 0; i < 2; ++i) {
            if (held[i] == y) return i;
        }
        const std::size_t into = keep == 0 ? 1 : 0;
        held[into] = y;
        const std::uint8_t* source = row_of(picture, y);
        int* target = rows[into].data();
        for (const Tap& tap : across) {
            const std::uint8_t* a = source + static_cast<std::size_t>(tap.first) * kChannels;
            const std::uint8_t* b = source + static_cast<std::size_t>(tap.second) * kChannels;
            for (std::size_t c = 0; c < kChannels; ++c)
                *target++ = a[c] * (kWeightOne - tap.weight) + b[c] * tap.weight;
        }
        return into;
    };
    for (int y = 0; y < height; ++y) {
        const Tap& tap = down[static_cast<std::size_t>(y)];
        const std::size_t upper = resized_row(tap.first, 2);
        const std::size_t lower = resized_row(tap.second, upper);
        const int* a = rows[upper].data();
        const int* b = rows[lower].data();
        std::uint8_t* target = row_of(out, y);
        for (std::size_t i = 0; i < row_size; ++i) {
            // The shifts on the way are OpenCV's, whose results are to be met.
            const int sum = (((kWeightOne - tap.weight) * (a[i] >> 4)) >> 16) +
                            ((tap.weight * (b[i] >> 4)) >> 16);
            target[i] = static_cast<std::uint8_t>(std::min((sum + 2) >> 2, 255));
        }
    }
    return out;
}

Frame resize_area(const Frame& picture, int width, int height) {
    check_size(width, height);
    if (width > picture.width || height > picture.height)
        return resize_linear(picture, width, height);
    const auto across = area_shares(picture.width, width);
    const auto down = area_shares(picture.height, height);
    Frame out(width, height);
    const std::size_t source_row = static_cast<std::size_t>(picture.width) * kChannels;
    std::vector<float> column(source_row);
    for (int y = 0; y < height; ++y) {
        const Shares& rows = down[static_cast<std::size_t>(y)];
        std::fill(column.begin(), column.end(), 0.0F);
        for (std::size_t k = 0; k < rows.weights.size(); ++k) {
            const std::uint8_t* source = row_of(picture, rows.first + static_cast<int>(k));
            const float weight = rows.weights[k];
            for (std::size_t i = 0; i < source_row; ++i)
                column[i] += weight * static_cast<float>(source[i]);
        }
        std::uint8_t* target = row_of(out, y);
        for (const Shares& shares : across) {
            std::array<float, kChannels> sum{};
            const float* source =
                column.data() + static_cast<std::size_t>(shares.first) * kChannels;
            for (const float weight : shares.weights) {
                for (std::size_t c = 0; c < kChannels; ++c) sum[c] += weight * *source++;
            }
            for (const float value : sum)
                *target++ = static_cast<std::uint8_t>(std::lrint(std::min(value, 255.0F)));
        }
    }
    return out;
}

Frame padded_resize(const Frame& picture, int width, int height, Resampling resampling) {
    check_size(width, height);
    const double tall = static_cast<double>(picture.height) / picture.width;
    Size inner{width, height};
    if (tall > static_cast<double>(height) / width) {
        inner.width =
            static_cast<int>(static_cast<double>(height) / picture.height * picture.width);
    } else {
        inner.height =
            static_cast<int>(static_cast<double>(width) / picture.width * picture.height);
    }
    inner = {std::max(inner.width, 1), std::max(inner.height, 1)};
    const Frame resized = resampling == Resampling::area
                              ? resize_area(picture, inner.width, inner.height)
                              : resize_linear(picture, inner.width, inner.height);
    if (inner == Size{width, height}) return resized;
    Frame out(width, height);
    const int left = (width - inner.width) / 2;
    const int top = (height - inner.height) / 2;
    for (int y = 0; y < inner.height; ++y) {
        std::copy_n(row_of(resized, y), static_cast<std::size_t>(inner.width) * kChannels,
                    row_of(out, top + y) + static_cast<std::size_t>(left) * kChannels);
    }
    return out;
}

Size size_by_area(Size picture, std::int64_t area) {
    const double shape = static_cast<double>(picture.width) / picture.height;
    const double height = std::sqrt(static_cast<double>(area) / shape);
    const double width = static_cast<double>(area) / height;
    const auto stepped = [](double side) {
        return std::max(static_cast<int>(side / kStep) * kStep, kStep);
    };
    return {stepped(width), stepped(height)};
}

Frame resize_by_area(const Frame& picture, std::int64_t area) {
    const Size size = size_by_area({picture.width, picture.height}, area);
    const bool shrinks = static_cast<std::int64_t>(size.width) * size.height <
                         static_cast<std::int64_t>(picture.width) * picture.height;
    return padded_resize(picture, size.width, size.height,
                         shrinks ? Resampling::area : Resampling::linear);
}

Frame cropped(const Frame& picture, int x0, int y0, int x1, int y1) {
    ZT_CHECK(
        0 <= x0 && x0 < x1 && x1 <= picture.width && 0 <= y0 && y0 < y1 && y1 <= picture.height,
        internal, "the part {},{} to {},{} of a picture of {}x{}", x0, y0, x1, y1, picture.width,
        picture.height);
    Frame out(x1 - x0, y1 - y0);
    for (int y = y0; y < y1; ++y) {
        std::copy_n(row_of(picture, y) + static_cast<std::size_t>(x0) * kChannels,
                    static_cast<std::size_t>(out.width) * kChannels, row_of(out, y - y0));
    }
    return out;
}

void sample_region(const Frame& picture, const Region& region, const SampleOptions& options,
                   std::span<float> into) {
    ZT_CHECK(into.size() == static_cast<std::size_t>(options.width) *
                                static_cast<std::size_t>(options.height) * kChannels,
             internal, "a network's input of {} numbers for {}x{} pixels", into.size(),
             options.width, options.height);
    const float gain = (options.high - options.low) / 255.0F;
    const std::size_t row_size = static_cast<std::size_t>(picture.width) * kChannels;
    const Point origin = region.to_picture(0.5F / static_cast<float>(options.width),
                                           0.5F / static_cast<float>(options.height));
    const float c = std::cos(region.angle);
    const float s = std::sin(region.angle);
    const float across = region.width / static_cast<float>(options.width);
    const float down = region.height / static_cast<float>(options.height);
    float* target = into.data();
    for (int j = 0; j < options.height; ++j) {
        for (int i = 0; i < options.width; ++i) {
            const float du = across * static_cast<float>(i);
            const float dv = down * static_cast<float>(j);
            const float x = origin.x + du * c - dv * s;
            const float y = origin.y + du * s + dv * c;
            std::array<float, kChannels> sum{};
            // Also keeps what is not a number or far away out of the conversion to int.
            if (x > -1 && y > -1 && x < static_cast<float>(picture.width) &&
                y < static_cast<float>(picture.height)) {
                const int left = static_cast<int>(std::floor(x));
                const int top = static_cast<int>(std::floor(y));
                const float right_share = x - static_cast<float>(left);
                const float lower_share = y - static_cast<float>(top);
                for (int k = 0; k < 4; ++k) {
                    const int px = left + (k & 1);
                    const int py = top + (k >> 1);
                    if (px < 0 || py < 0 || px >= picture.width || py >= picture.height) continue;
                    const float weight = ((k & 1) != 0 ? right_share : 1 - right_share) *
                                         ((k >> 1) != 0 ? lower_share : 1 - lower_share);
                    const std::uint8_t* pixel = picture.rgb.data() +
                                                static_cast<std::size_t>(py) * row_size +
                                                static_cast<std::size_t>(px) * kChannels;
                    for (std::size_t channel = 0; channel < kChannels; ++channel)
                        sum[channel] += weight * static_cast<float>(pixel[channel]);
                }
            }
            for (const float value : sum) *target++ = options.low + gain * value;
        }
    }
}

}  // namespace zoetrope::preprocess
