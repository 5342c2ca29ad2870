// Models written again in every layout and precision: names, shapes, numbers, and the same latents.
#include "engine/convert.h"

#include "base/json.h"
#include "engine/convert_weights.h"
#include "engine/engine.h"
#include "errors.h"
#include "golden.h"
#include "golden_request.h"
#include "scratch.h"
#include "weights/layouts.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr const char* kFileEnd = ".safetensors";

fs::path pipeline(const std::string& name) { return golden_folder() / "pipeline" / name; }
fs::path adapter(const std::string& name) {
    return golden_folder() / "adapters" / (name + kFileEnd);
}

Request request_of(const std::string& name) {
    const auto json = read_json(pipeline(name) / "request.json");
    Request request = golden_request(pipeline(name));
    request.scheduler = json["scheduler"];  // single files do not say it
    request.flow_shift = json["flow_shift"];
    request.output_type = OutputType::latent;
    return request;
}

at::Tensor latents_of(const ModelPaths& paths, const std::string& name,
                      EngineOptions options = {}) {
    if (options.dtype == "auto") options.dtype = "fp32";
    Engine engine(ModelFolder::open(paths), options);
    Report report;
    return engine.generate(engine.resolve(request_of(name)), {}, {}, report);
}

// name -> tensor, as a component's own names have it.
std::map<std::string, at::Tensor> canonical_tensors(ComponentKind kind, const fs::path& path) {
    const auto source = open_canonical(kind, path);
    std::map<std::string, at::Tensor> tensors;
    for (std::size_t i = 0; i < source->tensors().size(); ++i)
        tensors[source->tensors()[i].name] = source->read(i);
    return tensors;
}

// Diffusers' _keep_in_fp32_modules.
bool stays_wide(const std::string& name) {
    return name.find("time_embedder") != name.npos || name.find("scale_shift_table") != name.npos ||
           name.find("norm2") != name.npos;
}

constexpr std::pair<const char*, ComponentKind> kComponents[] = {
    {"transformer", ComponentKind::dit},
    {"text_encoder", ComponentKind::umt5},
    {"vae", ComponentKind::vae}};

class Convert : public testing::Test {
protected:
    // Converts into root_ / output.
    ConvertResult run(ConvertOptions options, const std::string& output) const {
        options.output = root_ / output;
        return convert(options, {});
    }
    ConvertOptions of(const std::string& model) const {
        return {.paths = {.model = pipeline(model).string()}, .output = {}};
    }
    // A single file with the other parts of the model that it was made of.
    ModelPaths with_parts(const std::string& file, const std::string& model) const {
        const fs::path parts = pipeline(model);
        return {.model = (root_ / file).string(),
                .vae = parts / "vae",
                .text_encoder = parts / "text_encoder",
                .tokenizer = parts / "tokenizer"};
    }

    const Scratch scratch_;
    const fs::path root_ = scratch_.path();
};

TEST_F(Convert, FoldersHoldTheSameNumbersInEveryPrecision) {
    for (const auto& [precision, dtype] : {std::pair{Precision::fp32, at::kFloat},
                                           {Precision::bf16, at::kBFloat16},
                                           {Precision::fp16, at::kHalf}}) {
        const std::string name = fmt::format("as_{}", c10::toString(dtype));
        ConvertOptions options = of("unipc");
        options.precision = precision;
        const ConvertResult result = run(options, name);
        EXPECT_EQ(result.outputs, std::vector{root_ / name});
        std::int64_t count = 0, bytes = 0;
        for (const auto& [part, kind] : kComponents) {
            const auto before = canonical_tensors(kind, pipeline("unipc") / part);
            const auto after = canonical_tensors(kind, root_ / name / part);
            count += static_cast<std::int64_t>(after.size());
            const bool table_twice =
                kind == ComponentKind::umt5 && before.contains("encoder.embed_tokens.weight");
            EXPECT_EQ(after.size() + (table_twice ? 1 : 0), before.size());
            for (const auto& [tensor_name, tensor] : after) {
                bytes += static_cast<std::int64_t>(tensor.nbytes());
                const bool wide = kind == ComponentKind::vae ||
                                  (kind == ComponentKind::dit && stays_wide(tensor_name)) ||
                                  (dtype == at::kHalf && tensor_name.ends_with(".wo.weight"));
                ASSERT_TRUE(before.contains(tensor_name)) << tensor_name;
                const at::Tensor wanted = before.at(tensor_name).to(wide ? at::kFloat : dtype);
                EXPECT_EQ(tensor.scalar_type(), wanted.scalar_type()) << tensor_name;
                EXPECT_TRUE(at::equal(tensor, wanted)) << tensor_name;
            }
        }
        EXPECT_EQ(result.tensors, count);
        EXPECT_GT(result.bytes, bytes);
        EXPECT_LT(result.bytes, bytes + 65536);  // headers
        const auto text = read_json(root_ / name / "text_encoder" / "config.json");
        EXPECT_EQ(text["torch_dtype"], dtype == at::kFloat      ? "float32"
                                       : dtype == at::kBFloat16 ? "bfloat16"
                                                                : "float16");
    }
    const ModelPaths before{.model = pipeline("unipc").string()};
    const ModelPaths after{.model = (root_ / "as_Float").string()};
    EXPECT_TRUE(at::equal(latents_of(after, "unipc"), latents_of(before, "unipc")));
    // In bf16 the run rounds what was rounded already.
    const ModelPaths half{.model = (root_ / "as_BFloat16").string()};
    const double drift = relative_error(latents_of(half, "unipc"), latents_of(before, "unipc"));
    std::printf("[          ] bf16: latents differ by %.2e\n", drift);
    EXPECT_LT(drift, 0.01);
}

TEST_F(Convert, FilesOfTheFolderAreTheModelsOwn) {
    run(of("two_experts"), "copy");
    const auto before = ModelFolder::open({.model = pipeline("two_experts").string()});
    const auto after = ModelFolder::open({.model = (root_ / "copy").string()});
    EXPECT_EQ(after.index, before.index);
    EXPECT_EQ(after.scheduler, before.scheduler);
    EXPECT_EQ(after.boundary_ratio, before.boundary_ratio);
    EXPECT_EQ(after.transformer_config, before.transformer_config);
    EXPECT_EQ(after.transformer_2_config, before.transformer_2_config);
    EXPECT_EQ(after.vae_config, before.vae_config);
    EXPECT_TRUE(at::equal(latents_of({.model = (root_ / "copy").string()}, "two_experts"),
                          latents_of({.model = pipeline("two_experts").string()}, "two_experts")));
}

TEST_F(Convert, LargePartsAreCutIntoShards) {
    ConvertOptions options = of("unipc");
    options.max_shard_bytes = 30000;
    run(options, "cut");
    const fs::path folder = root_ / "cut" / "transformer";
    EXPECT_FALSE(fs::exists(folder / "diffusion_pytorch_model.safetensors"));
    const auto index = read_json(folder / "diffusion_pytorch_model.safetensors.index.json");
    EXPECT_EQ(index["weight_map"]["blocks.0.attn1.to_q.weight"],
              "diffusion_pytorch_model-00001-of-00004.safetensors");
    const auto whole =
        open_safetensors(pipeline("unipc") / "transformer" / "diffusion_pytorch_model.safetensors");
    std::int64_t bytes = 0;
    for (const TensorInfo& info : whole->tensors()) bytes += info.bytes();
    EXPECT_EQ(index["metadata"]["total_size"], bytes);
    for (const fs::path& file : weight_files(folder)) {
        std::int64_t in_file = 0;
        const auto shard = open_safetensors(file);
        for (const TensorInfo& info : shard->tensors()) in_file += info.bytes();
        EXPECT_LE(in_file, options.max_shard_bytes) << file;
    }
    EXPECT_TRUE(at::equal(latents_of({.model = (root_ / "cut").string()}, "unipc"),
                          latents_of({.model = pipeline("unipc").string()}, "unipc")));
}

TEST_F(Convert, SingleFilesHaveComfysNames) {
    ConvertOptions options = of("unipc");
    options.layout = ConvertLayout::single_file;
    run(options, "wan.safetensors");
    const auto stored = read_tensors(root_ / "wan.safetensors");
    EXPECT_EQ(stored.at("model.diffusion_model.blocks.1.self_attn.q.weight").sizes(),
              at::IntArrayRef({24, 24}));
    EXPECT_TRUE(stored.contains("model.diffusion_model.head.modulation"));
    const auto before = canonical_tensors(ComponentKind::dit, pipeline("unipc") / "transformer");
    const auto after = canonical_tensors(ComponentKind::dit, root_ / "wan.safetensors");
    ASSERT_EQ(after.size(), before.size());
    for (const auto& [name, tensor] : before)
        EXPECT_TRUE(at::equal(after.at(name), tensor)) << name;
    // The file says itself that its heads have not 128 channels.
    const ModelPaths paths = with_parts("wan.safetensors", "unipc");
    EXPECT_EQ(ModelFolder::open(paths).transformer_config["attention_head_dim"], 12);
    EXPECT_TRUE(at::equal(latents_of(paths, "unipc"),
                          latents_of({.model = pipeline("unipc").string()}, "unipc")));
}

TEST_F(Convert, TwoExpertsAreTwoFiles) {
    ConvertOptions options = of("two_experts");
    options.layout = ConvertLayout::single_file;
    const ConvertResult result = run(options, "wan.safetensors");
    EXPECT_EQ(result.outputs, (std::vector{root_ / "wan_high_noise.safetensors",
                                           root_ / "wan_low_noise.safetensors"}));
    const auto model = ModelFolder::open(with_parts("wan_low_noise.safetensors", "two_experts"));
    EXPECT_EQ(model.transformer, result.outputs[0]);
    EXPECT_EQ(model.transformer_2, result.outputs[1]);
}

// A single file, its other parts from elsewhere, becomes a folder again.
TEST_F(Convert, SingleFilesBecomeFolders) {
    ConvertOptions options = of("unipc");
    options.layout = ConvertLayout::single_file;
    run(options, "wan.safetensors");
    run({.paths = with_parts("wan.safetensors", "unipc"), .output = {}}, "folder");
    const auto model = ModelFolder::open({.model = (root_ / "folder").string()});
    EXPECT_EQ(model.layout, ModelLayout::diffusers);
    EXPECT_EQ(model.pipeline, "WanPipeline");
    EXPECT_EQ(model.index["scheduler"][1], "UniPCMultistepScheduler");
    EXPECT_EQ(model.index["transformer_2"][1], nullptr);
    EXPECT_FALSE(model.expand_timesteps);
    EXPECT_TRUE(fs::exists(root_ / "folder" / "tokenizer" / "tokenizer.json") ||
                fs::exists(root_ / "folder" / "tokenizer" / "spiece.model"));
    EXPECT_TRUE(at::equal(latents_of({.model = (root_ / "folder").string()}, "unipc"),
                          latents_of({.model = pipeline("unipc").string()}, "unipc")));
}

// A folder of the Wan repositories: other names, fused and flattened levels, one file per part.
TEST_F(Convert, OriginalFoldersBecomeDiffusersFolders) {
    const fs::path from = pipeline("unipc"), wan = root_ / "Wan2.1";
    fs::create_directories(wan / "google");
    const std::pair<const char*, const char*> files[] = {
        {"transformer", "diffusion_pytorch_model.safetensors"},
        {"text_encoder", "models_t5_umt5-xxl-enc-bf16.safetensors"},
        {"vae", "Wan2.1_VAE.safetensors"}};
    for (std::size_t i = 0; i < std::size(files); ++i) {
        const ComponentKind kind = kComponents[i].second;
        const auto canonical = open_canonical(kind, from / files[i].first);
        ComponentLayout names = detect_layout(kind, *canonical).value();
        names.layout = Layout::original;
        write_component(plan_component(kind, canonical, names, Precision::as_stored),
                        wan / files[i].second, {}, [](std::int64_t) {});
    }
    EXPECT_TRUE(read_tensors(wan / "Wan2.1_VAE.safetensors")
                    .contains("decoder.upsamples.0.residual.0.gamma"));
    const auto config = read_json(from / "transformer" / "config.json");
    std::ofstream(wan / "config.json") << nlohmann::json{
        {"dim", 24}, {"num_heads", config["num_attention_heads"]}, {"eps", config["eps"]}};
    fs::copy(from / "tokenizer", wan / "google" / "umt5-xxl", fs::copy_options::recursive);
    ASSERT_EQ(ModelFolder::open({.model = wan.string()}).layout, ModelLayout::original);
    run({.paths = {.model = wan.string()}, .output = {}}, "folder");
    for (const auto& [part, kind] : kComponents) {
        const auto before = canonical_tensors(kind, from / part);
        for (const auto& [name, tensor] : canonical_tensors(kind, root_ / "folder" / part))
            EXPECT_TRUE(at::equal(tensor, before.at(name))) << name;
    }
    EXPECT_TRUE(at::equal(latents_of({.model = (root_ / "folder").string()}, "unipc"),
                          latents_of({.model = from.string()}, "unipc")));
}

// Rounding to 8 bits stays inside what the formats promise, and nothing else is rounded.
TEST_F(Convert, EightBitNumbersAreWithinHalfAStep) {
    const auto before = canonical_tensors(ComponentKind::dit, pipeline("unipc") / "transformer");
    const auto wanted = latents_of({.model = pipeline("unipc").string()}, "unipc");
    for (const Precision precision : {Precision::fp8, Precision::int8}) {
        for (const ConvertLayout layout : {ConvertLayout::single_file, ConvertLayout::diffusers}) {
            const bool fp8 = precision == Precision::fp8;
            const bool file = layout == ConvertLayout::single_file;
            const std::string name =
                fmt::format("{}{}", fp8 ? "fp8" : "int8", file ? kFileEnd : "");
            ConvertOptions options = of("unipc");
            options.precision = precision;
            options.layout = layout;
            run(options, name);
            const fs::path path = file ? root_ / name : root_ / name / "transformer";
            int quantised = 0;
            for (const auto& [tensor_name, tensor] : canonical_tensors(ComponentKind::dit, path)) {
                const at::Tensor exact = before.at(tensor_name);
                // ComfyUI wants a scale of every linear layer in an fp8 file.
                const bool matrix = ((fp8 && file) || tensor_name.starts_with("blocks.")) &&
                                    exact.dim() == 2 && tensor_name.ends_with(".weight");
                if (!matrix) {
                    const at::Tensor rounded =
                        stays_wide(tensor_name) ? exact : exact.to(at::kBFloat16);
                    EXPECT_TRUE(at::equal(tensor, rounded)) << tensor_name;
                    continue;
                }
                ++quantised;
                const at::Tensor error = (tensor - exact).abs();
                if (fp8) {  // 3 bits behind the point, and steps of 2^-9 below 2^-6
                    const at::Tensor scale = exact.abs().amax() / 448;
                    const at::Tensor bound =
                        at::maximum(exact.abs() / 16, scale.expand_as(exact) / 1024);
                    EXPECT_TRUE((error <= bound * 1.0001).all().item<bool>()) << tensor_name;
                } else {
                    const at::Tensor step = exact.abs().amax(1, true) / 127;
                    EXPECT_TRUE((error <= step * 0.5001).all().item<bool>()) << tensor_name;
                }
                EXPECT_LT(relative_error(tensor, exact), fp8 ? 0.035 : 0.01) << tensor_name;
            }
            EXPECT_EQ(quantised, fp8 && file ? 2 * 10 + 6 : 2 * 10);
            const ModelPaths paths =
                file ? with_parts(name, "unipc") : ModelPaths{.model = (root_ / name).string()};
            const double drift = relative_error(latents_of(paths, "unipc"), wanted);
            std::printf("[          ] %s: latents differ by %.2e\n", name.c_str(), drift);
            // Measured: 1.5e-2 (the last layer's fp8 shows in the latents), 4.9e-3 and 1.7e-3.
            EXPECT_LT(drift, !fp8 ? 0.004 : file ? 0.03 : 0.01) << name;
            EXPECT_GT(drift, 0) << name;
        }
    }
    const auto fp8 = read_tensors(root_ / "fp8.safetensors");
    const std::string layer = "model.diffusion_model.blocks.0.ffn.0.";
    EXPECT_EQ(fp8.at(layer + "weight").scalar_type(), at::kFloat8_e4m3fn);
    EXPECT_EQ(fp8.at(layer + "scale_weight").dim(), 0);
    EXPECT_EQ(fp8.at("model.diffusion_model.scaled_fp8").numel(), 2);
    const auto int8 = read_tensors(root_ / "int8.safetensors");
    EXPECT_EQ(int8.at(layer + "weight").scalar_type(), at::kChar);
    EXPECT_EQ(int8.at(layer + "weight_scale").sizes(), at::IntArrayRef({32, 1}));
    // Diffusers refuses what it would take for plain numbers.
    EXPECT_EQ(read_json(root_ / "fp8" / "transformer" /
                        "config.json")["quantization_config"]["quant_method"],
              "zoetrope_fp8");
}

TEST_F(Convert, PackedWeightsBecomeBf16) {
    ConvertOptions options = of("unipc");
    options.layout = ConvertLayout::single_file;
    options.precision = Precision::int8;
    run(options, "int8.safetensors");
    const ModelPaths packed = with_parts("int8.safetensors", "unipc");
    run({.paths = packed, .output = {}, .layout = ConvertLayout::single_file}, "plain.safetensors");
    const auto before = canonical_tensors(ComponentKind::dit, root_ / "int8.safetensors");
    const auto after = canonical_tensors(ComponentKind::dit, root_ / "plain.safetensors");
    const std::string matrix = "blocks.0.attn1.to_q.weight";
    EXPECT_EQ(after.at(matrix).scalar_type(), at::kBFloat16);
    EXPECT_TRUE(at::equal(after.at(matrix), before.at(matrix).to(at::kBFloat16)));
    // Quantised again from what 8 bits say, each number is the same.
    run({.paths = packed,
         .output = {},
         .layout = ConvertLayout::single_file,
         .precision = Precision::int8},
        "again.safetensors");
    const auto first = read_tensors(root_ / "int8.safetensors");
    const auto again = read_tensors(root_ / "again.safetensors");
    for (const auto& [name, tensor] : first) {
        if (tensor.scalar_type() != at::kChar) continue;
        EXPECT_TRUE(at::equal(again.at(name), tensor)) << name;
    }
}

TEST_F(Convert, MergedAdaptersAreTheRuntimesOwn) {
    const std::vector<AdapterChoice> adapters = {{adapter("diffusers").string(), 0.7, {}},
                                                 {adapter("original").string(), {}, {}},
                                                 {adapter("dora").string(), 0.5, {}}};
    ConvertOptions options = of("unipc");
    options.adapters = adapters;
    const ConvertResult result = run(options, "merged");
    EXPECT_GT(result.predicted_bytes, 0);
    const ModelPaths base{.model = pipeline("unipc").string()};
    const at::Tensor latents = latents_of({.model = (root_ / "merged").string()}, "unipc");
    const at::Tensor merged =
        latents_of(base, "unipc", {.adapters = adapters, .lora_mode = "merged"});
    EXPECT_TRUE(at::equal(latents, merged));
    const at::Tensor runtime =
        latents_of(base, "unipc", {.adapters = adapters, .lora_mode = "runtime"});
    EXPECT_LT(relative_error(latents, runtime), 1e-5);
    EXPECT_GT(relative_error(latents, latents_of(base, "unipc")), 1e-2);

    options.layout = ConvertLayout::single_file;
    run(options, "merged.safetensors");
    EXPECT_TRUE(at::equal(latents_of(with_parts("merged.safetensors", "unipc"), "unipc"), merged));
}

TEST_F(Convert, PictureEncodersAndTheirPreprocessingComeAlong) {
    const fs::path model = golden_folder() / "conditions" / "i2v";
    const fs::path text = pipeline("unipc");
    run({.paths = {.model = model.string(),
                   .text_encoder = text / "text_encoder",
                   .tokenizer = text / "tokenizer"},
         .output = {},
         .precision = Precision::fp32},
        "i2v");
    const auto before = canonical_tensors(ComponentKind::clip, model / "image_encoder");
    const auto after = canonical_tensors(ComponentKind::clip, root_ / "i2v" / "image_encoder");
    ASSERT_EQ(after.size(), before.size());
    for (const auto& [name, tensor] : before)
        EXPECT_TRUE(at::equal(after.at(name), tensor.to(at::kFloat))) << name;
    EXPECT_EQ(read_json(root_ / "i2v/image_processor/preprocessor_config.json"),
              read_json(model / "image_processor/preprocessor_config.json"));
    EXPECT_EQ(ModelFolder::open({.model = (root_ / "i2v").string()}).pipeline,
              "WanImageToVideoPipeline");
}

TEST_F(Convert, AStoppedConversionLeavesNothing) {
    for (const bool folder : {true, false}) {
        std::stop_source stop;
        int last = 0;
        const RunControl control{[&](const Progress& progress) {
                                     EXPECT_EQ(progress.stage, Stage::write);
                                     last = progress.step;
                                     if (progress.step == 20) stop.request_stop();
                                 },
                                 stop.get_token()};
        ConvertOptions options = of("unipc");
        options.layout = folder ? ConvertLayout::diffusers : ConvertLayout::single_file;
        options.output = root_ / "deep" / (folder ? "folder" : "x.safetensors");
        EXPECT_EQ(error_of([&] { convert(options, control); }).first, ErrorKind::cancelled);
        EXPECT_EQ(last, 20);
        EXPECT_TRUE(fs::is_empty(root_));
    }
}

TEST_F(Convert, WrongOutputsAndNumbersAreRefused) {
    const auto message_of = [this](ConvertOptions options, const std::string& output) {
        return error_of([&] { run(options, output); });
    };
    ConvertOptions file = of("unipc");
    file.layout = ConvertLayout::single_file;
    EXPECT_THAT(message_of(file, "folder").second, HasSubstr(".safetensors file"));
    EXPECT_THAT(message_of(of("unipc"), "x.safetensors").second, HasSubstr("single-file"));
    std::ofstream(root_ / "there.safetensors") << "x";
    const auto [kind, message] = message_of(file, "there.safetensors");
    EXPECT_EQ(kind, ErrorKind::bad_request);
    EXPECT_THAT(message, HasSubstr("there already"));
    fs::create_directories(root_ / "full");
    std::ofstream(root_ / "full" / "x") << "x";
    EXPECT_THAT(message_of(of("unipc"), "full").second, HasSubstr("there already"));
    EXPECT_EQ(message_of({.paths = {.model = "nowhere"}, .output = {}}, "y").first,
              ErrorKind::not_found);
    EXPECT_THAT(error_of([] { parse_precision("int4"); }).second, HasSubstr("fp32, bf16, fp16"));
    EXPECT_THAT(error_of([] { parse_convert_layout("gguf"); }).second, HasSubstr("single-file"));
    EXPECT_EQ(fs::file_size(root_ / "there.safetensors"), 1u);
}

TEST(Quantise, NamesWhatIsNotFinite) {
    at::Tensor matrix = at::randn({4, 8});
    matrix[2][3] = std::numeric_limits<float>::infinity();
    for (const at::ScalarType dtype : {at::kFloat8_e4m3fn, at::kChar}) {
        const auto [kind, message] = error_of([&] { quantise_to(dtype, matrix, "a.weight"); });
        EXPECT_EQ(kind, ErrorKind::io);
        EXPECT_THAT(message, HasSubstr("a.weight"));
        const QuantisedMatrix zeros = quantise_to(dtype, at::full({4, 8}, 0.0), "a.weight");
        EXPECT_EQ(zeros.numbers.to(at::kFloat).abs().max().item<float>(), 0);
        EXPECT_TRUE(std::isfinite(zeros.scale.to(at::kDouble).max().item<double>()));
    }
}

}  // namespace
}  // namespace zoetrope
