// Files of torch.save: what PyTorch wrote, and pickles and archives that mean harm.
#include "base/mapped_file.h"
#include "errors.h"
#include "weights/pickle.h"
#include "weights/source.h"
#include "weights/torch_archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <set>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

const fs::path kGolden = fs::path(ZT_SOURCE_DIR) / "tests/golden/torch_files";

std::map<std::string, at::Tensor> read_all(const TensorSource& source) {
    std::map<std::string, at::Tensor> tensors;
    for (std::size_t i = 0; i < source.tensors().size(); ++i) {
        const TensorInfo& info = source.tensors()[i];
        const at::Tensor tensor = source.read(i);
        EXPECT_EQ(tensor.sizes(), at::IntArrayRef(info.shape)) << info.name;
        EXPECT_EQ(tensor.scalar_type(), info.dtype) << info.name;
        EXPECT_TRUE(tensor.is_contiguous()) << info.name;
        tensors[info.name] = tensor;
    }
    return tensors;
}

TEST(TorchFile, ReadsEveryDtypeOfPyTorch) {
    const auto tensors = read_all(*open_weights_file(kGolden / "dtypes.pth"));
    std::set<at::ScalarType> dtypes;
    for (const auto& [name, values] : tensors) {
        if (!name.ends_with(".f64")) continue;
        const at::Tensor& stored = tensors.at(name.substr(0, name.size() - 4));
        EXPECT_TRUE(stored.to(at::kDouble).equal(values)) << name;
        EXPECT_FALSE(stored.storage().resizable()) << name << " is a copy";
        dtypes.insert(stored.scalar_type());
    }
    EXPECT_EQ(dtypes.size(), 15u);
    EXPECT_TRUE(tensors.at("parameter").equal(tensors.at("of_float32")));
    EXPECT_EQ(tensors.size(), 31u);
}

TEST(TorchFile, ReadsViewsOfSharedStorages) {
    const auto wanted = read_all(*open_safetensors(kGolden / "views.safetensors"));
    for (const char* name : {"views.pth", "views_protocol4.pt"}) {
        const auto found = read_all(*open_torch_archive(kGolden / name));
        ASSERT_EQ(found.size(), wanted.size()) << name;
        for (const auto& [key, tensor] : wanted) {
            EXPECT_TRUE(found.at(key).equal(tensor)) << name << " " << key;
        }
    }
}

TEST(TorchFile, RunsNothing) {
    const auto [kind, message] = error_of([&] { open_weights_file(kGolden / "code.pth"); });
    EXPECT_EQ(kind, ErrorKind::unsupported);
    EXPECT_THAT(message, AllOf(HasSubstr("code.pth"), HasSubstr("asks Python for 'posix.system'"),
                               HasSubstr("Nothing was run")));
    EXPECT_FALSE(fs::exists("ran_by_the_pickle"));
}

TEST(TorchFile, OldFilesAreToldHowToConvert) {
    const auto [kind, message] = error_of([&] { open_weights_file(kGolden / "legacy.pth"); });
    EXPECT_EQ(kind, ErrorKind::unsupported);
    EXPECT_THAT(message,
                AllOf(HasSubstr("before PyTorch 1.6"), HasSubstr("torch.save(torch.load(")));
}

// --- pickles ---

template <typename T>
void put(std::string& bytes, T number) {
    bytes.append(reinterpret_cast<const char*>(&number), sizeof(T));
}

std::string text(const std::string& value) {
    std::string bytes = "X";
    put(bytes, static_cast<std::uint32_t>(value.size()));
    return bytes + value;
}
std::string number(std::int32_t value) {
    std::string bytes = "J";
    put(bytes, value);
    return bytes;
}
std::string tuple(const std::vector<std::int32_t>& values) {
    std::string bytes = "(";
    for (const auto value : values) bytes += number(value);
    return bytes + "t";
}

struct PickledTensor {
    std::string key = "0";
    std::int32_t elements = 4;
    std::int32_t offset = 0;
    std::vector<std::int32_t> shape = {4};
    std::vector<std::int32_t> strides = {1};
    std::string type = "ctorch\nFloatStorage\n";
};

std::string pickled(const PickledTensor& t) {
    return "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + t.type + text(t.key) +
           text("cpu") + number(t.elements) + "tQ" + number(t.offset) + tuple(t.shape) +
           tuple(t.strides) + "\x89}tR";
}
std::string dict_of(const std::string& items) { return "\x80\x02}(" + items + "u."; }

std::pair<ErrorKind, std::string> pickle_error(const std::string& bytes) {
    return error_of([&] { pickle::parse(std::as_bytes(std::span(bytes)), "x.pth"); });
}

TEST(Pickle, DictsOfTensorsAreRead) {
    const std::string bytes = dict_of(text("w") + pickled({}) + text("n") + number(3));
    const auto tensors = pickle::parse(std::as_bytes(std::span(bytes)), "x");
    ASSERT_EQ(tensors.size(), 1u);
    EXPECT_EQ(tensors[0].name, "w");
    EXPECT_EQ(tensors[0].shape, std::vector<std::int64_t>{4});
    EXPECT_EQ(tensors[0].storage.key, "0");
    for (const std::string wrapper : {"state_dict", "model", "model_state"}) {
        const std::string wrapped = dict_of(text("epoch") + number(1) + text(wrapper) + "}(" +
                                            text("w") + pickled({}) + "u");
        EXPECT_EQ(pickle::parse(std::as_bytes(std::span(wrapped)), "x").size(), 1u) << wrapper;
    }
}

TEST(Pickle, WhatCouldRunIsRefusedByName) {
    const std::string run = text("touch ran_by_the_pickle") + "\x85R.";
    const std::vector<std::pair<std::string, std::string>> cases = {
        {"\x80\x02"
         "cos\nsystem\n" +
             run,
         "'os.system'"},
        {"\x80\x02"
         "c__builtin__\neval\n" +
             run,
         "'__builtin__.eval'"},
        {"\x80\x02"
         "cbuiltins\ngetattr\n" +
             run,
         "'builtins.getattr'"},
        {"\x80\x02"
         "ctorch\nload\n" +
             run,
         "'torch.load'"},
        {"\x80\x02"
         "ctorch._utils\n_rebuild_tensor_v2.x\n" +
             run,
         "_rebuild_tensor_v2.x'"},
        {"\x80\x02"
         "c\x1b]0;\n\x07\n" +
             run,
         "'?]0;.?'"},
        {"\x80\x04" + text("os") + text("system") + "\x93" + run, "'os.system'"},
        {"\x80\x02(" + text("touch x") + "ios\nsystem\n.", "operation 0x69"},
        {"\x80\x02"
         "ccollections\nOrderedDict\n)\x81.",
         "operation 0x81"},
        {"\x80\x02\x82\x01.", "operation 0x82"},
        {"\x80\x02Psomewhere\n.", "operation 0x50"},
    };
    for (const auto& [bytes, name] : cases) {
        const auto [kind, message] = pickle_error(bytes);
        EXPECT_EQ(kind, ErrorKind::unsupported) << name;
        EXPECT_THAT(message,
                    AllOf(HasSubstr(name), HasSubstr("x.pth"), HasSubstr("Nothing was run")));
    }
    EXPECT_FALSE(fs::exists("ran_by_the_pickle"));
}

TEST(Pickle, BrokenOnesAreErrors) {
    const std::string storage = "ctorch\nFloatStorage\n";
    const std::string deep(500000, '\x85');
    const std::vector<std::pair<std::string, std::string>> cases = {
        {"", "breaks off"},
        {"\x80\x02", "breaks off"},
        {"\x80\x01.", "protocol is 1"},
        {"\x80\x02.", "empty stack"},
        {"\x80\x02(.", "empty stack"},
        {"\x80\x02N(N\x86.", "2 values from a stack of 1"},
        {"\x80\x02t.", "mark that was not set"},
        {"\x80\x02h\x05.", "remembered value 5"},
        {"\x80\x02N" + text("x") + "a.", "appended to is another value"},
        {"\x80\x02](Nu.", "what is given items is a list"},
        {"\x80\x02}(Nu.", "a key without a value"},
        {"\x80\x02NNb.", "given a state is another value"},
        {"\x80\x02N)R.", "calls another value"},
        {"\x80\x02" + storage + ")R.", "which is no function"},
        {"\x80\x02" + storage + "NR.", "arguments is another value"},
        {"\x80\x02"
         "ccollections\nOrderedDict\nN\x85R.",
         "OrderedDict has 1 arguments"},
        {"\x80\x02"
         "ctorch._utils\n_rebuild_tensor_v2\n)R.",
         "_rebuild_tensor_v2 has 0 arguments"},
        {"\x80\x02"
         "ctorch._utils\n_rebuild_parameter\n(NNNtR.",
         "made of no tensor"},
        {"\x80\x02NQ.", "a storage's reference is another value, wanted a tuple"},
        {"\x80\x02(" + text("module") + storage + text("0") + text("cpu") + number(1) + "tQ.",
         "is not (storage, type, key, device, size)"},
        {dict_of(text("w") + pickled({.elements = -1})), "size is not a whole number"},
        {dict_of(text("w") + pickled({.offset = -1})), "offset is not a whole number"},
        {dict_of(text("w") + pickled({.shape = {-4}})), "shape is not a whole number"},
        {dict_of(text("w") + pickled({.strides = {-1}})), "strides is not a whole number"},
        {dict_of(text("w") + pickled({.shape = {2, 2}})), "2 dimensions and 1 strides"},
        {dict_of(text("w") + pickled({.shape = std::vector<std::int32_t>(17, 1)})),
         "more than 16 dimensions"},
        {dict_of(text("w") + pickled({.type = "ctorch\nfloat32\n"})), "a storage's reference"},
        {dict_of(text("w") + pickled({}) + text("w") + pickled({})), "has 'w' twice"},
        {dict_of(text("\x1b") + pickled({})), "'?' is no tensor name"},
        {dict_of(text("\xff") + pickled({})), "'?' is no tensor name"},
        {"\x80\x02\x8a\x09" + std::string(9, '\x01') + ".", "a whole number of 9 bytes"},
        {"\x80\x02" + number(1) + ".", "holds a whole number, wanted a dict"},
        {"\x80\x02N" + deep + ".", "holds a tuple, wanted a dict"},
        {"\x80\x02" + std::string(500000, '(') + ".", "empty stack"},
        {dict_of(text("a") + number(1)), "no tensors, and no dict of tensors under state_dict"},
        // A list that holds itself, and a dict that is its own "state_dict".
        {"\x80\x02]q\x05h\x05"
         "a.",
         "holds a list"},
        {"\x80\x02}q\x05" + text("state_dict") + "h\x05s.", "It has: state_dict"},
    };
    for (const auto& [bytes, wanted] : cases) {
        const auto [kind, message] = pickle_error(bytes);
        EXPECT_NE(kind, ErrorKind::internal) << wanted;
        EXPECT_THAT(message, AllOf(HasSubstr("x.pth"), HasSubstr(wanted)));
        EXPECT_LT(message.size(), 900u);
    }
}

TEST(Pickle, RememberingManyTimesTakesNoMemory) {
    // Two bytes each for a value of a megabyte: texts are not copied.
    std::string bytes = "\x80\x02" + text(std::string(1000000, 'x')) +
                        "q\x01"
                        "0(";
    for (int i = 0; i < 500000; ++i) bytes += "h\x01";
    bytes += "t.";
    EXPECT_THAT(pickle_error(bytes).second, HasSubstr("holds a tuple"));
}

// --- archives ---

struct Record {
    std::string name;
    std::string content;
    std::uint16_t method = 0;
    std::uint32_t claimed_size = 0;  // 0: the right one
    bool in_64 = false;              // size and place in the zip64 field
};

// A zip file without compression. Checksums are left out: they are not looked at.
std::string zip_of(const std::vector<Record>& records) {
    std::string file, directory;
    for (const Record& record : records) {
        const auto begin = static_cast<std::uint32_t>(file.size());
        const std::uint32_t size = record.claimed_size != 0
                                       ? record.claimed_size
                                       : static_cast<std::uint32_t>(record.content.size());
        file += "PK\x03\x04";
        for (const std::uint16_t field : {20, 0, int{record.method}, 0, 0, 0, 0}) put(file, field);
        put(file, size);
        put(file, size);
        put(file, static_cast<std::uint16_t>(record.name.size()));
        put<std::uint16_t>(file, 0);
        file += record.name + record.content;

        directory += "PK\x01\x02";
        for (const std::uint16_t field : {20, 20, 0, int{record.method}, 0, 0, 0, 0})
            put(directory, field);
        const std::uint32_t written = record.in_64 ? 0xffffffff : size;
        put(directory, written);
        put(directory, written);
        put(directory, static_cast<std::uint16_t>(record.name.size()));
        put<std::uint16_t>(directory, record.in_64 ? 28 : 0);
        for (int i = 0; i < 5; ++i) put<std::uint16_t>(directory, 0);
        put(directory, record.in_64 ? 0xffffffff : begin);
        directory += record.name;
        if (!record.in_64) continue;
        put<std::uint16_t>(directory, 1);
        put<std::uint16_t>(directory, 24);
        for (const std::uint64_t value :
             {std::uint64_t{size}, std::uint64_t{size}, std::uint64_t{begin}})
            put(directory, value);
    }
    const auto begin = static_cast<std::uint32_t>(file.size());
    file += directory + "PK\x05\x06" + std::string(4, '\0');
    put(file, static_cast<std::uint16_t>(records.size()));
    put(file, static_cast<std::uint16_t>(records.size()));
    put(file, static_cast<std::uint32_t>(directory.size()));
    put(file, begin);
    put<std::uint16_t>(file, 0);
    return file;
}

const std::string kFourFloats(16, '\0');

std::pair<ErrorKind, std::string> archive_error(const std::string& file) {
    return error_of([&] { torch_archive::parse(std::as_bytes(std::span(file)), "x.pth"); });
}
std::pair<ErrorKind, std::string> tensor_error(const PickledTensor& tensor) {
    return archive_error(
        zip_of({{"a/data.pkl", dict_of(text("w") + pickled(tensor))}, {"a/data/0", kFourFloats}}));
}

TEST(TorchArchive, FindsTensorsInTheFile) {
    for (const bool in_64 : {false, true}) {
        const std::string file =
            zip_of({{"a/data.pkl", dict_of(text("w") + pickled({.offset = 1, .shape = {3}}))},
                    {.name = "a/data/0", .content = kFourFloats, .in_64 = in_64},
                    {"a/byteorder", "little"}});
        const auto entries = torch_archive::parse(std::as_bytes(std::span(file)), "x.pth");
        ASSERT_EQ(entries.size(), 1u);
        EXPECT_EQ(entries[0].begin, file.find(kFourFloats) + 4);
        EXPECT_TRUE(torch_archive::is_contiguous(entries[0]));
    }
}

TEST(TorchArchive, ViewsPastTheirStorageAreRefused) {
    constexpr std::int32_t kMany = 2147483647;
    const std::vector<PickledTensor> outside = {
        {.offset = 1},
        {.offset = kMany},
        {.shape = {5}},
        {.shape = {2}, .strides = {4}},
        {.shape = {2, 2}, .strides = {3, 1}},
        {.shape = {kMany, kMany, kMany}, .strides = {kMany, kMany, kMany}},
        {.shape = {1000}, .strides = {0}},  // more elements than the storage has
        {.offset = 4, .shape = {}, .strides = {}},
        {.shape = {4}, .type = "ctorch\nDoubleStorage\n"},
    };
    for (const PickledTensor& tensor : outside) {
        const auto [kind, message] = tensor_error(tensor);
        EXPECT_EQ(kind, ErrorKind::io);
        EXPECT_THAT(message, AllOf(HasSubstr("x.pth"), HasSubstr("w"))) << message;
    }
    const std::vector<PickledTensor> inside = {
        {.shape = {2}, .strides = {3}},
        {.shape = {2, 2}, .strides = {2, 1}},
        {.shape = {4}, .strides = {0}},
        {.offset = 3, .shape = {}, .strides = {}},
        {.offset = 9, .shape = {0, 3}, .strides = {kMany, kMany}},
    };
    for (const PickledTensor& tensor : inside) {
        EXPECT_EQ(tensor_error(tensor).second, "nothing was thrown");
    }
    EXPECT_THAT(tensor_error({.shape = {0, kMany, kMany, kMany}, .strides = {1, 1, 1, 1}}).second,
                HasSubstr("more bytes than 64 bits can count"));
    EXPECT_THAT(tensor_error({.elements = 3}).second, HasSubstr("has 16 bytes, but 3 elements"));
    EXPECT_THAT(tensor_error({.key = "1"}).second, HasSubstr("in the storage 1, which the file"));
}

TEST(TorchArchive, BrokenZipFilesAreErrors) {
    const std::string good = dict_of(text("w") + pickled({}));
    const std::vector<std::pair<std::string, std::string>> cases = {
        {"PK\x03\x04", "no directory at its end"},
        {zip_of({}), "has no data.pkl"},
        {zip_of({{"data.pkl", good}}), "has no data.pkl"},
        {zip_of({{"a/b/data.pkl", good}}), "has no data.pkl"},
        {zip_of({{"a/data.pkl", good}, {"b/data.pkl", good}}), "has two pickles"},
        {zip_of({{"a/data.pkl", good}, {"a/data.pkl", good}}), "a/data.pkl twice"},
        {zip_of({{"a/data.pkl", good, 8}}), "compressed or encrypted"},
        {zip_of({{"a/data.pkl", good}, {"a/data/0", kFourFloats, 0, 4000}}), "past the end"},
        {zip_of({{"a/data/0", kFourFloats, 0, 60}, {"a/data.pkl", good}}), "overlap"},
        {zip_of({{"a/data.pkl", good}, {"a/data/0", kFourFloats}, {"a/byteorder", "big"}}),
         "big-endian"},
        {zip_of({{"a/data.pkl", good}}) + "x", "no directory at its end"},
    };
    for (const auto& [file, wanted] : cases) {
        const auto [kind, message] = archive_error(file);
        EXPECT_NE(kind, ErrorKind::internal) << wanted;
        EXPECT_THAT(message, AllOf(HasSubstr("x.pth"), HasSubstr(wanted)));
    }
}

// Opens what torch.save wrote, changed, and checks that all elements stay inside.
void try_changed(std::span<const std::byte> bytes) {
    try {
        for (const auto& entry : torch_archive::parse(bytes, "x")) {
            std::int64_t last = 0;
            if (torch_archive::elements_of(entry.shape) == 0) continue;
            for (std::size_t i = 0; i < entry.shape.size(); ++i)
                last += (entry.shape[i] - 1) * entry.strides[i];
            ASSERT_LE(entry.begin + static_cast<std::uint64_t>((last + 1) *
                                                               safetensors::bytes_of(entry.dtype)),
                      bytes.size());
        }
    } catch (const Error&) {
    }
}

TEST(TorchArchive, CutAndFlippedFilesNeverLeadOutside) {
    const auto file = MappedFile::open(kGolden / "views.pth");
    const auto whole = file->bytes();
    for (std::size_t size = 0; size < whole.size(); ++size) {
        EXPECT_EQ(error_of([&] { torch_archive::parse(whole.first(size), "x"); }).first,
                  ErrorKind::io)
            << size;
    }
    std::vector<std::byte> changed(whole.begin(), whole.end());
    for (std::size_t i = 0; i < changed.size(); ++i) {
        for (const int flip : {1, 0x80, 0xff}) {
            changed[i] ^= static_cast<std::byte>(flip);
            try_changed(changed);
            changed[i] = whole[i];
        }
    }
}

}  // namespace
}  // namespace zoetrope
