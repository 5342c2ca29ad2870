// GGUF files: the blocks that gguf-py expands the same, hostile headers.
#include "base/mapped_file.h"
#include "errors.h"
#include "weights/gguf.h"
#include "weights/source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <random>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

const fs::path kGolden = fs::path(ZT_SOURCE_DIR) / "tests/golden/gguf/blocks.gguf";

std::map<std::string, std::size_t> positions(const TensorSource& source) {
    std::map<std::string, std::size_t> found;
    for (std::size_t i = 0; i < source.tensors().size(); ++i) found[source.tensors()[i].name] = i;
    return found;
}

// The bits are the same, of NaN too.
bool same_bits(const at::Tensor& a, const at::Tensor& b) {
    return a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() &&
           std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

TEST(Gguf, ExpandsBlocksAsTheReferenceDoes) {
    const auto source = open_weights_file(kGolden);
    const auto index = positions(*source);
    int compared = 0;
    for (const auto& [name, position] : index) {
        if (!name.ends_with(".f32")) continue;
        const std::size_t stored = index.at(name.substr(0, name.size() - 4));
        const TensorInfo& info = source->tensors()[stored];
        const at::Tensor wanted = source->read(position).view(info.shape);
        const at::Tensor found = source->read(stored);
        EXPECT_EQ(found.sizes(), at::IntArrayRef(info.shape)) << name;
        EXPECT_EQ(found.scalar_type(), info.dtype) << name;
        EXPECT_TRUE(same_bits(found.to(at::kFloat), wanted)) << name;
        for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
            EXPECT_TRUE(same_bits(source->read_as(stored, dtype), wanted.to(dtype)))
                << name << " as " << c10::toString(dtype);
        }
        ++compared;
    }
    EXPECT_EQ(compared, 13);
}

TEST(Gguf, TellsShapesFormatsAndMetadata) {
    const auto source = open_gguf(kGolden);
    const auto index = positions(*source);
    const auto info = [&](const char* name) { return source->tensors()[index.at(name)]; };
    EXPECT_EQ(info("Q4_K").shape, (std::vector<std::int64_t>{3, 512}));
    EXPECT_EQ(info("Q4_K").packed_as, "Q4_K");
    EXPECT_EQ(info("Q4_K").stored_bytes(), 6 * 144);
    EXPECT_TRUE(info("Q4_K").packed());
    EXPECT_EQ(info("Q4_K").dtype, at::kFloat);
    EXPECT_EQ(info("five.weight").shape, (std::vector<std::int64_t>{4, 3, 1, 2, 2}));
    EXPECT_EQ(info("five.weight").dtype, at::kHalf);
    EXPECT_FALSE(info("five.weight").packed());
    EXPECT_EQ(info("folded.weight").shape, (std::vector<std::int64_t>{16, 3, 2, 4, 4}));
    EXPECT_EQ(info("brain").dtype, at::kBFloat16);
    EXPECT_EQ(source->read(index.at("numbers"))[0].item<int>(), -3);
    EXPECT_FALSE(source->read(index.at("five.weight")).storage().resizable()) << "a view";

    std::map<std::string, std::string> metadata;
    for (const auto& [key, value] : source->metadata()) metadata[key] = value;
    const std::map<std::string, std::string> wanted = {
        {"general.architecture", "wan"},
        {"test.u8", "200"},
        {"test.i8", "-100"},
        {"test.u16", "60000"},
        {"test.i16", "-30000"},
        {"test.i32", "-2000000000"},
        {"test.f32", "0.5"},
        {"test.bool", "true"},
        {"test.u64", "9223372036854775808"},
        {"test.i64", "-1099511627776"},
        {"test.f64", "0.25"},
        {"test.text", "ä\n"},
        {"test.few", "[1, 2, 3]"},
        {"test.many", "40 numbers"},
        {"test.texts", "2 texts"},
        {"comfy.gguf.orig_shape.folded.weight", "[16, 3, 2, 4, 4]"},
    };
    EXPECT_EQ(metadata, wanted);
}

TEST(Gguf, ExpandsFast) {
    // The bar is slack for a busy machine: a block of any format in a tenth of what one core does.
    for (const char* name : {"Q8_0", "Q6_K", "Q5_K", "Q5_0", "Q4_K", "Q4_0", "Q3_K", "Q2_K"}) {
        const gguf::Format* format = nullptr;
        for (std::uint32_t id = 0; id < 40; ++id) {
            const gguf::Format* found = gguf::find_format(id);
            if (found != nullptr && found->name == name) format = found;
        }
        ASSERT_NE(format, nullptr) << name;
        const std::int64_t count = (1 << 20) / format->block_elements;
        const std::vector<std::byte> blocks(static_cast<std::size_t>(count * format->block_bytes));
        std::vector<float> out(1 << 20);
        double best = 1e9;
        for (int round = 0; round < 5; ++round) {
            const auto begin = std::chrono::steady_clock::now();
            format->expand(blocks.data(), count, out.data());
            const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
            best = std::min(best, seconds.count());
        }
        std::printf("[          ] %s: %.0f MB of float32 a second\n", name, 4.194304 / best);
        EXPECT_GT(4.194304 / best, 50) << name;
    }
}

// --- headers that are wrong ---

void put_text(std::string& file, std::string_view text) {
    const std::uint64_t size = text.size();
    file.append(reinterpret_cast<const char*>(&size), 8).append(text);
}
template <typename T>
void put(std::string& file, T number) {
    file.append(reinterpret_cast<const char*>(&number), sizeof(T));
}

struct Described {
    std::string name = "w";
    std::vector<std::uint64_t> dimensions = {4};  // innermost first
    std::uint32_t format = 0;
    std::uint64_t offset = 0;
};

struct FileParts {
    std::uint32_t version = 3;
    std::vector<Described> tensors = {{}};
    std::uint64_t tensor_count = 1;
    std::uint64_t pair_count = 0;
    std::string pairs;
    std::size_t data_bytes = 16;
};

std::string file_of(const FileParts& parts) {
    std::string file = "GGUF";
    put(file, parts.version);
    put(file, parts.tensor_count);
    put(file, parts.pair_count);
    file += parts.pairs;
    for (const Described& tensor : parts.tensors) {
        put_text(file, tensor.name);
        put(file, static_cast<std::uint32_t>(tensor.dimensions.size()));
        for (const auto size : tensor.dimensions) put(file, size);
        put(file, tensor.format);
        put(file, tensor.offset);
    }
    file.resize((file.size() + 31) / 32 * 32);
    file.resize(file.size() + parts.data_bytes);
    return file;
}

std::pair<ErrorKind, std::string> parse_error(const std::string& file) {
    return error_of([&] { gguf::parse(std::as_bytes(std::span(file)), "x.gguf"); });
}

TEST(Gguf, BrokenHeadersAreNamed) {
    EXPECT_EQ(parse_error(file_of({})).second, "nothing was thrown");
    std::string pair, twice, list, shape;
    put_text(pair, "general.alignment");
    put<std::uint32_t>(pair, 4);
    put<std::uint32_t>(pair, 24);
    put_text(twice, "a");
    put<std::uint32_t>(twice, 7);
    put<std::uint8_t>(twice, 1);
    twice += twice;
    put_text(list, "a");
    put<std::uint32_t>(list, 9);
    put<std::uint32_t>(list, 9);
    put<std::uint64_t>(list, 1);
    put_text(shape, "comfy.gguf.orig_shape.w");
    put<std::uint32_t>(shape, 9);
    put<std::uint32_t>(shape, 5);
    put<std::uint64_t>(shape, 2);
    put<std::int32_t>(shape, 2);
    put<std::int32_t>(shape, 3);
    std::string endless_list = list.substr(0, 13);
    put<std::uint32_t>(endless_list, 8);
    put<std::uint64_t>(endless_list, ~std::uint64_t{0});
    constexpr std::uint64_t kHuge = std::uint64_t{1} << 62;

    struct Case {
        FileParts parts;
        ErrorKind kind;
        std::string message;
    };
    const std::vector<Case> cases = {
        {{.version = 1}, ErrorKind::unsupported, "GGUF version 1: read are the versions 2 and 3"},
        {{.version = 0x03000000}, ErrorKind::unsupported, "GGUF version 50331648"},
        {{.tensor_count = 2}, ErrorKind::io, "breaks off"},
        {{.tensor_count = ~std::uint64_t{0}}, ErrorKind::io, "breaks off"},
        {{.pair_count = ~std::uint64_t{0}}, ErrorKind::io, "x.gguf"},
        {{.pair_count = 1, .pairs = pair}, ErrorKind::io, "general.alignment is 24"},
        {{.pair_count = 2, .pairs = twice}, ErrorKind::io, "have the key 'a' twice"},
        {{.pair_count = 1, .pairs = list}, ErrorKind::io, "'a' is a list of lists"},
        {{.pair_count = 1, .pairs = endless_list}, ErrorKind::io, "breaks off"},
        {{.pair_count = 1, .pairs = shape},
         ErrorKind::io,
         "tensor w of shape [4] is said to have had the shape [2, 3]"},
        {{.tensors = {{.name = std::string(1001, 'x')}}}, ErrorKind::io, "no tensor name"},
        {{.tensors = {{.name = "\x1b[2J"}}}, ErrorKind::io, "'?[2J' is no tensor name"},
        {{.tensors = {{.name = "\xc3"}}}, ErrorKind::io, "'?' is no tensor name"},
        {{.tensors = {{}, {.offset = 32}}, .tensor_count = 2},
         ErrorKind::io,
         "tensor w comes twice"},
        {{.tensors = {{.dimensions = std::vector<std::uint64_t>(9, 1)}}},
         ErrorKind::io,
         "tensor w has 9 dimensions, at most 8"},
        {{.tensors = {{.dimensions = {~std::uint64_t{0}}}}}, ErrorKind::io, "has a dimension of"},
        {{.tensors = {{.dimensions = {kHuge, kHuge}}}}, ErrorKind::io, "more bytes than 64 bits"},
        {{.tensors = {{.dimensions = {kHuge, 0, kHuge}}}},
         ErrorKind::io,
         "more bytes than 64 bits"},
        {{.tensors = {{.format = 16}}},
         ErrorKind::unsupported,
         "tensor w is stored in the ggml format number 16, which is not read. Read are F32"},
        {{.tensors = {{.format = 4}}}, ErrorKind::unsupported, "format number 4"},
        {{.tensors = {{.dimensions = {48}, .format = 8}}},
         ErrorKind::io,
         "tensor w has rows of 48 numbers, and Q8_0 comes in blocks of 32"},
        {{.tensors = {{.offset = 8}}}, ErrorKind::io, "which is no multiple of 32"},
        {{.tensors = {{.offset = 32}}},
         ErrorKind::io,
         "the file breaks off: tensor w has 16 bytes"},
        {{.tensors = {{.offset = ~std::uint64_t{31}}}}, ErrorKind::io, "the file breaks off"},
        {{.tensors = {{.dimensions = {5}}}}, ErrorKind::io, "tensor w has 20 bytes at byte 0"},
        {{.tensors = {{.dimensions = {16}}, {.name = "v", .offset = 32}},
          .tensor_count = 2,
          .data_bytes = 64},
         ErrorKind::io,
         "tensor v begins at byte 32 of the data, but the one before it ends at 64"},
    };
    for (const Case& wrong : cases) {
        const auto [kind, message] = parse_error(file_of(wrong.parts));
        EXPECT_EQ(kind, wrong.kind) << wrong.message << "\n" << message;
        EXPECT_THAT(message, AllOf(HasSubstr("x.gguf"), HasSubstr(wrong.message)));
        EXPECT_LT(message.size(), 700u);
    }
}

TEST(Gguf, EmptyTensorsLieInTheFileToo) {
    std::string file = file_of({.tensors = {{.dimensions = {0}}}, .data_bytes = 0});
    EXPECT_EQ(parse_error(file).second, "nothing was thrown");
    file.pop_back();
    EXPECT_THAT(parse_error(file).second, HasSubstr("breaks off where its data begin, at byte 64"));
}

TEST(Gguf, CutAndFlippedFilesNeverLeadOutside) {
    const auto file = MappedFile::open(kGolden);
    const auto whole = file->bytes();
    const auto last = gguf::parse(whole, "x").entries.back().end;
    const auto tries = [](std::span<const std::byte> bytes) {
        try {
            for (const auto& entry : gguf::parse(bytes, "x").entries) {
                ASSERT_LE(entry.begin, entry.end);
                ASSERT_LE(entry.end, bytes.size());
            }
        } catch (const Error&) {
        }
    };
    const std::size_t header = gguf::parse(whole, "x").entries.front().begin;
    for (std::size_t size = 0; size < last; ++size) {
        // In steps where only data are cut.
        if (size > header + 100 && size + 100 < last && size % 97 != 0) continue;
        EXPECT_EQ(error_of([&] { gguf::parse(whole.first(size), "x"); }).first, ErrorKind::io)
            << size;
    }
    std::vector<std::byte> changed(whole.begin(), whole.end());
    for (std::size_t i = 0; i < header; ++i) {
        for (const int flip : {1, 0x80, 0xff}) {
            changed[i] ^= static_cast<std::byte>(flip);
            tries(changed);
            changed[i] = whole[i];
        }
    }
}

}  // namespace
}  // namespace zoetrope
