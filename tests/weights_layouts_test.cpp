// Every name of every layout, there and back, beside the names and shapes of Diffusers' and
// Transformers' classes (tools/oracle/layouts_golden.py), and the configs that shapes give.
#include "weights/layouts.h"

#include "base/json.h"
#include "errors.h"
#include "golden.h"
#include "scratch.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

// Names and shapes; tensors count up from 0.
class NamesOnly final : public TensorSource {
public:
    explicit NamesOnly(const json& shapes, const std::string& prefix = "") {
        for (const auto& [name, shape] : shapes.items())
            add(prefix + name, shape.get<std::vector<std::int64_t>>());
    }
    void add(std::string name, std::vector<std::int64_t> shape) {
        tensors_.push_back({std::move(name), std::move(shape), at::kFloat});
    }
    std::span<const TensorInfo> tensors() const override { return tensors_; }
    at::Tensor read(std::size_t index) const override {
        const TensorInfo& info = tensors_.at(index);
        return at::arange(info.elements(), at::kFloat).view(info.shape);
    }
    std::string description() const override { return "names.safetensors"; }

private:
    std::vector<TensorInfo> tensors_;
};

json golden(const std::string& name) {
    return read_json(golden_folder() / "layouts" / (name + ".json"));
}

ComponentKind kind_of(const json& given) {
    const std::string kind = given["kind"];
    if (kind == "vae") return ComponentKind::vae;
    if (kind == "umt5") return ComponentKind::umt5;
    return kind == "clip" ? ComponentKind::clip : ComponentKind::dit;
}

std::map<std::string, std::vector<std::int64_t>> shapes_of(const TensorSource& source) {
    std::map<std::string, std::vector<std::int64_t>> shapes;
    for (const TensorInfo& info : source.tensors()) shapes[info.name] = info.shape;
    return shapes;
}

class Layouts : public testing::TestWithParam<const char*> {};

TEST_P(Layouts, EveryNameLeadsToOneOfTheClassAndNoneIsLeftOver) {
    const json given = golden(GetParam());
    const auto wanted = given["canonical"].get<std::map<std::string, std::vector<std::int64_t>>>();
    for (const auto& [layout, names] : given["layouts"].items()) {
        for (const char* prefix : {"", "model.diffusion_model.", "a."}) {
            const auto canonical =
                canonical_source(kind_of(given), std::make_shared<NamesOnly>(names, prefix));
            EXPECT_EQ(shapes_of(*canonical), wanted) << layout << " behind '" << prefix << "'";
            EXPECT_EQ(canonical->tensors().size(), wanted.size());
        }
    }
    // The class's own names stay, without a copy of the table.
    const auto own = std::make_shared<NamesOnly>(given["canonical"]);
    EXPECT_EQ(shapes_of(*canonical_source(kind_of(given), own)), wanted);
}

TEST_P(Layouts, EveryNameComesBack) {
    const json given = golden(GetParam());
    for (const auto& [name, names] : given["layouts"].items()) {
        const NamesOnly source(names, "x.");
        const auto layout = detect_layout(kind_of(given), source);
        ASSERT_TRUE(layout.has_value());
        EXPECT_EQ(name_of(layout->layout), name);
        std::set<std::string> back, needed;
        for (const auto& [canonical, shape] : given["canonical"].items())
            back.insert(original_name(*layout, canonical));
        for (const TensorInfo& info : source.tensors()) {
            const bool inside = info.name.starts_with(layout->prefix);
            if (inside &&
                !canonical_names(*layout, info.name.substr(layout->prefix.size())).empty())
                needed.insert(info.name);
        }
        EXPECT_EQ(back, needed) << name;
    }
}

// Through the canonical names and back: every tensor that is needed, as it was stored.
TEST_P(Layouts, SourcesComeBackWithTheirShapesAndNumbers) {
    const json given = golden(GetParam());
    for (const auto& [layout_name, names] : given["layouts"].items()) {
        const auto source = std::make_shared<NamesOnly>(names, "x.");
        const auto layout = detect_layout(kind_of(given), *source);
        ASSERT_TRUE(layout.has_value());
        const auto back = original_source(*layout, canonical_source(kind_of(given), source));
        std::map<std::string, std::size_t> stored;
        for (std::size_t i = 0; i < source->tensors().size(); ++i)
            stored[source->tensors()[i].name] = i;
        std::set<std::string> found;
        for (std::size_t i = 0; i < back->tensors().size(); ++i) {
            const TensorInfo& info = back->tensors()[i];
            ASSERT_TRUE(stored.contains(info.name)) << info.name;
            EXPECT_EQ(info.shape, source->tensors()[stored[info.name]].shape) << info.name;
            found.insert(info.name);
            const at::Tensor tensor = back->read(i);
            EXPECT_EQ(tensor.sizes(), at::IntArrayRef(info.shape)) << info.name;
            if (info.name.ends_with(".kernel")) {
                EXPECT_EQ(tensor.sum().item<float>(), 1) << info.name;
            } else {
                EXPECT_TRUE(at::equal(tensor, source->read(stored[info.name]))) << info.name;
            }
        }
        for (const auto& [name, position] : stored) {
            if (!name.starts_with(layout->prefix)) continue;
            const bool needed =
                !canonical_names(*layout, name.substr(layout->prefix.size())).empty() ||
                name.ends_with(".kernel");
            EXPECT_EQ(found.contains(name), needed) << layout_name << ": " << name;
        }
    }
}

TEST(OriginalSource, WantsEveryPartOfAFusedTensor) {
    const auto source = std::make_shared<NamesOnly>(json{{"face_adapter.0.to_k.weight", {2, 2}}});
    const ComponentLayout layout{
        .kind = ComponentKind::dit, .layout = Layout::original, .prefix = {}, .num_res_blocks = 0};
    const auto [kind, message] = error_of([&] { original_source(layout, source); });
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_THAT(message, HasSubstr("face_adapter.fuser_blocks.0.linear1_kv.weight"));
}

TEST_P(Layouts, ConfigsFollowFromShapes) {
    const json given = golden(GetParam());
    for (const auto& [layout, names] : given["layouts"].items()) {
        const auto source = canonical_source(kind_of(given), std::make_shared<NamesOnly>(names));
        const json config = config_of(kind_of(given), *source);
        for (const auto& [key, value] : config.items()) {
            if (key == "architectures" || !given["config"].contains(key)) continue;
            EXPECT_EQ(value, given["config"][key]) << layout << ": " << key;
        }
        EXPECT_EQ(config_of(kind_of(given), *source, given["config"]), given["config"]);
    }
}

INSTANTIATE_TEST_SUITE_P(Components, Layouts,
                         testing::Values("dit_t2v", "dit_flf2v", "dit_vace", "dit_animate",
                                         "vae_2_1", "vae_other_depth", "vae_2_2", "umt5", "clip"),
                         [](const auto& instance) { return std::string(instance.param); });

json original_of(const std::string& name) { return golden(name)["layouts"]["original"]; }

TEST(LayoutConfigs, TakeWhatShapesDoNotTellFromTheOriginalConfig) {
    const auto source =
        canonical_source(ComponentKind::dit, std::make_shared<NamesOnly>(original_of("dit_vace")));
    const json config = config_of(ComponentKind::dit, *source,
                                  {{"_class_name", "VaceWanModel"},
                                   {"dim", 256},
                                   {"num_heads", 8},
                                   {"eps", 1e-5},
                                   {"vace_layers", {0, 3}}});
    EXPECT_EQ(config["num_attention_heads"], 8);
    EXPECT_EQ(config["attention_head_dim"], 32);
    EXPECT_EQ(config["eps"], 1e-5);
    EXPECT_EQ(config["vace_layers"], json({0, 3}));
    // Of another model in the same folder nothing is taken.
    EXPECT_EQ(config_of(ComponentKind::dit, *source, {{"dim", 5120}, {"num_heads", 40}}),
              config_of(ComponentKind::dit, *source));
    const json other = {{"num_attention_heads", 40}, {"num_layers", 40}};
    EXPECT_EQ(config_of(ComponentKind::dit, *source, other)["num_layers"], 4);
}

TEST(LayoutConfigs, StatisticsOfTheReleasedVaes) {
    const auto config = [](const char* name) {
        return config_of(
            ComponentKind::vae,
            *canonical_source(ComponentKind::vae, std::make_shared<NamesOnly>(original_of(name))));
    };
    const auto sum = [](const json& list) {
        double total = 0;
        for (const auto& value : list) total += value.get<double>();
        return total;
    };
    EXPECT_EQ(config("vae_2_2")["latents_mean"].size(), 48u);
    EXPECT_NEAR(sum(config("vae_2_2")["latents_mean"]), -0.5589, 1e-9);
    EXPECT_NEAR(sum(config("vae_2_2")["latents_std"]), 32.5360, 1e-9);
    EXPECT_EQ(config("vae_2_2")["decoder_base_dim"], 32);
    EXPECT_EQ(config("vae_2_1")["latents_mean"], golden("vae_2_1")["config"]["latents_mean"]);
}

TEST(LayoutConfigs, SayWhatTheyMiss) {
    const auto message_of = [](ComponentKind kind, const json& names) {
        return error_of([&] {
                   config_of(kind, *canonical_source(kind, std::make_shared<NamesOnly>(names)));
               })
            .second;
    };
    json names = original_of("dit_t2v");
    names["patch_embedding.weight"] = {192, 16, 1, 2, 2};
    EXPECT_THAT(message_of(ComponentKind::dit, names), HasSubstr("num_heads"));
    names["patch_embedding.weight"] = {256, 64};
    EXPECT_THAT(message_of(ComponentKind::dit, names), HasSubstr("wanted 5 dimensions"));
    names.erase("patch_embedding.weight");
    EXPECT_THAT(message_of(ComponentKind::dit, names),
                HasSubstr("it has no tensor patch_embedding.weight"));
    names = original_of("vae_2_1");
    names["conv2.weight"] = {4, 4, 1, 1, 1};
    EXPECT_THAT(message_of(ComponentKind::vae, names), HasSubstr("4 latent channels"));
}

TEST(LayoutDetection, FindsAllComponentsOfACheckpoint) {
    NamesOnly all(original_of("dit_t2v"), "model.diffusion_model.");
    const auto add = [&all](const std::string& prefix, const json& shapes) {
        for (const auto& [name, shape] : shapes.items()) all.add(prefix + name, shape);
    };
    const std::string text = "text_encoders.umt5xxl.transformer.";
    add("vae.", original_of("vae_2_1"));
    add(text, golden("umt5")["canonical"]);
    all.add("text_encoders.umt5xxl.spiece_model", {3});
    const auto found = detect_layouts(all);
    ASSERT_EQ(found.size(), 3u);
    EXPECT_EQ(found[0].prefix, "model.diffusion_model.");
    EXPECT_EQ(found[1].prefix, "vae.");
    EXPECT_EQ(found[2].prefix, text);
    const auto vae = canonical_source(ComponentKind::vae, std::make_shared<NamesOnly>(all));
    EXPECT_EQ(vae->tensors().size(), golden("vae_2_1")["canonical"].size());
    EXPECT_THAT(error_of([&] {
                    canonical_source(ComponentKind::clip, std::make_shared<NamesOnly>(all));
                }).second,
                HasSubstr("has no CLIP image encoder of Wan: it holds a transformer (original"));
}

TEST(LayoutDetection, TellsT5AndOtherModelsApart) {
    json t5 = golden("umt5")["canonical"];
    t5.erase("encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight");
    EXPECT_FALSE(detect_layout(ComponentKind::umt5, NamesOnly(t5)).has_value());
    EXPECT_TRUE(detect_layouts(NamesOnly(json{{"lora.down.weight", {1, 2}}})).empty());
    EXPECT_TRUE(detect_layouts(NamesOnly(json::object())).empty());
}

TEST(CanonicalSource, KeepsUnknownNamesAndRefusesDoubles) {
    json names = original_of("dit_t2v");
    names["audio_encoder.weight"] = {2};
    names["blocks.0.self_attn.q.scale"] = json::array();
    const auto source = canonical_source(ComponentKind::dit, std::make_shared<NamesOnly>(names));
    const auto shapes = shapes_of(*source);
    EXPECT_TRUE(shapes.contains("audio_encoder.weight"));
    EXPECT_TRUE(shapes.contains("blocks.0.self_attn.q.scale"));
    names["condition_embedder.time_proj.bias"] = {1536};
    names["proj_out.bias"] = {64};
    const auto [kind, message] =
        error_of([&] { canonical_source(ComponentKind::dit, std::make_shared<NamesOnly>(names)); });
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_THAT(message, HasSubstr("both"));
    names = original_of("clip");
    names["visual.transformer.0.attn.to_qkv.weight"] = {481, 160};
    EXPECT_THAT(error_of([&] {
                    canonical_source(ComponentKind::clip, std::make_shared<NamesOnly>(names));
                }).second,
                HasSubstr("3 equal parts"));
}

TEST(CanonicalSource, CutsFusedRowsAndDropsOnes) {
    const auto read = [](const TensorSource& source, const std::string& name) {
        for (std::size_t i = 0; i < source.tensors().size(); ++i) {
            if (source.tensors()[i].name == name) return source.read(i);
        }
        return at::Tensor();
    };
    const auto clip =
        canonical_source(ComponentKind::clip, std::make_shared<NamesOnly>(original_of("clip")));
    const std::string attention = "vision_model.encoder.layers.1.self_attn.";
    for (const auto& [name, first] : {std::pair{"q_proj", 0}, {"k_proj", 160}, {"v_proj", 320}}) {
        const at::Tensor weight = read(*clip, attention + name + ".weight");
        EXPECT_TRUE(weight.is_contiguous());
        EXPECT_EQ(weight[0][0].item<float>(), first * 160.F) << name;
        EXPECT_EQ(weight[159][159].item<float>(), (first + 160) * 160.F - 1) << name;
        EXPECT_EQ(read(*clip, attention + name + ".bias")[0].item<float>(), first);
    }
    EXPECT_EQ(read(*clip, "vision_model.embeddings.class_embedding").sizes(),
              at::IntArrayRef({160}));
    const auto animate = canonical_source(ComponentKind::dit,
                                          std::make_shared<NamesOnly>(original_of("dit_animate")));
    EXPECT_EQ(read(*animate, "face_adapter.0.to_v.bias")[0].item<float>(), 256);
    EXPECT_EQ(read(*animate, "motion_encoder.res_blocks.3.conv1.act_fn.bias").dim(), 1);
}

class LayoutFiles : public testing::Test {
protected:
    void write(const std::string& file, const json& shapes) const {
        std::vector<NamedTensor> tensors;
        for (const auto& [name, shape] : shapes.items())
            tensors.push_back({name, at::empty(shape.get<std::vector<std::int64_t>>())});
        write_safetensors(folder_ / file, tensors);
    }
    std::size_t count(ComponentKind kind) const {
        return open_canonical(kind, folder_)->tensors().size();
    }

    const Scratch scratch_;
    const fs::path folder_ = scratch_.path();
};

TEST_F(LayoutFiles, OriginalFoldersHoldComponentsSideBySide) {
    const json dit = original_of("dit_t2v");
    json halves[2] = {json::object(), json::object()};
    int next = 0;
    for (const auto& [name, shape] : dit.items()) halves[next++ % 2][name] = shape;
    write("diffusion_pytorch_model-00001-of-00002.safetensors", halves[0]);
    write("diffusion_pytorch_model-00002-of-00002.safetensors", halves[1]);
    write("Wan2.1_VAE.safetensors", original_of("vae_2_1"));
    write("models_t5_umt5-xxl-enc-bf16.safetensors", original_of("umt5"));
    EXPECT_EQ(count(ComponentKind::dit), dit.size());
    EXPECT_EQ(count(ComponentKind::vae), golden("vae_2_1")["canonical"].size());
    EXPECT_EQ(count(ComponentKind::umt5), golden("umt5")["canonical"].size());
    EXPECT_EQ(error_of([&] { count(ComponentKind::clip); }).first, ErrorKind::bad_request);
}

TEST_F(LayoutFiles, OneFileOfAnyNameIsTaken) {
    write("anything.safetensors", original_of("vae_2_2"));
    EXPECT_EQ(count(ComponentKind::vae), golden("vae_2_2")["canonical"].size());
    EXPECT_THAT(error_of([&] { count(ComponentKind::dit); }).second, HasSubstr("it holds a VAE"));
    write("another.safetensors", original_of("vae_2_2"));
    EXPECT_THAT(error_of([&] { count(ComponentKind::dit); }).second, HasSubstr("several files"));
    EXPECT_EQ(error_of([&] { open_canonical(ComponentKind::dit, folder_ / "absent"); }).first,
              ErrorKind::not_found);
}

}  // namespace
}  // namespace zoetrope
