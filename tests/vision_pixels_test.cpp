#include "base/json.h"
#include "errors.h"
#include "media/picture.h"
#include "media/resize.h"
#include "picture_checks.h"
#include "vision/pixels.h"

#include <ATen/core/Tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace zoetrope {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const std::filesystem::path kGolden = std::filesystem::path(ZT_SOURCE_DIR) / "tests/golden";

Frame picture_of(const json& row) {
    return load_picture(kGolden / "media/pictures" / row.at("picture").get<std::string>());
}

std::uint32_t checksum(const at::Tensor& pixels) {
    return crc32_of({static_cast<const std::uint8_t*>(pixels.const_data_ptr()), pixels.nbytes()});
}

TEST(ClipPreprocess, PixelsEqualTransformersBitForBit) {
    const json golden = read_json(kGolden / "vision/pixels.json");
    ASSERT_EQ(golden.at("clip").size(), 15u);
    for (const json& row : golden.at("clip")) {
        SCOPED_TRACE(row.at("processor").dump() + " " + row.at("picture").dump());
        const auto preprocess = ClipPreprocess::from_json(row.at("config"));
        const Frame picture = picture_of(row);
        const PictureSize size = preprocess.resize_size({picture.width, picture.height});
        const at::Tensor pixels =
            preprocess.to_pixels(resize(picture, size.width, size.height, preprocess.filter));
        EXPECT_EQ(pixels.sizes().vec(), row.at("shape").get<std::vector<std::int64_t>>());
        EXPECT_NEAR(pixels.to(at::kDouble).mean().item().toDouble(), row.at("mean"), 1e-6);
        EXPECT_EQ(checksum(pixels), row.at("crc32"));
    }
}

TEST(VideoPixels, EqualDiffusersBitForBit) {
    const json golden = read_json(kGolden / "vision/pixels.json");
    ASSERT_EQ(golden.at("video").size(), 6u);
    for (const json& row : golden.at("video")) {
        SCOPED_TRACE(row.at("picture").dump());
        const auto shape = row.at("shape").get<std::vector<std::int64_t>>();  // [1, 3, H, W]
        const at::Tensor pixels =
            to_video_pixels(resize(picture_of(row), static_cast<int>(shape[3]),
                                   static_cast<int>(shape[2]), ResizeFilter::lanczos));
        EXPECT_EQ(pixels.unsqueeze(0).sizes().vec(), shape);
        EXPECT_EQ(checksum(pixels), row.at("crc32"));
    }
}

TEST(ClipPreprocess, ResizesTheShortestEdgeCuttingTheOtherOff) {
    const ClipPreprocess clip;
    EXPECT_EQ(clip.resize_size({832, 480}), (PictureSize{388, 224}));  // 388.27
    EXPECT_EQ(clip.resize_size({480, 832}), (PictureSize{224, 388}));
    EXPECT_EQ(clip.resize_size({1, 3}), (PictureSize{224, 672}));
    EXPECT_EQ(clip.resize_size({224, 224}), (PictureSize{224, 224}));
    EXPECT_EQ(error_of([&] { clip.resize_size({1, 1 << 20}); }).first, ErrorKind::bad_request);
}

TEST(ClipPreprocess, ReadsOlderConfigs) {
    const auto clip = ClipPreprocess::from_json(
        json::parse(R"({"crop_size": 224, "size": 336, "resample": 2, "do_rescale": false})"));
    EXPECT_EQ(clip.shortest_edge, 336);
    EXPECT_EQ(clip.crop, (PictureSize{224, 224}));
    EXPECT_EQ(clip.filter, ResizeFilter::bilinear);
    EXPECT_EQ(clip.rescale_factor, 1);
    EXPECT_EQ(clip.mean[0], 0.48145466);
}

TEST(ClipPreprocess, RefusesWhatItDoesNotKnow) {
    const auto kind_of = [](const char* text) {
        const auto [kind, message] =
            error_of([&] { ClipPreprocess::from_json(json::parse(text)); });
        EXPECT_THAT(message, HasSubstr("preprocessor_config.json")) << text;
        return kind;
    };
    EXPECT_EQ(kind_of("[]"), ErrorKind::io);
    EXPECT_EQ(kind_of(R"({"resample": 6})"), ErrorKind::io);
    EXPECT_EQ(kind_of(R"({"resample": "bicubic"})"), ErrorKind::io);
    EXPECT_EQ(kind_of(R"({"size": {"shortest_edge": 224, "longest_edge": 300}})"),
              ErrorKind::unsupported);
    EXPECT_EQ(kind_of(R"({"size": {"shortest_edge": -1}})"), ErrorKind::io);
    EXPECT_EQ(kind_of(R"({"crop_size": {"height": 3}})"), ErrorKind::io);
    EXPECT_EQ(kind_of(R"({"image_mean": [1, 2]})"), ErrorKind::io);
    EXPECT_EQ(kind_of(R"({"image_std": [1, 0, 1]})"), ErrorKind::io);
    EXPECT_EQ(kind_of(R"({"do_resize": 1})"), ErrorKind::io);
}

}  // namespace
}  // namespace zoetrope
