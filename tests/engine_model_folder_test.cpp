// Models in other layouts than Diffusers': found, recognised, and giving Diffusers' latents.
#include "engine/model_folder.h"

#include "base/json.h"
#include "engine/engine.h"
#include "engine/inspect.h"
#include "engine/known_models.h"
#include "errors.h"
#include "golden.h"
#include "golden_request.h"
#include "scratch.h"
#include "weights/layouts.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

constexpr double kLatentTolerance = 1e-5;  // as in engine_test.cpp

fs::path pipeline(const std::string& name) { return golden_folder() / "pipeline" / name; }

// Tiny pipelines of the goldens, written again in other layouts below a folder of the test.
class OtherLayouts : public testing::Test {
protected:
    void SetUp() override { fs::create_directories(models_); }

    // A component of a golden pipeline, under the names of another layout.
    static void convert(const fs::path& from, ComponentKind kind, const fs::path& file,
                        Layout layout, const std::string& prefix = "",
                        std::vector<NamedTensor> more = {}) {
        const auto source = open_canonical(kind, from);
        ComponentLayout names = detect_layout(kind, *source).value();
        names.layout = layout;
        names.prefix = prefix;
        for (std::size_t i = 0; i < source->tensors().size(); ++i) {
            const std::string& name = source->tensors()[i].name;
            if (name == "encoder.embed_tokens.weight") continue;  // shared.weight again
            more.push_back({original_name(names, name), source->read(i)});
        }
        fs::create_directories(file.parent_path());
        write_safetensors(file, more);
    }
    // config.json of the original repositories, which says how many heads there are.
    static void write_original_config(const fs::path& from, const fs::path& folder) {
        const json config = read_json(from / "config.json");
        const std::int64_t heads = config["num_attention_heads"];
        std::ofstream(folder / "config.json")
            << json{{"_class_name", "WanModel"},
                    {"dim", heads * config["attention_head_dim"].get<std::int64_t>()},
                    {"num_heads", heads},
                    {"eps", config["eps"]},
                    {"model_type", "t2v"}};
    }
    static void copy(const fs::path& from, const fs::path& to) {
        fs::create_directories(to.parent_path());
        fs::copy(from, to, fs::copy_options::recursive);
    }

    void write_original_folder(const std::string& name) const {
        const fs::path from = pipeline(name);
        convert(from / "transformer", ComponentKind::dit,
                models_ / "diffusion_pytorch_model.safetensors", Layout::original);
        write_original_config(from / "transformer", models_);
        convert(from / "vae", ComponentKind::vae, models_ / "Wan2.1_VAE.safetensors",
                Layout::original);
        convert(from / "text_encoder", ComponentKind::umt5,
                models_ / "models_t5_umt5-xxl-enc-bf16.safetensors", Layout::original);
        copy(from / "tokenizer", models_ / "google" / "umt5-xxl");
    }
    // ComfyUI's models/ folder; the tokenizer beside it.
    void write_comfy_parts(const std::string& name) const {
        const fs::path from = pipeline(name);
        convert(from / "vae", ComponentKind::vae, models_ / "vae" / "wan_2.1_vae.safetensors",
                Layout::original);
        convert(from / "text_encoder", ComponentKind::umt5,
                models_ / "text_encoders" / "umt5_xxl.safetensors", Layout::diffusers);
        copy(from / "tokenizer", models_ / "tokenizer");
    }
    fs::path write_comfy_transformer(const std::string& name, const std::string& part,
                                     const std::string& file) const {
        const fs::path path = models_ / "diffusion_models" / file;
        convert(pipeline(name) / part, ComponentKind::dit, path, Layout::original,
                "model.diffusion_model.");
        write_original_config(pipeline(name) / part, path.parent_path());
        return path;
    }

    // The golden request, with what the layout cannot say given as flags.
    static double error_of_latents(const ModelPaths& paths, const std::string& name) {
        const auto given = read_json(pipeline(name) / "request.json");
        Request request = golden_request(pipeline(name));
        request.num_outputs = given["num_outputs"];
        request.scheduler = given["scheduler"];
        request.flow_shift = given["flow_shift"];
        Engine engine(ModelFolder::open(paths), {.dtype = "fp32"});
        Report report;
        const at::Tensor latents = engine.generate(engine.resolve(request), {}, {}, report);
        const auto expected = read_tensors(pipeline(name) / "expected.safetensors");
        return relative_error(latents, expected.at("latents"));
    }
    std::string message_of(const fs::path& model) const {
        return error_of([&] { ModelFolder::open({.model = model.string()}); }).second;
    }

    // Deep, so that nothing around it is found.
    const Scratch scratch_;
    const fs::path models_ = scratch_ / "a" / "b" / "models";
};

TEST_F(OtherLayouts, OriginalFolderGivesDiffusersLatents) {
    write_original_folder("unipc");
    const auto model = ModelFolder::open({.model = models_.string()});
    EXPECT_EQ(model.layout, ModelLayout::original);
    EXPECT_EQ(model.pipeline, "WanPipeline");
    EXPECT_EQ(model.transformer_config["num_attention_heads"], 2);
    EXPECT_EQ(model.tokenizer, models_ / "google" / "umt5-xxl");
    EXPECT_FALSE(model.image_encoder.has_value());
    EXPECT_FALSE(model.boundary_ratio.has_value());
    EXPECT_LT(error_of_latents({.model = models_.string()}, "unipc"), kLatentTolerance);
}

TEST_F(OtherLayouts, OriginalFolderOfTwoExpertsGivesDiffusersLatents) {
    write_original_folder("two_experts");
    for (const char* file : {"config.json", "diffusion_pytorch_model.safetensors"})
        fs::remove(models_ / file);
    for (const auto& [part, folder] :
         {std::pair{"transformer", "high_noise_model"}, {"transformer_2", "low_noise_model"}}) {
        convert(pipeline("two_experts") / part, ComponentKind::dit,
                models_ / folder / "diffusion_pytorch_model.safetensors", Layout::original);
        write_original_config(pipeline("two_experts") / part, models_ / folder);
    }
    const auto model = ModelFolder::open({.model = models_.string()});
    EXPECT_EQ(model.transformer, models_ / "high_noise_model");
    EXPECT_EQ(model.boundary_ratio, 0.875);
    EXPECT_LT(error_of_latents({.model = models_.string()}, "two_experts"), kLatentTolerance);
}

TEST_F(OtherLayouts, SingleFileInComfysFoldersGivesDiffusersLatents) {
    const fs::path file = write_comfy_transformer("unipc", "transformer", "wan_tiny.safetensors");
    write_comfy_parts("unipc");
    const auto model = ModelFolder::open({.model = file.string()});
    EXPECT_EQ(model.layout, ModelLayout::single_file);
    EXPECT_EQ(model.vae, models_ / "vae" / "wan_2.1_vae.safetensors");
    EXPECT_LT(error_of_latents({.model = file.string()}, "unipc"), kLatentTolerance);
    // The folder of all of them means the same.
    EXPECT_EQ(ModelFolder::open({.model = models_.string()}).transformer, file);
}

TEST_F(OtherLayouts, PairsOfFilesAreTwoExpertsWhicheverIsGiven) {
    const auto high = write_comfy_transformer("two_experts", "transformer",
                                              "Wan2_2-T2V-A14B_HIGH_fp8_KJ.safetensors");
    const auto low = write_comfy_transformer("two_experts", "transformer_2",
                                             "Wan2_2-T2V-A14B-LOW_fp8_KJ.safetensors");
    write_comfy_parts("two_experts");
    for (const fs::path& given : {high, low, models_}) {
        const auto model = ModelFolder::open({.model = given.string()});
        EXPECT_EQ(model.transformer, high);
        EXPECT_EQ(model.transformer_2, low);
    }
    EXPECT_LT(error_of_latents({.model = low.string()}, "two_experts"), kLatentTolerance);
    fs::remove(low);
    EXPECT_THAT(message_of(high), HasSubstr("--transformer-2-path"));
}

TEST_F(OtherLayouts, ExpertsMayLieInFoldersOfTheirOwn) {
    const auto high = write_comfy_transformer("two_experts", "transformer",
                                              "HighNoise/Wan-T2V-A14B-HighNoise-Q4.safetensors");
    const auto low = write_comfy_transformer("two_experts", "transformer_2",
                                             "LowNoise/Wan-T2V-A14B-LowNoise-Q4.safetensors");
    write_comfy_parts("two_experts");
    EXPECT_EQ(ModelFolder::open({.model = high.string()}).transformer_2, low);
    // A name is not a pair because some word in it contains "low".
    const auto slow = write_comfy_transformer("unipc", "transformer", "slow_thigh.safetensors");
    EXPECT_FALSE(ModelFolder::open({.model = slow.string()}).transformer_2.has_value());
}

TEST_F(OtherLayouts, OneFileMayHoldEverything) {
    const fs::path file = models_ / "checkpoints" / "all_in_one.safetensors";
    const fs::path from = pipeline("unipc");
    std::vector<NamedTensor> tensors;
    const auto add = [&](const char* part, ComponentKind kind, const std::string& prefix,
                         Layout layout) {
        convert(from / part, kind, models_ / "part.safetensors", layout, prefix);
        for (auto& [name, tensor] : read_tensors(models_ / "part.safetensors"))
            tensors.push_back({name, tensor.clone()});
        fs::remove(models_ / "part.safetensors");
    };
    add("transformer", ComponentKind::dit, "model.diffusion_model.", Layout::original);
    add("vae", ComponentKind::vae, "vae.", Layout::original);
    add("text_encoder", ComponentKind::umt5, "text_encoders.umt5xxl.transformer.",
        Layout::diffusers);
    fs::create_directories(file.parent_path());
    write_safetensors(file, tensors);
    write_original_config(from / "transformer", file.parent_path());
    copy(from / "tokenizer", models_ / "tokenizer");
    const auto model = ModelFolder::open({.model = file.string()});
    EXPECT_EQ(model.vae, file);
    EXPECT_EQ(model.text_encoder, file);
    EXPECT_LT(error_of_latents({.model = file.string()}, "unipc"), kLatentTolerance);
    const auto found = inspect(file);
    EXPECT_EQ(found["components"].size(), 3u);
    EXPECT_FALSE(found["components"][0].contains("problem")) << found["components"][0];
}

TEST_F(OtherLayouts, MissingPartsAreSaidWithTheirFlags) {
    const fs::path file = write_comfy_transformer("unipc", "transformer", "wan_tiny.safetensors");
    EXPECT_THAT(message_of(file), HasSubstr("give it with --vae-path"));
    EXPECT_THAT(message_of(file), HasSubstr("z_dim 16"));
    write_comfy_parts("unipc");
    fs::remove_all(models_ / "tokenizer");
    EXPECT_THAT(message_of(file), HasSubstr("--tokenizer-path"));
    fs::remove_all(models_ / "text_encoders");
    EXPECT_THAT(message_of(file), HasSubstr("--text-encoder-path"));
    const fs::path from = pipeline("unipc");
    const ModelPaths paths{.model = file.string(),
                           .vae = from / "vae",
                           .text_encoder = from / "text_encoder",
                           .tokenizer = from / "tokenizer"};
    EXPECT_LT(error_of_latents(paths, "unipc"), kLatentTolerance);
    fs::remove(file.parent_path() / "config.json");
    EXPECT_THAT(message_of(file), HasSubstr("num_heads"));
    EXPECT_THAT(message_of(models_ / "vae"), HasSubstr("model_index.json"));
}

TEST_F(OtherLayouts, PartsOfADiffusersFolderMayBeFilesOfOtherLayouts) {
    copy(pipeline("unipc"), models_ / "tiny");
    write_comfy_parts("unipc");
    const ModelPaths paths{.model = (models_ / "tiny").string(),
                           .vae = models_ / "vae" / "wan_2.1_vae.safetensors",
                           .text_encoder = models_ / "text_encoders"};
    EXPECT_LT(error_of_latents(paths, "unipc"), kLatentTolerance);
    EXPECT_THAT(error_of([&] {
                    ModelFolder::open({.model = paths.model, .vae = paths.text_encoder});
                }).second,
                HasSubstr("has no VAE of Wan: it holds a UMT5 text encoder"));
}

TEST_F(OtherLayouts, TheTokenizerMayLieInTheTextEncodersFile) {
    const fs::path file = write_comfy_transformer("unipc", "transformer", "wan_tiny.safetensors");
    write_comfy_parts("unipc");
    fs::remove_all(models_ / "tokenizer");
    std::ifstream stream(golden_folder() / "text" / "tokenizer_umt5" / "spiece.model",
                         std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(stream), {}};
    const fs::path text = models_ / "text_encoders" / "umt5_xxl.safetensors";
    convert(pipeline("unipc") / "text_encoder", ComponentKind::umt5, text, Layout::diffusers, "",
            {{"spiece_model",
              at::from_blob(bytes.data(), {static_cast<std::int64_t>(bytes.size())}, at::kByte)
                  .clone()}});
    const auto model = ModelFolder::open({.model = file.string()});
    EXPECT_EQ(model.tokenizer, text);
    const Engine engine(model, {.dtype = "fp32"});
}

TEST_F(OtherLayouts, PicturesModelsOfDiffusersAreRead) {
    copy(pipeline("unipc"), models_ / "i2v");
    auto index = read_json(models_ / "i2v" / "model_index.json");
    index["_class_name"] = "WanImageToVideoPipeline";
    index["image_encoder"] = {"transformers", "CLIPVisionModel"};
    std::ofstream(models_ / "i2v" / "model_index.json") << index;
    EXPECT_THAT(message_of(models_ / "i2v"), HasSubstr("image_encoder"));
    fs::create_directories(models_ / "i2v" / "image_encoder");
    fs::create_directories(models_ / "i2v" / "image_processor");
    std::ofstream(models_ / "i2v" / "image_encoder" / "config.json")
        << json{{"hidden_size", 160}, {"patch_size", 14}};
    std::ofstream(models_ / "i2v" / "image_processor" / "preprocessor_config.json")
        << json{{"do_resize", true}};
    const auto model = ModelFolder::open({.model = (models_ / "i2v").string()});
    EXPECT_EQ(model.pipeline, "WanImageToVideoPipeline");
    EXPECT_EQ(model.image_encoder_config.value()["hidden_size"], 160);
    EXPECT_EQ(model.image_processor.value()["do_resize"], true);
    index["_class_name"] = "HunyuanVideoPipeline";
    std::ofstream(models_ / "i2v" / "model_index.json") << index;
    EXPECT_THAT(message_of(models_ / "i2v"), HasSubstr("WanVACEPipeline"));
}

json transformer_of(std::int64_t heads, std::int64_t layers, std::int64_t in_channels,
                    const char* type = "WanTransformer3DModel", bool image = false) {
    json config = {{"_class_name", type},
                   {"num_attention_heads", heads},
                   {"attention_head_dim", 128},
                   {"num_layers", layers},
                   {"in_channels", in_channels}};
    config["image_dim"] = image ? json(1280) : json();
    return config;
}

TEST(KnownModels, AreRecognisedByTheirSizes) {
    const auto name = [](const json& config, bool two_experts = false, const char* path = "x") {
        const KnownModel* known = find_known(config, two_experts, path);
        return known == nullptr ? "none" : std::string(known->name);
    };
    EXPECT_EQ(name(transformer_of(12, 30, 16)), "Wan2.1 T2V 1.3B");
    EXPECT_EQ(name(transformer_of(40, 40, 16)), "Wan2.1 T2V 14B");
    EXPECT_EQ(name(transformer_of(40, 40, 16), true), "Wan2.2 T2V A14B");
    EXPECT_EQ(name(transformer_of(40, 40, 36), true), "Wan2.2 I2V A14B");
    EXPECT_EQ(name(transformer_of(24, 30, 48)), "Wan2.2 TI2V 5B");
    json image = transformer_of(40, 40, 36, "WanTransformer3DModel", true);
    EXPECT_EQ(name(image), "Wan2.1 I2V 14B 480P");
    EXPECT_EQ(name(image, false, "hub/models--Wan-AI--Wan2.1-I2V-14B-720P/snapshots/abc"),
              "Wan2.1 I2V 14B 720P");
    EXPECT_EQ(name(image, false, "Wan2.1-Fun-14B-InP/x.safetensors"), "Wan2.1 Fun InP 14B");
    image["pos_embed_seq_len"] = 514;
    EXPECT_EQ(name(image), "Wan2.1 FLF2V 14B 720P");
    EXPECT_EQ(name(transformer_of(12, 30, 16, "WanVACETransformer3DModel")), "Wan2.1 VACE 1.3B");
    EXPECT_EQ(name(transformer_of(40, 40, 16, "WanVACETransformer3DModel")), "Wan2.1 VACE 14B");
    EXPECT_EQ(name(transformer_of(40, 40, 36, "WanAnimateTransformer3DModel", true)),
              "Wan2.2 Animate 14B");
    EXPECT_EQ(name(transformer_of(12, 30, 48, "WanTransformer3DModel", true)),
              "Wan2.1 Fun Control 1.3B");
    EXPECT_EQ(name(transformer_of(2, 2, 16)), "none");
    EXPECT_EQ(name(json::array()), "none");
}

TEST(KnownModels, SaySizesThatTheVaeTakesAndTheReposNegativePrompt) {
    for (const KnownModel& known : known_models()) {
        EXPECT_EQ(known.height % 16 + known.width % 16, 0) << known.name;
        EXPECT_EQ(known.num_frames % 4, 1) << known.name;
        EXPECT_EQ(known.two_experts, known.boundary_ratio.has_value()) << known.name;
        EXPECT_EQ(known.two_experts, known.guidance_scale_2.has_value()) << known.name;
        EXPECT_THAT(known.negative_prompt(), HasSubstr("色调艳丽，过曝，静态，")) << known.name;
    }
    const KnownModel* flf = find_known(json{{"num_attention_heads", 40},
                                            {"num_layers", 40},
                                            {"in_channels", 36},
                                            {"image_dim", 1280},
                                            {"pos_embed_seq_len", 514}},
                                       false, "x");
    ASSERT_NE(flf, nullptr);
    EXPECT_TRUE(flf->negative_prompt().starts_with("镜头切换，镜头晃动，色调艳丽"));
}

TEST_F(OtherLayouts, InspectSaysWhatFilesAre) {
    write_original_folder("unipc");
    const auto model = inspect(models_);
    EXPECT_EQ(model["kind"], "model");
    EXPECT_EQ(model["layout"], "original");
    EXPECT_EQ(model["parts"]["transformer"]["layout"], "original");
    EXPECT_EQ(model["parts"]["transformer"]["layers"], 2);
    for (const auto& [name, part] : model["parts"].items())
        EXPECT_FALSE(part.contains("problem")) << name << part["problem"];
    const auto vae = inspect(models_ / "Wan2.1_VAE.safetensors");
    EXPECT_EQ(vae["components"][0]["variant"], "Wan2.1 VAE");

    const fs::path broken = scratch_ / "a" / "vae.safetensors";
    const auto source = open_component(models_ / "Wan2.1_VAE.safetensors");
    std::vector<NamedTensor> tensors = {{"extra.weight", at::empty({1})}};
    for (std::size_t i = 0; i < source->tensors().size(); ++i) {
        if (source->tensors()[i].name != "decoder.head.2.bias")
            tensors.push_back({source->tensors()[i].name, source->read(i)});
    }
    write_safetensors(broken, tensors);
    const std::string problem = inspect(broken)["components"][0]["problem"];
    EXPECT_THAT(problem, HasSubstr("1 missing: decoder.conv_out.bias"));
    EXPECT_THAT(problem, HasSubstr("1 unexpected: extra.weight"));
}

TEST_F(OtherLayouts, InspectKnowsAdapters) {
    const fs::path file = models_ / "lora.safetensors";
    const std::string layer = "diffusion_model.blocks.0.self_attn.";
    const NamedTensor tensors[] = {{layer + "q.lora_down.weight", at::empty({8, 24})},
                                   {layer + "q.lora_up.weight", at::empty({24, 8})},
                                   {layer + "q.alpha", at::empty({}).fill_(4)},
                                   {layer + "q.diff_b", at::empty({24})},
                                   {layer + "k.lora_down.weight", at::empty({16, 24})},
                                   {layer + "k.lora_up.weight", at::empty({24, 16})}};
    write_safetensors(file, tensors);
    const auto adapter = inspect(file)["adapter"];
    EXPECT_EQ(adapter["layout"], "original");
    EXPECT_EQ(adapter["methods"], json({"LoRA", "differences"}));
    EXPECT_EQ(adapter["targets"], 2);
    EXPECT_EQ(adapter["ranks"], json({{"8", 1}, {"16", 1}}));
    EXPECT_EQ(adapter["alphas"], json({{"4", 1}}));
    EXPECT_EQ(adapter["other_tensors"].size(), 0u);
}

}  // namespace
}  // namespace zoetrope
