// Weight files: safetensors of every dtype, hostile headers, component folders.
#include "base/error.h"
#include "base/log.h"
#include "errors.h"
#include "scratch.h"
#include "weights/safetensors_writer.h"
#include "weights/source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>

#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <map>
#include <set>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

const fs::path kGolden = fs::path(ZT_SOURCE_DIR) / "tests/golden/weights";

class WeightFiles : public testing::Test {
protected:
    fs::path write(const std::string& name, const std::string& content) const {
        std::ofstream(folder_ / name, std::ios::binary) << content;
        return folder_ / name;
    }

    // A .safetensors file of this header and this many bytes of data (1, 2, 3, ...).
    fs::path write_raw(const std::string& header, std::size_t data_bytes = 0) const {
        std::string content;
        for (int i = 0; i < 8; ++i) content += static_cast<char>(header.size() >> (8 * i));
        content += header;
        for (std::size_t i = 0; i < data_bytes; ++i) content += static_cast<char>(i + 1);
        return write("raw.safetensors", content);
    }

    // What opening that file fails with.
    std::pair<ErrorKind, std::string> raw_error(const std::string& header,
                                                std::size_t data_bytes = 0) const {
        const auto path = write_raw(header, data_bytes);
        return error_of([&] { open_safetensors(path); });
    }

    void write_tensor(const std::string& file, const std::string& name, double value) const {
        const std::vector<NamedTensor> tensors = {{name, at::full({2, 3}, value)}};
        write_safetensors(folder_ / file, tensors);
    }

    const Scratch scratch_;
    const fs::path folder_ = scratch_.path();
};

std::map<std::string, at::Tensor> read_all(const TensorSource& source) {
    std::map<std::string, at::Tensor> tensors;
    for (std::size_t i = 0; i < source.tensors().size(); ++i) {
        const TensorInfo& info = source.tensors()[i];
        const at::Tensor tensor = source.read(i);
        EXPECT_EQ(tensor.sizes(), at::IntArrayRef(info.shape)) << info.name;
        EXPECT_EQ(tensor.scalar_type(), info.dtype) << info.name;
        EXPECT_EQ(static_cast<std::int64_t>(tensor.nbytes()), info.bytes()) << info.name;
        EXPECT_TRUE(tensor.is_contiguous()) << info.name;
        tensors[info.name] = tensor;
    }
    return tensors;
}

const std::vector<at::ScalarType> kAllDtypes = {
    at::kBool,   at::kByte, at::kChar,   at::kFloat8_e5m2, at::kFloat8_e4m3fn,
    at::kShort,  at::kHalf, at::kUInt16, at::kBFloat16,    at::kInt,
    at::kUInt32, at::kLong, at::kUInt64, at::kDouble,      at::kFloat};

TEST_F(WeightFiles, ReadsWhatPythonWrote) {
    const auto source = open_safetensors(kGolden / "dtypes.safetensors");
    const auto tensors = read_all(*source);
    ASSERT_EQ(tensors.size(), 2 + 2 * kAllDtypes.size());
    std::set<at::ScalarType> dtypes;
    for (const auto& [name, values] : tensors) {
        if (!name.ends_with(".f64")) continue;
        const at::Tensor& stored = tensors.at(name.substr(0, name.size() - 4));
        EXPECT_TRUE(stored.to(at::kDouble).equal(values)) << name;
        dtypes.insert(stored.scalar_type());
    }
    EXPECT_EQ(dtypes.size(), kAllDtypes.size());
    EXPECT_EQ(tensors.at("scalar").dim(), 0);
    EXPECT_EQ(tensors.at("scalar").item<float>(), 2.5F);
    EXPECT_EQ(tensors.at("empty").sizes(), at::IntArrayRef({0, 4}));
    EXPECT_THAT(source->metadata(),
                testing::UnorderedElementsAre(std::pair("format", "pt"),
                                              std::pair("note", "ä\n\"quoted\"")));
}

TEST_F(WeightFiles, WritesWhatItReads) {
    std::vector<NamedTensor> written;
    const at::Tensor values = at::arange(12, at::kDouble).view({3, 4});
    for (const at::ScalarType dtype : kAllDtypes) {
        written.push_back({std::string("of \"") + c10::toString(dtype) + "\"", values.to(dtype)});
    }
    written.push_back({"transposed", values.to(at::kFloat).t()});
    written.push_back({"scalar", at::scalar_tensor(7, at::kHalf)});
    written.push_back({"none", at::empty({4, 0, 2})});
    const std::vector<std::pair<std::string, std::string>> metadata = {{"a", "1"}, {"ü", "\n"}};
    write_safetensors(folder_ / "x.safetensors", written, metadata);

    const auto source = open_safetensors(folder_ / "x.safetensors");
    const auto read = read_all(*source);
    ASSERT_EQ(read.size(), written.size());
    for (const auto& [name, tensor] : written) {
        EXPECT_EQ(read.at(name).scalar_type(), tensor.scalar_type()) << name;
        EXPECT_TRUE(read.at(name).to(at::kDouble).equal(tensor.to(at::kDouble))) << name;
        // A view into the file, which all of these are aligned for.
        EXPECT_EQ(read.at(name).storage().resizable(), tensor.numel() == 0) << name;
    }
    EXPECT_EQ(source->metadata(), metadata);
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1) << "temporary file left";
}

TEST_F(WeightFiles, ViewsOutliveTheirSource) {
    write_tensor("x.safetensors", "a", 4);
    const at::Tensor tensor = open_safetensors(folder_ / "x.safetensors")->read(0);
    fs::remove(folder_ / "x.safetensors");
    EXPECT_TRUE(tensor.equal(at::full({2, 3}, 4.0)));
}

// Bytes of this file's mappings that are in this process's memory.
std::int64_t resident_bytes(const fs::path& file) {
    std::ifstream maps("/proc/self/smaps");
    std::string line;
    std::int64_t bytes = 0;
    bool inside = false;
    while (std::getline(maps, line)) {
        if (line.find('-') < line.find(' ')) inside = line.ends_with(file.string());
        if (inside && line.starts_with("Rss:")) bytes += std::stoll(line.substr(4)) * 1024;
    }
    return bytes;
}

TEST_F(WeightFiles, PagesOfABigTensorLeaveWithIt) {
    const auto path = folder_ / "x.safetensors";
    const std::vector<NamedTensor> written = {{"a", at::full({2 << 20}, 3.0)}};
    write_safetensors(path, written);
    const auto source = open_safetensors(path);
    at::Tensor tensor = source->read(0);
    EXPECT_EQ(tensor.sum().item<double>(), 3.0 * (2 << 20));
    EXPECT_GE(resident_bytes(path), 8 << 20);
    tensor.reset();
    EXPECT_LT(resident_bytes(path), 1 << 20);
    EXPECT_TRUE(source->read(0).equal(written[0].tensor));
}

TEST_F(WeightFiles, MisalignedDataAreCopied) {
    const auto path = write_raw(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                R"("b":{"dtype":"I32","shape":[2],"data_offsets":[1,9]}})",
                                9);
    const at::Tensor tensor = open_safetensors(path)->read(1);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % 4, 0u);
    EXPECT_EQ(tensor[0].item<int>(), 0x05040302);
    EXPECT_EQ(tensor[1].item<int>(), 0x09080706);
}

TEST_F(WeightFiles, HeadersThatAreLegalThoughOdd) {
    EXPECT_EQ(open_safetensors(write_raw("{}"))->tensors().size(), 0u);
    EXPECT_EQ(open_safetensors(write_raw("{ } \n\t  "))->tensors().size(), 0u);
    EXPECT_EQ(open_safetensors(write_raw(R"({"__metadata__":null})"))->tensors().size(), 0u);
    // Data in another order than the header, with an empty tensor between.
    const auto source =
        open_safetensors(write_raw(R"({"c":{"data_offsets":[1,3],"dtype":"F16","shape":[]},)"
                                   R"("b":{"shape":[0],"dtype":"F64","data_offsets":[1,1]},)"
                                   R"("a":{"dtype":"U8","shape":[1,1,1],"data_offsets":[0,1]}})",
                                   3));
    ASSERT_EQ(source->tensors().size(), 3u);
    EXPECT_EQ(source->tensors()[0].name, "a");
    EXPECT_EQ(source->tensors()[1].name, "b");
    EXPECT_EQ(source->tensors()[2].name, "c");
}

TEST_F(WeightFiles, NotASafetensorsFile) {
    EXPECT_EQ(error_of([&] { open_safetensors(folder_ / "absent"); }).first, ErrorKind::not_found);
    const auto error_for = [&](const std::string& content) {
        const auto path = write("x.safetensors", content);
        const auto [kind, message] = error_of([&] { open_safetensors(path); });
        EXPECT_EQ(kind, ErrorKind::io) << message;
        EXPECT_THAT(message, HasSubstr(path.string()));
        return message;
    };
    EXPECT_THAT(error_for(""), HasSubstr("a file of 0 bytes"));
    EXPECT_THAT(error_for("1234567"), HasSubstr("a file of 7 bytes"));
    EXPECT_THAT(error_for(std::string(8, '\xff')), HasSubstr("header of 18446744073709551615"));
    EXPECT_THAT(error_for(std::string("\1\xe1\xf5\5\0\0\0\0{}", 10)), HasSubstr("100000001 bytes"));
    EXPECT_THAT(error_for(std::string("\3\0\0\0\0\0\0\0{}", 10)), HasSubstr("breaks off"));
    EXPECT_THAT(error_for("GGUF and much more of it"), HasSubstr("header of"));
    EXPECT_THAT(error_for(std::string(8, '\0')), HasSubstr("not a JSON object"));
}

TEST_F(WeightFiles, HostileHeadersAreNamedErrors) {
    struct Case {
        std::string header;
        std::size_t data_bytes;
        std::string message;  // contained in what is thrown
    };
    const std::string first = R"("first":{"dtype":"U8","shape":[2],"data_offsets":[0,2]})";
    const auto tensor = [](const std::string& shape, const std::string& offsets) {
        return R"({"w.x":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
    };
    const std::vector<Case> cases = {
        {"[1]", 0, "not a JSON object"},
        {" {}", 0, "not a JSON object"},
        {std::string("{}\0{", 4), 0, "not a JSON object"},
        {"{", 0, "not valid JSON"},
        {"{}}", 0, "not valid JSON"},
        {"{\"a\xff\":{}}", 0, "not valid JSON"},
        {"{\"a\":" + std::string(1000000, '['), 0, "has a list in place of the description of 'a'"},
        {R"({"a":5})", 0, "has a number in place of the description of 'a'"},
        {R"({"a":{"dtype":{}}})", 0, "tensor a has an object as (or in) its dtype"},
        {R"({"a":{"b":1}})", 0, "tensor a has the unknown field 'b'"},
        {R"({"a":{}})", 0, "tensor a lacks its dtype"},
        {R"({"a":{"dtype":"F32"}})", 0, "tensor a lacks its shape"},
        {R"({"a":{"dtype":"F32","shape":[]}})", 0, "tensor a lacks its data_offsets"},
        {"{" + first + "," + first + "}", 2, "has 'first' twice"},
        {R"({"a":{"dtype":"F32","dtype":"F32"}})", 0, "tensor a has its dtype twice"},
        {R"({"__metadata__":{},"__metadata__":{}})", 0, "has '__metadata__' twice"},
        {R"({"__metadata__":{"k":"1","k":"2"}})", 0, "the metadata hold the key 'k' twice"},
        {R"({"__metadata__":{"k":1}})", 0, "the metadata's 'k' is a number"},
        {R"({"__metadata__":{"k":{}}})", 0, "the metadata's 'k' is an object"},
        {R"({"a\u001b[2J":{}})", 0, "'a?[2J' is no tensor name"},
        {"{\"" + std::string(1001, 'a') + "\":{}}", 0, "it has 1001 bytes"},
        {tensor("[-1]", "[0,4]"), 4, "tensor w.x has a negative number as (or in) its shape"},
        {tensor("[1.0]", "[0,4]"), 4, "tensor w.x has a number that is no integer"},
        {tensor("[1e3]", "[0,4]"), 4, "tensor w.x has a number that is no integer"},
        {tensor("[18446744073709551616]", "[0,4]"), 4, "a number that is no integer of 64 bits"},
        {tensor("[9223372036854775808]", "[0,4]"), 4, "a dimension of 9223372036854775808"},
        {tensor("[[1]]", "[0,4]"), 4, "tensor w.x has a list as (or in) its shape"},
        {tensor("null", "[0,4]"), 4, "tensor w.x has null as (or in) its shape"},
        {tensor("\"1\"", "[0,4]"), 4, "tensor w.x has a text as (or in) its shape"},
        {tensor("[4294967296,4294967296]", "[0,0]"), 0, "tensor w.x has a shape of more bytes"},
        {tensor("[2305843009213693952]", "[0,0]"), 0, "tensor w.x has a shape of more bytes"},
        {tensor("[4294967296,4294967296,0]", "[0,0]"), 0, "tensor w.x has a shape of more bytes"},
        {tensor("[0,4294967296,4294967296]", "[0,0]"), 0, "tensor w.x has a shape of more bytes"},
        {tensor("[1]", "[0,8]"), 8,
         "tensor w.x has 8 bytes of data, but its shape [1] in F32 takes 4"},
        {tensor("[1]", "[4,0]"), 4, "tensor w.x ends before it begins"},
        {tensor("[1]", "[0]"), 4, "tensor w.x has 1 data_offsets, wanted two"},
        {tensor("[1]", "[0,4,4]"), 4, "tensor w.x has more than two data_offsets"},
        {tensor("[1]", "[0,-4]"), 4,
         "tensor w.x has a negative number as (or in) its data_offsets"},
        {tensor("[1]", "[4,8]"), 8, "tensor w.x begins at byte 4 of the data"},
        {tensor("[3]", "[0,12]"), 11,
         "breaks off: tensor w.x ends at byte 12 of the data, the file "
         "has 11. Download"},
        {tensor("[1]", "[0,4]"), 5, "1 bytes of the file belong to no tensor"},
        {"{}", 3, "3 bytes of the file belong to no tensor"},
        {"{" + first + R"(,"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2,
         "tensor b begins at byte 1 of the data, but the one before it ends at 2"},
        {"{" + first + R"(,"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})", 4,
         "tensor b begins at byte 3 of the data, but the one before it ends at 2"},
    };
    for (const Case& wrong : cases) {
        const auto [kind, message] = raw_error(wrong.header, wrong.data_bytes);
        EXPECT_EQ(kind, ErrorKind::io) << wrong.header.substr(0, 200);
        EXPECT_THAT(message, AllOf(HasSubstr("raw.safetensors"), HasSubstr(wrong.message)))
            << wrong.header.substr(0, 200);
        EXPECT_LT(message.size(), 700u);
    }
    std::string many = "1";
    for (int i = 0; i < 64; ++i) many += ",1";
    EXPECT_THAT(raw_error(tensor("[" + many + "]", "[0,4]"), 4).second,
                HasSubstr("tensor w.x has more than 64 dimensions"));
}

TEST_F(WeightFiles, UnknownDtypesAreUnsupportedByName) {
    for (const std::string dtype : {"F4", "F8_E8M0", "C64", "f32", ""}) {
        const auto [kind, message] =
            raw_error(R"({"w":{"dtype":")" + dtype + R"(","shape":[2],"data_offsets":[0,1]}})", 1);
        EXPECT_EQ(kind, ErrorKind::unsupported);
        EXPECT_THAT(message, HasSubstr("tensor w has the dtype '" + dtype + "'"));
    }
}

TEST_F(WeightFiles, BigHeadersAreReadQuickly) {
    // As many tensors as three models of 14B have; the bar is slack for a busy machine.
    std::vector<NamedTensor> tensors;
    for (int i = 0; i < 3300; ++i) {
        tensors.push_back({fmt::format("blocks.{}.attn1.to_q.some_longer_name.weight", i),
                           at::zeros({1, 1, 1}, at::kByte)});
    }
    write_safetensors(folder_ / "x.safetensors", tensors);
    const auto begin = std::chrono::steady_clock::now();
    const auto source = open_safetensors(folder_ / "x.safetensors");
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    EXPECT_EQ(source->tensors().size(), tensors.size());
    EXPECT_LT(seconds.count(), 0.5);
    std::printf("[          ] %zu tensors in %.2f ms\n", tensors.size(), seconds.count() * 1e3);
}

TEST_F(WeightFiles, WriterRefusesWhatTheFormatCannotHold) {
    const at::Tensor one = at::ones({1});
    const auto error_for = [&](const std::vector<NamedTensor>& tensors) {
        return error_of([&] { write_safetensors(folder_ / "x.safetensors", tensors); });
    };
    EXPECT_THAT(error_for({{"a", one}, {"a", one}}).second, HasSubstr("'a'"));
    EXPECT_THAT(error_for({{"__metadata__", one}}).second, HasSubstr("reserved"));
    EXPECT_THAT(error_for({{"a\xff", one}}).second, HasSubstr("UTF-8"));
    EXPECT_EQ(error_for({{"a", one.to(at::kComplexFloat)}}).first, ErrorKind::unsupported);
    EXPECT_TRUE(fs::is_empty(folder_));

    const std::vector<NamedTensor> fine = {{"a", one}};
    const auto [kind, message] =
        error_of([&] { write_safetensors(folder_ / "no/such/x.safetensors", fine); });
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_THAT(message, HasSubstr("cannot write"));
}

// Tensor by tensor in any order; nothing is there under the name before the end.
TEST_F(WeightFiles, WriterStreamsInAnyOrder) {
    const std::vector<TensorInfo> infos = {{"bytes", {3}, at::kByte},
                                           {"wide", {2, 2}, at::kDouble},
                                           {"none", {0, 4}, at::kFloat},
                                           {"half", {5}, at::kBFloat16},
                                           {"one", {}, at::kFloat8_e4m3fn}};
    const fs::path file = folder_ / "x.safetensors";
    {
        SafetensorsWriter writer(file, infos, {});
        for (const std::size_t i : {std::size_t{4}, std::size_t{1}, std::size_t{3}})
            writer.write(i, at::full(infos[i].shape, 2.0).to(infos[i].dtype));
        EXPECT_FALSE(fs::exists(file));
        EXPECT_EQ(error_of([&] { writer.finish(); }).first, ErrorKind::internal);
        EXPECT_THAT(error_of([&] {
                        writer.write(1, at::zeros({2, 2}, at::kDouble));
                    }).second,
                    HasSubstr("written twice"));
        EXPECT_THAT(error_of([&] { writer.write(0, at::zeros({4}, at::kByte)); }).second,
                    HasSubstr("[3] Byte was announced"));
        EXPECT_THAT(error_of([&] { writer.write(0, at::zeros({3}, at::kChar)); }).second,
                    HasSubstr("was announced"));
        writer.write(0, at::full({3}, 7, at::kByte));
        writer.write(2, at::zeros({0, 4}));
        writer.finish();
        EXPECT_EQ(writer.bytes(), static_cast<std::int64_t>(fs::file_size(file)));
    }
    const auto source = open_safetensors(file);
    EXPECT_EQ(source->tensors()[0].name, "wide");  // aligned: wide elements first
    EXPECT_EQ(source->tensors().size(), infos.size());
    for (std::size_t i = 0; i < infos.size(); ++i) {
        const TensorInfo& info = source->tensors()[i];
        const at::Tensor tensor = source->read(i).to(at::kFloat);
        EXPECT_EQ(tensor.sizes(), at::IntArrayRef(info.shape));
        if (tensor.numel() == 0) continue;
        EXPECT_EQ(tensor.flatten()[0].item<float>(), info.name == "bytes" ? 7 : 2) << info.name;
    }
}

TEST_F(WeightFiles, ATensorIsWrittenPieceByPiece) {
    const at::Tensor whole = at::arange(24, at::kFloat).view({4, 3, 2});
    const fs::path file = folder_ / "x.safetensors";
    const std::vector<TensorInfo> infos = {{"b", {2}, at::kFloat}, {"a", {4, 3, 2}, at::kFloat}};
    {
        SafetensorsWriter writer(file, infos, {});
        writer.append(1, whole.narrow(0, 0, 1));
        writer.write(0, at::ones({2}));
        writer.append(1, whole.narrow(0, 1, 2));
        EXPECT_THAT(error_of([&] { writer.finish(); }).second, HasSubstr("18 elements of 24"));
        EXPECT_EQ(error_of([&] { writer.append(1, at::ones({7})); }).first, ErrorKind::internal);
        writer.append(1, whole.narrow(0, 3, 1));
        writer.finish();
    }
    const auto source = open_safetensors(file);
    for (std::size_t i = 0; i < 2; ++i) {
        if (source->tensors()[i].name == "a") {
            EXPECT_TRUE(source->read(i).equal(whole));
        }
    }
}

TEST_F(WeightFiles, AWriterThatIsLetGoLeavesNothing) {
    const std::vector<TensorInfo> infos = {{"a", {3}, at::kFloat}};
    { SafetensorsWriter writer(folder_ / "x.safetensors", infos, {}); }
    EXPECT_TRUE(fs::is_empty(folder_));
}

// A limit on file sizes stands for a disk that is full: it is told before any tensor is written.
TEST_F(WeightFiles, WriterTellsOfAFullDiskAtOnce) {
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    const rlimit small{.rlim_cur = 1 << 20, .rlim_max = before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
    const std::vector<TensorInfo> infos = {{"a", {1 << 20}, at::kFloat}};
    const auto [kind, message] =
        error_of([&] { SafetensorsWriter writer(folder_ / "x.safetensors", infos, {}); });
    ::setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_THAT(message, HasSubstr("which takes 4.00 MiB"));
    EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(WeightFiles, AFailedWriteLeavesTheOldFile) {
    write_tensor("x.safetensors", "old", 1);
    const std::vector<NamedTensor> twice = {{"a", at::ones({1})}, {"a", at::ones({1})}};
    EXPECT_ANY_THROW(write_safetensors(folder_ / "x.safetensors", twice));
    EXPECT_EQ(open_safetensors(folder_ / "x.safetensors")->tensors()[0].name, "old");
    write_tensor("x.safetensors", "new", 2);
    EXPECT_EQ(open_safetensors(folder_ / "x.safetensors")->tensors()[0].name, "new");
}

TEST_F(WeightFiles, JoinedSourcesShareNoName) {
    write_tensor("x.safetensors", "a", 1);
    write_tensor("y.safetensors", "b", 2);
    const auto x = open_safetensors(folder_ / "x.safetensors");
    const auto y = open_safetensors(folder_ / "y.safetensors");
    const auto both = join_sources({x, y}, "both");
    EXPECT_EQ(both->description(), "both");
    const auto tensors = read_all(*both);
    EXPECT_EQ(tensors.at("a")[0][0].item<float>(), 1);
    EXPECT_EQ(tensors.at("b")[0][0].item<float>(), 2);
    EXPECT_THAT(error_of([&] {
                    join_sources({x, y, x}, "all");
                }).second,
                AllOf(HasSubstr("tensor a is in both"), HasSubstr("x.safetensors")));
}

TEST_F(WeightFiles, ComponentFolderWithOneFile) {
    for (const std::string stem : {"model", "diffusion_pytorch_model"}) {
        write_tensor(stem + ".safetensors", stem, 1);
        EXPECT_EQ(open_component(folder_)->tensors()[0].name, stem);
        EXPECT_EQ(open_component(folder_ / (stem + ".safetensors"))->tensors()[0].name, stem);
    }
}

TEST_F(WeightFiles, ComponentFolderWithShardsOfPython) {
    const auto source = open_component(kGolden / "sharded");
    const auto tensors = read_all(*source);
    ASSERT_EQ(tensors.size(), 5u);
    for (int i = 0; i < 5; ++i) {
        EXPECT_TRUE(
            tensors.at(fmt::format("blocks.{}.weight", i)).equal(at::full({4, 8}, 1.0 * i)));
    }
    const auto index = kGolden / "sharded/diffusion_pytorch_model.safetensors.index.json";
    EXPECT_EQ(open_component(index)->tensors().size(), 5u);
}

TEST_F(WeightFiles, LinksAsInTheHuggingFaceCache) {
    const auto snapshot = folder_ / "snapshots/abc/transformer";
    fs::create_directories(snapshot);
    fs::create_directories(folder_ / "blobs");
    int blob = 0;
    for (const auto& entry : fs::directory_iterator(kGolden / "sharded")) {
        const std::string name = "sha" + std::to_string(blob++);
        fs::copy_file(entry.path(), folder_ / "blobs" / name);
        fs::create_symlink("../../../blobs/" + name, snapshot / entry.path().filename());
    }
    EXPECT_EQ(open_component(snapshot)->tensors().size(), 5u);
    const auto linked = folder_ / "model";
    fs::create_directory_symlink("snapshots/abc/transformer", linked);
    EXPECT_EQ(open_component(linked)->tensors().size(), 5u);

    fs::remove_all(folder_ / "blobs");
    const auto [kind, message] = error_of([&] { open_component(snapshot); });
    EXPECT_EQ(kind, ErrorKind::not_found);
    EXPECT_THAT(message, HasSubstr("diffusion_pytorch_model.safetensors.index.json"));
}

TEST_F(WeightFiles, IndexAndShardsThatDisagree) {
    const std::string one = "model-00001-of-00002.safetensors";
    const std::string two = "model-00002-of-00002.safetensors";
    const auto index_of = [&](const std::string& text) {
        write("model.safetensors.index.json", text);
        return error_of([&] { open_component(folder_); });
    };
    const std::string good = R"({"weight_map":{"a":")" + one + R"(","b":")" + two + R"("}})";
    write_tensor(one, "a", 1);
    auto error = index_of(good);
    EXPECT_EQ(error.first, ErrorKind::not_found);
    EXPECT_THAT(error.second, AllOf(HasSubstr("missing: " + two), Not(HasSubstr(one))));

    write_tensor(two, "c", 2);
    error = index_of(good);
    EXPECT_EQ(error.first, ErrorKind::io);
    EXPECT_THAT(error.second, HasSubstr(two + " has no tensor b"));

    write_tensor(two, "b", 2);
    write_tensor("model-00003-of-00003.safetensors", "b", 3);  // not named: not looked at
    EXPECT_EQ(index_of(good).second, "nothing was thrown");

    for (const std::string name :
         {"../x.safetensors", "/x.safetensors", "..", "", "sub/x.safetensors", "x.txt",
          "x\\u0000.safetensors", "x\\n.safetensors"}) {
        error = index_of(R"({"weight_map":{"a":")" + name + R"("}})");
        EXPECT_EQ(error.first, ErrorKind::io) << name;
        EXPECT_THAT(error.second, HasSubstr("tensor a is said to be in \"" + name + "\"")) << name;
    }
    EXPECT_THAT(index_of(R"({"weight_map":{"a":1}})").second, HasSubstr("tensor a is not a text"));
    for (const std::string text : {"[]", "{}", R"({"weight_map":[]})", R"({"weight_map":{}})"}) {
        EXPECT_THAT(index_of(text).second, HasSubstr("has no weight_map")) << text;
    }
    EXPECT_THAT(index_of("{").second, HasSubstr("not valid JSON"));
    EXPECT_THAT(index_of(std::string(1000000, '[')).second, HasSubstr("not valid JSON"));
}

TEST_F(WeightFiles, VariantsAreTakenWhereTheyAreAlone) {
    const std::string shard = "diffusion_pytorch_model.fp16-00001-of-00001.safetensors";
    write_tensor("model.fp16.safetensors", "half", 1);
    EXPECT_EQ(open_component(folder_)->tensors()[0].name, "half");

    write_tensor("model.bf16.safetensors", "brain", 1);
    const auto [kind, message] = error_of([&] { open_component(folder_); });
    EXPECT_EQ(kind, ErrorKind::bad_request);
    EXPECT_THAT(message, HasSubstr("(model.bf16.safetensors, model.fp16.safetensors)"));

    write_tensor("model.safetensors", "plain", 1);
    EXPECT_EQ(open_component(folder_)->tensors()[0].name, "plain");

    for (const std::string index : {"diffusion_pytorch_model.safetensors.index.fp16.json",
                                    "diffusion_pytorch_model.fp16.safetensors.index.json"}) {
        fs::remove_all(folder_);
        fs::create_directories(folder_);
        write_tensor(shard, "sharded", 1);
        write(index, R"({"weight_map":{"sharded":")" + shard + R"("}})");
        EXPECT_EQ(open_component(folder_)->tensors()[0].name, "sharded") << index;
    }
}

TEST_F(WeightFiles, FoldersAndFilesThatHoldNoWeights) {
    EXPECT_EQ(error_of([&] { open_component(folder_ / "absent"); }).first, ErrorKind::not_found);
    EXPECT_EQ(error_of([&] { open_component(std::string(5000, 'x')); }).first,
              ErrorKind::not_found);
    write("model.safetensors.index.xml", "");
    write("model.txt", "");
    auto error = error_of([&] { open_component(folder_); });
    EXPECT_EQ(error.first, ErrorKind::not_found);
    EXPECT_THAT(error.second, AllOf(HasSubstr("diffusion_pytorch_model.safetensors"),
                                    HasSubstr("model.safetensors.index.json")));
    error = error_of([&] { open_component(folder_ / "model.txt"); });
    EXPECT_EQ(error.first, ErrorKind::unsupported);
    EXPECT_THAT(error.second, HasSubstr("model.txt"));

    fs::create_symlink("nowhere", folder_ / "model.safetensors");
    error = error_of([&] { open_component(folder_); });
    EXPECT_EQ(error.first, ErrorKind::not_found);
    EXPECT_THAT(error.second, HasSubstr("model.safetensors"));
}

}  // namespace
}  // namespace zoetrope
