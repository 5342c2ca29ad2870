// Adapters from the user's words to the latents, beside Diffusers (tools/oracle/adapter_golden.py).
#include "base/error.h"
#include "base/json.h"
#include "engine/engine.h"
#include "engine/output.h"
#include "errors.h"
#include "golden.h"
#include "golden_request.h"
#include "scratch.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

// Diffusers against itself: up to 7e-6.
constexpr double kLatentTolerance = 1e-5;

fs::path pipeline(const std::string& name) { return golden_folder() / "pipeline" / name; }
fs::path adapter(const std::string& name) {
    return golden_folder() / "adapters" / (name + ".safetensors");
}

Request request_of(const std::string& name) {
    Request request = golden_request(pipeline(name));
    request.output_type = OutputType::latent;
    return request;
}

Engine open_engine(const std::string& name, EngineOptions options) {
    options.dtype = "fp32";
    return Engine(ModelFolder::open({.model = pipeline(name).string()}), options);
}

at::Tensor latents_of(Engine& engine, const std::string& name, Report* report = nullptr) {
    Report own;
    return engine.generate(engine.resolve(request_of(name)), {}, {}, report ? *report : own);
}

AdapterChoice choice(const fs::path& path, std::optional<double> strength = {},
                     std::optional<AdapterExpert> expert = {}) {
    return {path.string(), strength, expert};
}

struct Case {
    const char* name;
    std::vector<AdapterChoice> adapters;
};
std::vector<Case> cases() {
    return {{"none", {}},
            {"none", {choice(adapter("diffusers"), 0), choice(adapter("original"), 0)}},
            {"diffusers", {choice(adapter("diffusers"), 0.7)}},
            {"original", {choice(adapter("original"))}},
            {"dora", {choice(adapter("dora"))}},
            {"two", {choice(adapter("original"), 0.5), choice(adapter("diffusers"), 0.7)}}};
}

TEST(EngineAdapters, LatentsEqualDiffusers) {
    const auto expected = read_tensors(adapter("expected"));
    for (const char* mode : {"runtime", "merged"}) {
        for (const auto& [name, adapters] : cases()) {
            Engine engine = open_engine("unipc", {.adapters = adapters, .lora_mode = mode});
            const at::Tensor latents = latents_of(engine, "unipc");
            EXPECT_LT(relative_error(latents, expected.at(name)), kLatentTolerance)
                << name << " " << mode;
            if (std::string(name) == "none") continue;
            EXPECT_GT(relative_error(latents, expected.at("none")), 1e-2) << name;
        }
    }
}

TEST(EngineAdapters, SwitchBetweenRunsAndBackBitForBit) {
    const auto expected = read_tensors(adapter("expected"));
    for (const bool keep_resident : {false, true}) {
        Engine engine = open_engine("unipc", {.keep_resident = keep_resident});
        const at::Tensor none = latents_of(engine, "unipc");
        for (const auto& [name, adapters] : cases()) {
            engine.set_adapters(adapters);
            EXPECT_LT(relative_error(latents_of(engine, "unipc"), expected.at(name)),
                      kLatentTolerance)
                << name;
        }
        // A refused one leaves those before it.
        EXPECT_THAT(error_of([&] { engine.set_adapters({choice("no such file")}); }).second,
                    HasSubstr("no such file"));
        EXPECT_EQ(engine.adapters().size(), 2u);
        EXPECT_LT(relative_error(latents_of(engine, "unipc"), expected.at("two")),
                  kLatentTolerance);
        engine.set_adapters({});
        EXPECT_EQ(largest_difference(latents_of(engine, "unipc"), none), 0);
    }
}

TEST(EngineAdapters, ReportAndMetadataTellOfThem) {
    Engine engine = open_engine("unipc", {.adapters = {choice(adapter("diffusers"), 0.7)}});
    Report report;
    latents_of(engine, "unipc", &report);
    ASSERT_EQ(report.adapters.size(), 1u);
    EXPECT_EQ(report.adapters[0].rank, 4);
    EXPECT_EQ(report.adapters[0].targets, 21);  // ten matrices of two blocks, and time_proj
    EXPECT_GT(report.adapters[0].seconds, 0);
    EXPECT_EQ(to_json(report)["adapters"][0]["strength"], 0.7);
    const auto settings =
        nlohmann::json::parse(settings_json(engine.resolve(request_of("unipc")), engine));
    EXPECT_EQ(settings["lora_mode"], "runtime");
    EXPECT_EQ(settings["adapters"][0]["file"], "diffusers.safetensors");
    EXPECT_EQ(settings["adapters"][0]["expert"], "both");
}

// An adapter for `two_experts`, whose transformers have dim 16.
fs::path write_adapter(const Scratch& folder) {
    at::manual_seed(11);
    const fs::path file = folder / "experts.safetensors";
    std::vector<NamedTensor> tensors;
    for (const char* block : {"blocks.0.", "blocks.1."}) {
        const std::string module = std::string("diffusion_model.") + block + "self_attn.v";
        tensors.push_back({module + ".lora_A.weight", at::randn({3, 16})});
        tensors.push_back({module + ".lora_B.weight", at::randn({16, 3}) * 0.3});
    }
    write_safetensors(file, tensors);
    return file;
}

TEST(EngineAdapters, EachExpertHasItsOwn) {
    const Scratch scratch;
    const fs::path file = write_adapter(scratch);
    const auto run = [](std::vector<AdapterChoice> adapters) {
        Engine engine = open_engine("two_experts", {.adapters = std::move(adapters)});
        return latents_of(engine, "two_experts");
    };
    const at::Tensor none = run({});
    const at::Tensor both = run({choice(file, 1)});
    const at::Tensor high = run({choice(file, 1, AdapterExpert::high)});
    const at::Tensor low = run({choice(file, 1, AdapterExpert::low)});
    EXPECT_EQ(
        largest_difference(
            run({choice(file, 1, AdapterExpert::high), choice(file, 1, AdapterExpert::low)}), both),
        0);
    EXPECT_EQ(
        largest_difference(
            run({choice(file, 0, AdapterExpert::high), choice(file, 1, AdapterExpert::low)}), low),
        0);
    for (const at::Tensor& other : {none, high, low}) EXPECT_GT(relative_error(other, both), 1e-3);
    EXPECT_GT(relative_error(high, none), 1e-3);
    EXPECT_GT(relative_error(low, none), 1e-3);
    EXPECT_THAT(error_of([&] {
                    open_engine("unipc", {.adapters = {choice(file, 1, AdapterExpert::low)}});
                }).second,
                HasSubstr("one transformer for all"));
}

TEST(EngineAdapters, WrongOnesAreRefusedBeforeAnyWork) {
    const auto message_of = [](const EngineOptions& options) {
        const auto [kind, message] = error_of([&] { open_engine("unipc", options); });
        EXPECT_TRUE(kind == ErrorKind::bad_request || kind == ErrorKind::not_found) << message;
        return message;
    };
    const Scratch scratch;
    EXPECT_THAT(message_of({.adapters = {choice(write_adapter(scratch))}}),
                AllOf(HasSubstr("dim 16"), HasSubstr("the model has 24")));
    EXPECT_THAT(message_of({.lora_mode = "fused"}),
                AllOf(HasSubstr("--lora-mode"), HasSubstr("merged")));
    // A model's own weights are no adapter.
    const fs::path model =
        pipeline("unipc") / "transformer" / "diffusion_pytorch_model.safetensors";
    EXPECT_THAT(message_of({.adapters = {choice(model)}}), HasSubstr("keys match nothing"));
}

TEST(AdapterChoices, PathStrengthAndExpertArePartedAtColons) {
    const auto parsed = [](const std::string& text) {
        const AdapterChoice choice = parse_adapter_choice(text);
        return fmt::format("{}|{}|{}", choice.path,
                           choice.strength ? fmt::format("{}", *choice.strength) : "-",
                           choice.expert ? name_of(*choice.expert) : "-");
    };
    EXPECT_EQ(parsed("style.safetensors"), "style.safetensors|-|-");
    EXPECT_EQ(parsed("style.safetensors:0.5"), "style.safetensors|0.5|-");
    EXPECT_EQ(parsed("style.safetensors:-1:low"), "style.safetensors|-1|low");
    EXPECT_EQ(parsed("style.safetensors:high"), "style.safetensors|-|high");
    EXPECT_EQ(parsed("org/name:+2:both"), "org/name|2|both");
    EXPECT_EQ(parsed("a:b/style.safetensors:0.5"), "a:b/style.safetensors|0.5|-");
    EXPECT_EQ(parsed("style:0.5:hgih"), "style:0.5:hgih|-|-");
    const Scratch scratch;
    const fs::path file = scratch / "odd:1";
    std::ofstream(file) << "x";
    EXPECT_EQ(parsed(file.string()), file.string() + "|-|-");
    EXPECT_EQ(parsed(file.string() + ":2"), file.string() + "|2|-");
    EXPECT_EQ(parsed(file.string() + ":low"), file.string() + "|-|low");
    for (const char* bad : {"x:nan", "x:inf:low", ":1"})
        EXPECT_EQ(error_of([&] { parse_adapter_choice(bad); }).first, ErrorKind::bad_request)
            << bad;
}

// A registry, a folder with an adapter and a Hugging Face cache with another.
class Registry : public testing::Test {
protected:
    void SetUp() override {
        fs::create_directories(root_ / "local");
        std::ofstream(root_ / "local" / "a.safetensors") << "x";
        const fs::path repository = root_ / "hub" / "models--org--pair";
        fs::create_directories(repository / "refs");
        std::ofstream(repository / "refs" / "main") << "abc";
        fs::create_directories(repository / "snapshots" / "abc" / "v1");
        for (const char* name : {"high", "low"})
            std::ofstream(repository / "snapshots" / "abc" / "v1" /
                          (std::string(name) + ".safetensors"))
                << "x";
        registry_ = root_ / "registry.json";
        std::ofstream(registry_) << R"({"adapters": {
            "style": {"path": "local", "base": ["Wan2.1-T2V-1.3B"], "strength": 0.6, "trigger_words": ["zoe"]},
            "fast": {"repository": "org/pair", "base": ["Wan2.2-T2V-A14B"], "steps": 4, "scheduler": "euler",
                     "file": {"high": "v1/high.safetensors", "low": "v1/low.safetensors"},
                     "strength": {"high": 1.0, "low": 0.8}}}})";
        ::setenv("HF_HUB_CACHE", (root_ / "hub").c_str(), 1);
    }
    void TearDown() override { ::unsetenv("HF_HUB_CACHE"); }

    FoundAdapters find(const std::string& text, const AdapterBase& base, bool any = false) const {
        const std::vector<AdapterChoice> choices = {parse_adapter_choice(text)};
        return find_adapters(choices, registry_, base, any);
    }

    const AdapterBase small_{"models/mine", 1536, 30, 16, false};
    const AdapterBase experts_{"models/mine", 5120, 40, 16, true};
    const Scratch scratch_;
    const fs::path root_ = scratch_.path();
    fs::path registry_;
};

TEST_F(Registry, NamesStandForFilesWithTheirStrengths) {
    const auto style = find("style", small_);
    ASSERT_EQ(style.files.size(), 1u);
    EXPECT_EQ(style.files[0].file.filename(), "a.safetensors");
    EXPECT_EQ(style.files[0].strength, 0.6);
    EXPECT_EQ(find("style:0.2", small_).files[0].strength, 0.2);
    EXPECT_THAT(style.sentences.at(0), HasSubstr("zoe"));

    for (const char* name : {"fast", "org/pair"}) {
        const auto fast = find(name, experts_);
        ASSERT_EQ(fast.files.size(), 2u);
        EXPECT_EQ(fast.files[0].expert, AdapterExpert::high);
        EXPECT_EQ(fast.files[0].strength, 1);
        EXPECT_EQ(fast.files[1].expert, AdapterExpert::low);
        EXPECT_EQ(fast.files[1].strength, 0.8);
        EXPECT_EQ(fast.files[1].file.filename(), "low.safetensors");
        EXPECT_THAT(fast.sentences.at(0),
                    AllOf(HasSubstr("--num-inference-steps 4"), HasSubstr("--scheduler euler")));
    }
    EXPECT_EQ(find("fast:1:low", experts_).files.size(), 1u);
    EXPECT_EQ(find("org/pair/v1/low.safetensors:0.5:low", experts_).files.at(0).strength, 0.5);
    EXPECT_EQ(find((root_ / "local").string(), small_).files.at(0).file.filename(),
              "a.safetensors");
}

TEST_F(Registry, AWrongBaseIsRefusedByName) {
    const auto [kind, message] = error_of([&] { find("fast", small_); });
    EXPECT_EQ(kind, ErrorKind::bad_request);
    EXPECT_THAT(message,
                AllOf(HasSubstr("fast is for Wan2.2-T2V-A14B"), HasSubstr("Wan2.1-T2V-1.3B")));
    EXPECT_THAT(error_of([&] {
                    find("style", {"m", 192, 5, 16, false});
                }).second,
                HasSubstr("a model of dim 192, 5 layers and 16 input channels"));
    EXPECT_EQ(find("style", experts_, true).files.size(), 1u);
}

TEST_F(Registry, WhatIsNotThereIsToldWithWhatIs) {
    EXPECT_THAT(error_of([&] { find("stile", small_); }).second,
                AllOf(HasSubstr("no such file"), HasSubstr("fast, style")));
    EXPECT_THAT(error_of([&] { find("org/other", small_); }).second,
                HasSubstr("hf download org/other"));
    EXPECT_THAT(error_of([&] { find("org/pair/v2/x.safetensors", small_); }).second,
                HasSubstr("no such repository or file"));
    fs::remove(root_ / "local" / "a.safetensors");
    EXPECT_THAT(error_of([&] { find("style", small_); }).second, HasSubstr("has no .safetensors"));
    std::ofstream(root_ / "local" / "b.safetensors") << "x";
    std::ofstream(root_ / "local" / "c.safetensors") << "x";
    EXPECT_THAT(error_of([&] { find("style", small_); }).second,
                HasSubstr("b.safetensors, c.safetensors"));
    for (const char* broken :
         {"[]", "{}", R"({"adapters": {"style": 1}})", R"({"adapters": {"style": {"path": 3}}})",
          R"({"adapters": {"style": {"base": "Wan"}}})", R"({"adapters": {"style": {}}})"}) {
        std::ofstream(registry_) << broken;
        EXPECT_EQ(error_of([&] { find("style", small_); }).first, ErrorKind::io) << broken;
    }
}

TEST(BuiltInRegistry, EveryRowIsForAReleasedModel) {
    const fs::path file = fs::path(ZT_SOURCE_DIR) / "models" / "lora-registry.json";
    const auto rows = read_json(file)["adapters"];
    EXPECT_GE(rows.size(), 8u);
    for (const auto& [name, row] : rows.items()) {
        const std::vector<AdapterChoice> choices = {{name, {}, {}}};
        const auto message_on = [&](const AdapterBase& base) {
            return error_of([&] { find_adapters(choices, file, base, false); }).second;
        };
        EXPECT_THAT(message_on({"m", 192, 5, 16, false}), HasSubstr("is for Wan2."));
        int fits = 0;
        for (const AdapterBase& base :
             {AdapterBase{"m", 5120, 40, 16, false}, AdapterBase{"m", 5120, 40, 36, false},
              AdapterBase{"m", 5120, 40, 16, true}, AdapterBase{"m", 5120, 40, 36, true}}) {
            fits += message_on(base).find("hf download") != std::string::npos;
        }
        EXPECT_EQ(fits, 1) << name;
    }
}

}  // namespace
}  // namespace zoetrope
