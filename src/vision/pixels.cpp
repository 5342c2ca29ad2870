#include "vision/pixels.h"

#include "base/error.h"

#include <ATen/ops/empty.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <optional>

namespace zoetrope {
namespace {

using nlohmann::json;

constexpr const char* kFile = "the image processor's preprocessor_config.json";
constexpr int kMostPixels = 1 << 14;  // of an edge
constexpr int kFilters = 6;

int edge_of(const json& value, const char* key) {
    ZT_CHECK(value.is_number_integer() && value.get<std::int64_t>() >= 1 &&
                 value.get<std::int64_t>() <= kMostPixels,
             io, "{} has {} = {}: whole numbers of 1 to {} are wanted", kFile, key, value.dump(),
             kMostPixels);
    return value.get<int>();
}

// {"height": h, "width": w}; nothing where it is not that.
std::optional<PictureSize> exact_size_of(const json& value, const char* key) {
    if (!value.is_object() || !value.contains("height") || !value.contains("width")) return {};
    return PictureSize{edge_of(value.at("width"), key), edge_of(value.at("height"), key)};
}

bool flag_of(const json& config, const char* key) {
    const json value = config.value(key, json(true));
    ZT_CHECK(value.is_boolean(), io, "{} has {} = {}: true or false is wanted", kFile, key,
             value.dump());
    return value.get<bool>();
}

double number_of(const json& value, const char* key) {
    ZT_CHECK(value.is_number(), io, "{} has {} = {}: a number is wanted", kFile, key, value.dump());
    return value.get<double>();
}

// One number for each channel, or one for all.
void read_channels(const json& config, const char* key, std::array<double, 3>& channels) {
    if (!config.contains(key)) return;
    const json& value = config.at(key);
    if (value.is_number()) {
        channels.fill(value.get<double>());
        return;
    }
    ZT_CHECK(value.is_array() && value.size() == channels.size(), io,
             "{} has {} = {}: three numbers are wanted", kFile, key, value.dump());
    for (std::size_t i = 0; i < channels.size(); ++i) channels[i] = number_of(value[i], key);
}

void read_size(const json& config, ClipPreprocess& result) {
    if (!config.contains("size")) return;
    const json& size = config.at("size");
    if (const auto exact = exact_size_of(size, "size")) {
        result.shortest_edge = 0;
        result.exact_size = *exact;
    } else if (size.is_number()) {
        result.shortest_edge = edge_of(size, "size");
    } else {
        ZT_CHECK(size.is_object() && size.size() == 1 && size.contains("shortest_edge"),
                 unsupported,
                 "{} has size = {}: accepted are a shortest_edge, or a height and a width", kFile,
                 size.dump());
        result.shortest_edge = edge_of(size.at("shortest_edge"), "size");
    }
}

void read_crop(const json& config, ClipPreprocess& result) {
    if (!config.contains("crop_size")) return;
    const json& crop = config.at("crop_size");
    if (const auto exact = exact_size_of(crop, "crop_size")) {
        result.crop = *exact;
    } else {
        const int edge = edge_of(crop, "crop_size");
        result.crop = {edge, edge};
    }
}

void read_filter(const json& config, ClipPreprocess& result) {
    if (!config.contains("resample")) return;
    const json& number = config.at("resample");
    ZT_CHECK(number.is_number_integer() && number.get<std::int64_t>() >= 0 &&
                 number.get<std::int64_t>() < kFilters,
             io, "{} has resample = {}: Pillow's filters 0 to {} are accepted", kFile,
             number.dump(), kFilters - 1);
    result.filter = static_cast<ResizeFilter>(number.get<int>());
}

// Where a centered window of `wanted` begins: rounded down, also below zero.
int window_start(int size, int wanted) {
    const int spare = size - wanted;
    return (spare - (spare < 0 ? 1 : 0)) / 2;
}

}  // namespace

ClipPreprocess ClipPreprocess::from_json(const json& config) {
    ZT_CHECK(config.is_object(), io, "{} is not a JSON object", kFile);
    ClipPreprocess result;
    result.resize = flag_of(config, "do_resize");
    result.center_crop = flag_of(config, "do_center_crop");
    read_size(config, result);
    read_crop(config, result);
    read_filter(config, result);
    if (!flag_of(config, "do_rescale")) {
        result.rescale_factor = 1;
    } else if (config.contains("rescale_factor")) {
        result.rescale_factor = number_of(config.at("rescale_factor"), "rescale_factor");
    }
    if (flag_of(config, "do_normalize")) {
        read_channels(config, "image_mean", result.mean);
        read_channels(config, "image_std", result.deviation);
    } else {
        result.mean.fill(0);
        result.deviation.fill(1);
    }
    ZT_CHECK(std::all_of(result.deviation.begin(), result.deviation.end(),
                         [](double v) { return v > 0; }),
             io, "{} has an image_std that is not above 0", kFile);
    return result;
}

PictureSize ClipPreprocess::resize_size(PictureSize picture) const {
    ZT_CHECK(picture.width > 0 && picture.height > 0, internal, "a picture of {}x{} pixels",
             picture.width, picture.height);
    if (!resize) return picture;
    if (shortest_edge == 0) return exact_size;
    const auto [shorter, longer] = std::minmax(picture.width, picture.height);
    const auto scaled = static_cast<double>(std::int64_t{shortest_edge} * longer) / shorter;
    ZT_CHECK(scaled <= 1 << 24, bad_request,
             "a picture of {}x{} pixels is too long and narrow for the image encoder",
             picture.width, picture.height);
    const int edge = static_cast<int>(scaled);  // cut off, not rounded
    return picture.width <= picture.height ? PictureSize{shortest_edge, edge}
                                           : PictureSize{edge, shortest_edge};
}

at::Tensor ClipPreprocess::to_pixels(const Frame& resized) const {
    const PictureSize out = center_crop ? crop : PictureSize{resized.width, resized.height};
    const int left = window_start(resized.width, out.width);
    const int top = window_start(resized.height, out.height);
    at::Tensor pixels = at::empty({1, 3, out.height, out.width}, at::kFloat);
    float* next = pixels.mutable_data_ptr<float>();
    for (std::size_t channel = 0; channel < 3; ++channel) {
        std::array<float, 256> values;
        for (std::size_t i = 0; i < values.size(); ++i) {
            const auto rescaled = static_cast<float>(static_cast<double>(i) * rescale_factor);
            values[i] = (rescaled - static_cast<float>(mean[channel])) /
                        static_cast<float>(deviation[channel]);
        }
        for (int y = top; y < top + out.height; ++y) {
            const bool is_row = y >= 0 && y < resized.height;
            const std::size_t row =
                static_cast<std::size_t>(is_row ? y : 0) * static_cast<std::size_t>(resized.width);
            for (int x = left; x < left + out.width; ++x) {
                const bool is_pixel = is_row && x >= 0 && x < resized.width;
                const std::size_t at = row + static_cast<std::size_t>(is_pixel ? x : 0);
                *next++ = values[is_pixel ? resized.rgb[3 * at + channel] : 0];
            }
        }
    }
    return pixels;
}

at::Tensor to_video_pixels(const Frame& resized) {
    std::array<float, 256> values;
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = 2.0F * (static_cast<float>(i) / 255.0F) - 1.0F;
    }
    at::Tensor pixels = at::empty({3, resized.height, resized.width}, at::kFloat);
    float* next = pixels.mutable_data_ptr<float>();
    for (std::size_t channel = 0; channel < 3; ++channel) {
        for (std::size_t at = channel; at < resized.rgb.size(); at += 3) {
            *next++ = values[resized.rgb[at]];
        }
    }
    return pixels;
}

}  // namespace zoetrope
