#include "base/json.h"
#include "errors.h"
#include "media/resize.h"
#include "picture_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace zoetrope {
namespace {

using testing::HasSubstr;

const std::filesystem::path kGolden = std::filesystem::path(ZT_SOURCE_DIR) / "tests/golden/media";

TEST(Resize, EqualsPillowBitForBit) {
    const nlohmann::json golden = read_json(kGolden / "resize.json");
    ASSERT_GT(golden.at("cases").size(), 400u);
    for (const auto& row : golden.at("cases")) {
        const auto [width, height, to_width, to_height, filter, seed, contrast, crc] =
            row.get<std::array<std::uint32_t, 8>>();
        const Frame picture =
            generated(static_cast<int>(width), static_cast<int>(height), seed, contrast != 0);
        const Frame found = resize(picture, static_cast<int>(to_width), static_cast<int>(to_height),
                                   static_cast<ResizeFilter>(filter));
        ASSERT_EQ(found.width, to_width);
        ASSERT_EQ(found.height, to_height);
        EXPECT_EQ(crc32_of(found.rgb), crc) << width << "x" << height << " to " << to_width << "x"
                                            << to_height << ", filter " << filter;
    }
}

TEST(Resize, KeepsAPictureOfThatSize) {
    const Frame picture = generated(17, 11, 3, false);
    EXPECT_EQ(resize(picture, 17, 11, ResizeFilter::lanczos).rgb, picture.rgb);
}

TEST(Resize, RefusesSizesThatAreNone) {
    const Frame picture(4, 4);
    for (const auto& [width, height] :
         {std::pair(0, 5), std::pair(5, -1), std::pair(1 << 20, 1 << 20)}) {
        const auto [kind, message] =
            error_of([&, w = width, h = height] { resize(picture, w, h, ResizeFilter::box); });
        EXPECT_EQ(kind, ErrorKind::bad_request);
        EXPECT_THAT(message, HasSubstr(std::to_string(height)));
    }
    EXPECT_EQ(error_of([] { resize(Frame(), 4, 4, ResizeFilter::nearest); }).first,
              ErrorKind::bad_request);
}

}  // namespace
}  // namespace zoetrope
