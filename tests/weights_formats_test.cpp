// Weight files by content, 8-bit weights with their scales, and what stays in memory of them.
#include "errors.h"
#include "scratch.h"
#include "weights/expand_bytes.h"
#include "weights/params.h"
#include "weights/source.h"
#include "weights/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scalar_tensor.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

const fs::path kGolden = fs::path(ZT_SOURCE_DIR) / "tests/golden";

class WeightFormats : public testing::Test {
protected:
    fs::path write(const std::string& name, const std::string& content) const {
        std::ofstream(folder_ / name, std::ios::binary) << content;
        return folder_ / name;
    }
    fs::path write(const std::string& name, const std::vector<NamedTensor>& tensors) const {
        write_safetensors(folder_ / name, tensors);
        return folder_ / name;
    }

    const Scratch scratch_;
    const fs::path folder_ = scratch_.path();
};

at::Tensor all_bytes(at::ScalarType dtype) { return at::arange(256, at::kByte).view(dtype); }

// Values 0 to 30, row by row, as fp8.
at::Tensor small_fp8(std::int64_t rows, std::int64_t columns) {
    return at::arange(rows * columns, at::kFloat)
        .remainder(31)
        .view({rows, columns})
        .to(at::kFloat8_e4m3fn);
}

// By the definition of the formats (OCP 8-bit floating point specification, section 5): 4 or 5 bits
// of exponent, 3 or 2 of mantissa; e4m3 has no infinity, e5m2 has that of IEEE 754.
double value_of(unsigned byte, bool e5m2) {
    const int mantissa_bits = e5m2 ? 2 : 3, bias = e5m2 ? 15 : 7;
    const int exponent = static_cast<int>((byte & 0x7f) >> mantissa_bits);
    const int mantissa = static_cast<int>(byte) & ((1 << mantissa_bits) - 1);
    const double sign = (byte & 0x80) != 0 ? -1 : 1;
    if (e5m2 && exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
    if (!e5m2 && (byte & 0x7f) == 0x7f) return NAN;
    return exponent == 0 ? sign * std::ldexp(mantissa, 1 - bias - mantissa_bits)
                         : sign * std::ldexp(mantissa + (1 << mantissa_bits),
                                             exponent - bias - mantissa_bits);
}

TEST(ExpandBytes, GivesEveryFp8ValueExactly) {
    for (const bool e5m2 : {false, true}) {
        const at::Tensor bytes = all_bytes(e5m2 ? at::kFloat8_e5m2 : at::kFloat8_e4m3fn);
        for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
            const at::Tensor found = expand_bytes(bytes, {}, dtype).to(at::kDouble);
            for (unsigned i = 0; i < 256; ++i) {
                const double wanted = value_of(i, e5m2), value = found[i].item<double>();
                EXPECT_TRUE(value == wanted || (std::isnan(value) && std::isnan(wanted)))
                    << i << ": " << value << ", wanted " << wanted;
            }
        }
    }
}

TEST(ExpandBytes, MultipliesByTheScale) {
    const at::Tensor bytes = all_bytes(at::kChar).view({4, 64});
    const at::Tensor one = at::scalar_tensor(0.3F);
    const at::Tensor rows = at::arange(1, 5, at::kFloat) / 3;
    const at::Tensor values = bytes.to(at::kFloat);
    EXPECT_TRUE(expand_bytes(bytes, one, at::kFloat).equal(values * one));
    EXPECT_TRUE(expand_bytes(bytes, rows, at::kFloat).equal(values * rows.view({4, 1})));
    EXPECT_TRUE(expand_bytes(bytes, rows, at::kBFloat16)
                    .equal((values * rows.view({4, 1})).to(at::kBFloat16)));
    EXPECT_EQ(error_of([&] { expand_bytes(bytes, at::ones({3}), at::kFloat); }).first,
              ErrorKind::internal);
}

TEST(ExpandBytes, IsFast) {
    const at::Tensor bytes = all_bytes(at::kFloat8_e4m3fn).repeat({1 << 14});  // 4 Mi numbers
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
        double best = 1e9;
        for (int round = 0; round < 5; ++round) {
            const auto begin = std::chrono::steady_clock::now();
            const at::Tensor expanded = expand_bytes(bytes, {}, dtype);
            const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
            best = std::min(best, seconds.count());
        }
        const double rate = static_cast<double>(bytes.numel()) / best / 1e6;
        std::printf("[          ] %.0f million fp8 numbers a second to %s\n", rate,
                    c10::toString(dtype));
        EXPECT_GT(rate, 20) << "slack for a busy machine";
    }
}

TEST_F(WeightFormats, ScalesOfFp8WeightsAreJoined) {
    const at::Tensor weight = small_fp8(4, 8);
    const at::Tensor rows = at::arange(1, 5, at::kFloat).view({4, 1}) / 7;
    const auto path =
        write("x.safetensors", {
                                   {"scaled_fp8", at::ones({0}).to(at::kFloat8_e4m3fn)},
                                   {"a.weight", weight},
                                   {"a.scale_weight", at::scalar_tensor(0.37)},
                                   {"a.scale_input", at::ones({1})},
                                   {"a.bias", at::ones({4})},
                                   {"b.weight", weight},
                                   {"b.weight_scale", rows},
                                   {"b.input_scale", at::ones({1})},
                                   {"b.comfy_quant", at::ones({3}).to(at::kByte)},
                                   {"c.weight", weight},
                                   {"d.weight", weight.to(at::kHalf)},
                                   {"d.scale_weight", at::full({1}, 2.0)},
                                   {"e.weight", weight.to(at::kFloat).to(at::kChar)},
                                   {"e.weight_scale", rows.to(at::kBFloat16)},
                               });
    const auto source = open_weights_file(path);
    std::map<std::string, std::size_t> index;
    for (std::size_t i = 0; i < source->tensors().size(); ++i) index[source->tensors()[i].name] = i;
    ASSERT_EQ(index.size(), 6u);
    const at::Tensor values = weight.to(at::kFloat);
    const std::map<std::string, at::Tensor> wanted = {
        {"a.weight", values * 0.37F},
        {"a.bias", at::ones({4})},
        {"b.weight", values * rows},
        {"d.weight", values * 2},
        {"e.weight", values * rows.to(at::kBFloat16).to(at::kFloat)},
    };
    for (const auto& [name, tensor] : wanted) {
        EXPECT_TRUE(source->read(index.at(name)).equal(tensor)) << name;
        EXPECT_TRUE(source->read_as(index.at(name), at::kBFloat16).equal(tensor.to(at::kBFloat16)))
            << name;
        EXPECT_EQ(source->tensors()[index.at(name)].dtype, at::kFloat) << name;
    }
    EXPECT_EQ(source->read(index.at("c.weight")).scalar_type(), at::kFloat8_e4m3fn);
    EXPECT_TRUE(source->read_as(index.at("c.weight"), at::kFloat).equal(values));
    const TensorInfo& info = source->tensors()[index.at("b.weight")];
    EXPECT_EQ(info.packed_as, "scaled Float8_e4m3fn");
    EXPECT_EQ(info.stored_bytes(), 32 + 16);
    EXPECT_EQ(info.bytes(), 32 * 4);
    EXPECT_FALSE(source->tensors()[index.at("d.weight")].packed());
    EXPECT_TRUE(source->tensors()[index.at("c.weight")].packed());
}

TEST_F(WeightFormats, ScalesThatDoNotFitAreErrors) {
    const at::Tensor weight = small_fp8(4, 8);
    const auto error_for = [&](const std::vector<NamedTensor>& tensors) {
        const auto path = write("x.safetensors", tensors);
        return error_of([&] { open_weights_file(path); });
    };
    const at::Tensor one = at::ones({1});
    EXPECT_THAT(error_for({{"b.weight", weight}, {"a.scale_weight", one}}).second,
                HasSubstr("a.scale_weight is the scale of a.weight, which is not there"));
    EXPECT_THAT(error_for({{"a.weight", weight}, {"a.weight_scale", at::ones({2, 4})}}).second,
                HasSubstr("the scale a.weight_scale is [2, 4] for a weight of [4, 8]"));
    EXPECT_THAT(error_for({{"a.weight", weight}, {"a.weight_scale", at::ones({8})}}).second,
                HasSubstr("[8] for a weight of [4, 8]"));
    EXPECT_THAT(
        error_for({{"a.weight", weight}, {"a.weight_scale", one}, {"a.scale_weight", one}}).second,
        HasSubstr("a.weight has two scales"));
    // Four-bit floats packed in bytes, and ComfyUI's rotated int8.
    EXPECT_EQ(error_for({{"a.weight", weight.view(at::kByte)}, {"a.weight_scale", one}}).first,
              ErrorKind::unsupported);
    EXPECT_EQ(
        error_for(
            {{"a.weight", weight.view(at::kChar)}, {"a.comfy_quant", one}, {"a.weight_scale", one}})
            .first,
        ErrorKind::unsupported);
}

TEST_F(WeightFormats, FilesAreKnownByTheirContent) {
    const auto tensors = write("weights.safetensors", {{"a", at::ones({2})}});
    const std::vector<std::pair<fs::path, std::string>> files = {
        {tensors, "safetensors"},
        {kGolden / "torch_files/views.pth", "pytorch"},
        {kGolden / "gguf/blocks.gguf", "gguf"},
    };
    for (const auto& [file, format] : files) {
        const fs::path renamed = folder_ / "any name";
        fs::copy_file(file, renamed, fs::copy_options::overwrite_existing);
        EXPECT_EQ(weights_format_of(renamed), format);
        EXPECT_EQ(open_weights_file(renamed)->tensors().size(),
                  open_weights_file(file)->tensors().size());
    }
    const auto refused = [&](const std::string& name, const std::string& content) {
        const auto path = write(name, content);
        return error_of([&] { open_weights_file(path); });
    };
    EXPECT_THAT(refused("x.txt", "hello").second,
                AllOf(HasSubstr("x.txt is not a weight file"), HasSubstr(".safetensors"),
                      HasSubstr(".gguf"), HasSubstr(".pth")));
    EXPECT_EQ(refused("x.pth", "").first, ErrorKind::unsupported);
    EXPECT_EQ(refused("x.safetensors", "12345678").first, ErrorKind::io);
    EXPECT_THAT(refused("x.gguf", "version https://git-lfs.github.com/spec/v1\noid").second,
                HasSubstr("git lfs pull"));
    EXPECT_EQ(error_of([&] { open_weights_file(folder_); }).first, ErrorKind::io);
    EXPECT_EQ(error_of([&] { open_weights_file(folder_ / "none"); }).first, ErrorKind::not_found);
}

TEST_F(WeightFormats, ComponentFoldersWithOtherFiles) {
    const auto copy = [&](const char* from, const char* to) {
        fs::copy_file(kGolden / from, folder_ / to);
    };
    const auto tensors = [&] { return open_component(folder_)->tensors().size(); };
    copy("gguf/blocks.gguf", "wan-q4.gguf");
    EXPECT_EQ(tensors(), 27u);
    copy("torch_files/views.pth", "pytorch_model-00001-of-00001.bin");
    write("pytorch_model.bin.index.json",
          R"({"weight_map":{"base":"pytorch_model-00001-of-00001.bin"}})");
    EXPECT_EQ(tensors(), 8u);
    copy("torch_files/dtypes.pth", "diffusion_pytorch_model.bin");
    EXPECT_EQ(tensors(), 31u);
    write("model.safetensors", {{"a", at::ones({2})}});
    EXPECT_EQ(tensors(), 1u);

    fs::remove_all(folder_);
    fs::create_directories(folder_);
    copy("torch_files/views.pth", "Wan2.1_VAE.pth");
    EXPECT_EQ(tensors(), 8u);
    copy("torch_files/dtypes.pth", "other.pth");
    const auto [kind, message] = error_of(tensors);
    EXPECT_EQ(kind, ErrorKind::bad_request);
    EXPECT_THAT(message, HasSubstr("several .pth files (Wan2.1_VAE.pth, other.pth)"));
}

TEST_F(WeightFormats, ScalesMayLieInAnotherShard) {
    write("model-1.safetensors", {{"a.weight", small_fp8(2, 4)}});
    write("model-2.safetensors", {{"a.weight_scale", at::scalar_tensor(0.5)}});
    write(
        "model.safetensors.index.json",
        R"({"weight_map":{"a.weight":"model-1.safetensors","a.weight_scale":"model-2.safetensors"}})");
    const auto source = open_component(folder_);
    ASSERT_EQ(source->tensors().size(), 1u);
    EXPECT_TRUE(source->read(0).equal(small_fp8(2, 4).to(at::kFloat) * 0.5));
}

// --- what stays in memory ---

class PackedResidency : public WeightFormats {
protected:
    // matrix [512, 2048] and table [600, 1024] as fp8, small [64] as fp8, wide [512, 1024] as fp32
    struct Model {
        Param matrix, small, wide, table;
        std::unique_ptr<Residency> residency;
    };
    Model open(ResidencyOptions options) const {
        const auto path = write("x.safetensors", {
                                                     {"matrix", small_fp8(512, 2048)},
                                                     {"small", small_fp8(1, 64).view({64})},
                                                     {"wide", at::ones({512, 1024})},
                                                     {"table", small_fp8(600, 1024)},
                                                 });
        Weights weights = Weights::open("transformer", path);
        Model model{weights.param("matrix", {512, 2048}, Role::matrix),
                    weights.param("small", {64}, Role::vector),
                    weights.param("wide", {512, 1024}, Role::matrix),
                    weights.param("table", {600, 1024}, Role::embedding), nullptr};
        weights.check();
        model.residency = std::make_unique<Residency>(std::move(weights), options);
        return model;
    }
};

TEST_F(PackedResidency, LargePackedParametersAreNotKept) {
    const Model model = open({.compute_dtype = at::kBFloat16});
    Residency& residency = *model.residency;
    const std::int64_t small = 64 * 2, wide = 512 * 1024 * 2;
    const Lease kept = residency.lease_kept();
    EXPECT_EQ(residency.leased_bytes(), small + wide);
    EXPECT_TRUE(residency.packed(model.matrix));
    EXPECT_FALSE(residency.keeps(model.matrix));
    EXPECT_FALSE(residency.keeps(model.table));
    EXPECT_TRUE(residency.keeps(model.small));
    EXPECT_TRUE(residency.keeps(model.wide));
    EXPECT_EQ(residency.bytes_of(model.matrix), 512 * 2048 * 2);
    EXPECT_EQ(residency.dtype_of(model.table), at::kBFloat16);
    {
        const std::vector<Param> both = {model.matrix, model.table};
        const Lease lease = residency.lease(both);
        EXPECT_EQ(residency.leased_bytes(), small + wide + 512 * 2048 * 2 + 600 * 1024 * 2);
        EXPECT_TRUE(lease[model.matrix].equal(small_fp8(512, 2048).to(at::kBFloat16)));
        EXPECT_TRUE(lease[model.table].equal(small_fp8(600, 1024).to(at::kBFloat16)));
    }
    EXPECT_EQ(residency.leased_bytes(), small + wide)
        << "expanded values are freed with their lease";
}

TEST_F(PackedResidency, QuantisedMatricesAreKept) {
    const Model model =
        open({.compute_dtype = at::kFloat, .quantization = Quantization::int8_weight_only});
    EXPECT_TRUE(model.residency->keeps(model.matrix));
    EXPECT_FALSE(model.residency->keeps(model.table));
    const Lease kept = model.residency->lease_kept();
    const ops::Matrix matrix = kept.matrix(model.matrix);
    EXPECT_EQ(matrix.layout, ops::MatrixLayout::int8_rows);
    // int8 holds 127 steps to either side of a row's largest value, which is 30.
    const at::Tensor values = matrix.data.to(at::kFloat) * matrix.factors.view({512, 1});
    const at::Tensor error = (values - small_fp8(512, 2048).to(at::kFloat)).abs();
    EXPECT_LE(error.max().item<float>(), 30.0F / 127 / 2 + 1e-5F);
}

}  // namespace
}  // namespace zoetrope
