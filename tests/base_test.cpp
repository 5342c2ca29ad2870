#include "base/error.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "base/partial_file.h"
#include "base/progress.h"
#include "base/sizes.h"
#include "errors.h"
#include "scratch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <iterator>

namespace zoetrope {
namespace {

using testing::HasSubstr;

TEST(Error, CheckCarriesKindAndMessage) {
    const int frames = -3;
    const auto [kind, message] =
        error_of([&] { ZT_CHECK(frames > 0, bad_request, "got {}, want 1 or more", frames); });
    EXPECT_EQ(kind, ErrorKind::bad_request);
    EXPECT_EQ(message, "got -3, want 1 or more");
}

TEST(Sizes, ParsesBinaryUnits) {
    EXPECT_EQ(parse_bytes("1024"), 1024);
    EXPECT_EQ(parse_bytes("512M"), 512LL << 20);
    EXPECT_EQ(parse_bytes("24GiB"), 24LL << 30);
    EXPECT_EQ(parse_bytes("1.5gb"), 3LL << 29);
    for (const char* bad : {"", "GiB", "12X", "-1", "1e30", "12 GiB", "3KK"}) {
        EXPECT_EQ(error_of([&] { parse_bytes(bad); }).first, ErrorKind::bad_request) << bad;
    }
}

TEST(Sizes, FormatsForPeople) {
    EXPECT_EQ(format_bytes(1000), "1000 B");
    EXPECT_EQ(format_bytes(3LL << 29), "1.50 GiB");
    EXPECT_EQ(format_seconds(3.21), "3.2s");
    EXPECT_EQ(format_seconds(83.4), "1m 23s");
    EXPECT_EQ(format_seconds(7260), "2h 01m");
}

TEST(MappedFile, MissingFileFolderAndEmptyFile) {
    EXPECT_EQ(error_of([] { MappedFile::open("/nowhere/at/all"); }).first, ErrorKind::not_found);
    EXPECT_EQ(error_of([] { MappedFile::open("/tmp"); }).first, ErrorKind::io);
    const Scratch scratch;
    const auto path = scratch / "empty";
    std::ofstream(path).close();
    EXPECT_EQ(MappedFile::open(path)->bytes().size(), 0u);
}

TEST(Json, BrokenFileIsNamed) {
    const Scratch scratch;
    const auto path = scratch / "broken.json";
    std::ofstream(path) << "{\"a\": ";
    const auto [kind, message] = error_of([&] { read_json(path); });
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_THAT(message, HasSubstr("broken.json"));
}

TEST(Json, PythonsInfinityAndNanAreRead) {
    const auto json = parse_json(
        R"({"a": -Infinity, "b": [Infinity, NaN], "c": "NaN \"Infinity\" \\", "d": 1})", "test");
    EXPECT_EQ(json["a"].get<double>(), -std::numeric_limits<double>::max());
    EXPECT_EQ(json["b"][0].get<double>(), std::numeric_limits<double>::max());
    EXPECT_TRUE(json["b"][1].is_null());
    EXPECT_EQ(json["c"].get<std::string>(), "NaN \"Infinity\" \\");
    EXPECT_EQ(json["d"], 1);
}

TEST(WholeFile, IsThereOrNot) {
    const Scratch scratch;
    const auto path = scratch / "a.json";
    write_whole_file(path, "1");
    write_whole_file(path, "2");
    EXPECT_EQ(read_json(path), 2);
    EXPECT_EQ(error_of([&] { write_whole_file(scratch.path(), "3"); }).first, ErrorKind::io);
    const auto entries = std::filesystem::directory_iterator(scratch.path());
    EXPECT_EQ(std::distance(begin(entries), end(entries)), 1);
}

TEST(WholeFile, GoesThroughPipes) {
    const Scratch scratch;
    const auto pipe = scratch / "pipe";
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    const int reader = ::open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
    ASSERT_GE(reader, 0);
    write_whole_file(pipe, "text");
    std::array<char, 8> read{};
    EXPECT_EQ(::read(reader, read.data(), read.size()), 4);
    EXPECT_STREQ(read.data(), "text");
    ::close(reader);
    EXPECT_TRUE(std::filesystem::is_fifo(pipe));
    const auto [kind, message] = error_of([&] { const PartialFile file(pipe); });
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_THAT(message, HasSubstr("a device or a pipe"));
}

TEST(RunControl, StopBecomesCancelled) {
    std::stop_source source;
    const RunControl control{.stop = source.get_token()};
    control.throw_if_stopped();
    source.request_stop();
    EXPECT_EQ(error_of([&] { control.throw_if_stopped(); }).first, ErrorKind::cancelled);
}

}  // namespace
}  // namespace zoetrope
