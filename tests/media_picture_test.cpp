#include "media/picture.h"

#include "base/json.h"
#include "media_common.h"
#include "picture_checks.h"

namespace zoetrope {
namespace {

using namespace media_test;
using testing::HasSubstr;

const fs::path kGolden = fs::path(ZT_SOURCE_DIR) / "tests/golden/media";

std::vector<std::uint8_t> read_file(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

std::pair<ErrorKind, std::string> error_with(std::span<const std::uint8_t> bytes,
                                             const PictureLimits& limits = {}) {
    return error_of([&] { decode_picture(bytes, "given.xyz", limits); });
}

TEST(Picture, EveryKindHasThePixelsThatPillowGives) {
    const nlohmann::json golden = read_json(kGolden / "pictures.json");
    ASSERT_GT(golden.size(), 50u);
    for (const auto& [name, expected] : golden.items()) {
        SCOPED_TRACE(name);
        const Frame found = load_picture(kGolden / "pictures" / name);
        EXPECT_EQ(found.width, expected.at("width"));
        EXPECT_EQ(found.height, expected.at("height"));
        EXPECT_EQ(crc32_of(found.rgb), expected.at("crc32"));
        const bool by_ffmpeg = name.ends_with(".tiff");
        EXPECT_EQ(decode_picture(read_file(kGolden / "pictures" / name), name).has_value(),
                  !by_ffmpeg);
    }
}

TEST(Picture, AFileThatBreaksOffIsAnError) {
    for (const std::string name :
         {"rgb.png", "palette.png", "rgb_interlaced.png", "420.jpg", "progressive.jpg", "grey.jpg",
          "lossy.webp", "lossless_alpha.webp", "24.bmp", "8.bmp", "plain.gif"}) {
        SCOPED_TRACE(name);
        const std::vector<std::uint8_t> whole = read_file(kGolden / "pictures" / name);
        for (const double part : {0.05, 0.3, 0.6, 0.9}) {
            const auto size = static_cast<std::size_t>(part * static_cast<double>(whole.size()));
            const auto [kind, message] = error_with(std::span(whole).first(size));
            EXPECT_EQ(kind, ErrorKind::io) << message;
            EXPECT_THAT(message, HasSubstr("'given.xyz'"));
        }
    }
}

TEST(Picture, BytesBehindThePictureDoNotMatter) {
    const nlohmann::json golden = read_json(kGolden / "pictures.json");
    for (const std::string name : {"rgb.png", "420.jpg", "24.bmp", "plain.gif"}) {
        std::vector<std::uint8_t> bytes = read_file(kGolden / "pictures" / name);
        bytes.insert(bytes.end(), {1, 2, 3, 4, 5, 6, 7, 8});
        EXPECT_EQ(crc32_of(decode_picture(bytes, name)->rgb), golden.at(name).at("crc32")) << name;
    }
    // Pillow too takes a PNG whose last chunk is gone.
    const std::vector<std::uint8_t> png = read_file(kGolden / "pictures/rgb.png");
    const auto found = decode_picture(std::span(png).first(png.size() - 12), "png");
    EXPECT_EQ(crc32_of(found->rgb), golden.at("rgb.png").at("crc32"));
}

// What this process has asked the system for at most, in KiB.
std::int64_t peak_address_space() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("VmPeak:")) return std::stoll(line.substr(7));
    }
    return 0;
}

// Before and behind the pixels: a chunk of "2 GB" in a file of some hundred bytes.
TEST(Picture, AChunkLongerThanTheFileTakesNoMemory) {
    const std::vector<std::uint8_t> png = read_file(kGolden / "pictures/rgb.png");
    const std::vector<std::uint8_t> chunk = {0x7A, 0, 0, 0x42, 'i', 'T', 'X', 't', 'a', 0, 0, 0, 0};
    const std::int64_t before = peak_address_space();
    ASSERT_GT(before, 0);
    auto early = png, late = png;
    early.insert(early.begin() + 33, chunk.begin(), chunk.end());  // behind the header
    const auto [kind, message] = error_with(early);
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_THAT(message, HasSubstr("truncated"));
    late.insert(late.end() - 12, chunk.begin(), chunk.end());  // before the end
    EXPECT_EQ(crc32_of(decode_picture(late, "late")->rgb),
              crc32_of(decode_picture(png, "png")->rgb));
    EXPECT_LT(peak_address_space() - before, 256 * 1024);
}

TEST(Picture, LimitsHoldBeforeMemoryIsTaken) {
    for (const std::string name : {"rgb.png", "420.jpg", "lossy.webp", "24.bmp", "plain.gif"}) {
        const std::vector<std::uint8_t> bytes = read_file(kGolden / "pictures" / name);
        const auto [kind, message] = error_with(bytes, {.pixels = 43 * 31 - 1});
        EXPECT_EQ(kind, ErrorKind::bad_request) << name;
        EXPECT_THAT(message, HasSubstr("43x31"));
        EXPECT_TRUE(decode_picture(bytes, name, {.pixels = 43 * 31})) << name;
    }
    std::vector<std::uint8_t> png = read_file(kGolden / "pictures/rgb.png");
    std::fill_n(png.begin() + 16, 8, 0x7F);  // width and height
    EXPECT_NE(error_with(png).first, ErrorKind::internal);
    std::vector<std::uint8_t> bmp = read_file(kGolden / "pictures/24.bmp");
    std::fill_n(bmp.begin() + 18, 7, 0x7F);
    EXPECT_EQ(error_with(bmp).first, ErrorKind::bad_request);
}

TEST(Picture, RefusesWhatItDoesNotRead) {
    std::vector<std::uint8_t> grey = read_file(kGolden / "pictures/grey_alpha_16.png");
    grey[25] = 0;  // no alpha: its checksum is wrong then
    EXPECT_EQ(error_with(grey).first, ErrorKind::io);
    std::vector<std::uint8_t> bmp = read_file(kGolden / "pictures/8.bmp");
    bmp[30] = 1;  // run lengths
    const auto [kind, message] = error_with(bmp);
    EXPECT_EQ(kind, ErrorKind::unsupported);
    EXPECT_THAT(message, HasSubstr("convert it to PNG"));
    EXPECT_EQ(error_with(read_file(kGolden / "grey_16.png")).first, ErrorKind::unsupported);

    const std::vector<std::uint8_t> text{'h', 'e', 'l', 'l', 'o'};
    EXPECT_FALSE(decode_picture(text, "text"));
    EXPECT_FALSE(decode_picture({}, "nothing"));
    EXPECT_EQ(error_of([] { load_picture("/nowhere/picture.png"); }).first, ErrorKind::not_found);
}

}  // namespace
}  // namespace zoetrope
