// Adapters of every layout: what they change, and how a Residency applies them.
#include "weights/adapters.h"

#include "base/error.h"
#include "errors.h"
#include "weights/adapter_names.h"
#include "weights/params.h"
#include "weights/weights.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/full.h>
#include <ATen/ops/kron.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <set>

namespace zoetrope {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::int64_t kDim = 24;
constexpr std::int64_t kHidden = 40;
constexpr std::int64_t kRank = 4;

// Tensors in memory as a file.
class MemorySource final : public TensorSource {
public:
    using Metadata = std::vector<std::pair<std::string, std::string>>;
    explicit MemorySource(std::vector<NamedTensor> tensors, Metadata metadata = {})
        : tensors_(std::move(tensors)), metadata_(std::move(metadata)) {
        for (const auto& [name, tensor] : tensors_)
            infos_.push_back({name, tensor.sizes().vec(), tensor.scalar_type()});
    }
    std::span<const TensorInfo> tensors() const override { return infos_; }
    at::Tensor read(std::size_t index) const override { return tensors_.at(index).tensor; }
    std::string description() const override { return "style.safetensors"; }
    Metadata metadata() const override { return metadata_; }

private:
    std::vector<NamedTensor> tensors_;
    Metadata metadata_;
    std::vector<TensorInfo> infos_;
};

// A block and some of what is around it, with the names and roles of the DiT.
struct Model {
    explicit Model(ResidencyOptions options = {}) : residency(declare(), options) {}

    static Weights declare() {
        Weights weights = Weights::random("transformer", {.seed = 1, .dtype = at::kFloat});
        weights.param("patch_embedding.weight", {kDim, 4, 1, 2, 2}, Role::fp32);
        weights.param("condition_embedder.time_proj.weight", {6 * kDim, kDim}, Role::conv);
        weights.param("proj_out.weight", {16, kDim}, Role::fp32);
        weights.param("proj_out.bias", {16}, Role::fp32);
        weights.param("scale_shift_table", {1, 2, kDim}, Role::fp32);
        for (const std::string block : {"blocks.0.", "blocks.1."}) {
            weights.param(block + "scale_shift_table", {1, 6, kDim}, Role::fp32);
            for (const char* name : {"attn1.to_q", "attn1.to_out.0", "attn2.to_k"}) {
                weights.param(block + name + ".weight", {kDim, kDim}, Role::matrix);
                weights.param(block + name + ".bias", {kDim}, Role::vector);
            }
            weights.param(block + "attn1.norm_q.weight", {kDim}, Role::fp32);
            weights.param(block + "norm2.weight", {kDim}, Role::fp32);
            weights.param(block + "norm2.bias", {kDim}, Role::fp32);
            weights.param(block + "ffn.net.0.proj.weight", {kHidden, kDim}, Role::matrix);
            weights.param(block + "ffn.net.0.proj.bias", {kHidden}, Role::vector);
        }
        return weights;
    }

    const Param& param(const std::string& name) const {
        for (const Param& param : residency.params()) {
            if (param.name == name) return param;
        }
        throw std::runtime_error(name);
    }

    Adapter read(std::vector<NamedTensor> tensors, MemorySource::Metadata metadata = {},
                 const std::string& config = {}) const {
        return read_adapter(MemorySource(std::move(tensors), std::move(metadata)),
                            residency.params(), config);
    }

    void set(std::vector<AdapterUse> uses, AdapterMode mode = AdapterMode::runtime) {
        residency.set_adapters(std::make_shared<const AdapterSet>(
            residency.params(), uses,
            AdapterSetOptions{.mode = mode, .dtype = residency.options().compute_dtype}));
    }

    // What a parameter is now.
    at::Tensor value(const std::string& name) {
        const Lease lease = residency.lease_all();
        return lease[param(name)].clone();
    }
    at::Tensor linear(const std::string& name, const at::Tensor& x) {
        const Lease lease = residency.lease_all();
        return ops::linear({.x = x, .weight = lease.matrix(param(name))});
    }

    Residency residency;
};

double relative_error(const at::Tensor& a, const at::Tensor& b) {
    return (a.to(at::kDouble) - b.to(at::kDouble)).norm().item<double>() /
           b.to(at::kDouble).norm().item<double>();
}

struct Factors {
    at::Tensor down, up;
    at::Tensor product() const { return at::matmul(up, down); }
};

Factors factors(std::int64_t out, std::int64_t in, std::int64_t rank = kRank) {
    return {at::randn({rank, in}), at::randn({out, rank}) * 0.1};
}

// Modules of a block under Diffusers' and the original names.
struct Module {
    std::string diffusers, original;
    std::int64_t out, in;
};
const std::vector<Module> kModules = {
    {"blocks.0.attn1.to_q", "blocks.0.self_attn.q", kDim, kDim},
    {"blocks.1.attn1.to_out.0", "blocks.1.self_attn.o", kDim, kDim},
    {"blocks.0.attn2.to_k", "blocks.0.cross_attn.k", kDim, kDim},
    {"blocks.1.ffn.net.0.proj", "blocks.1.ffn.0", kHidden, kDim},
    {"condition_embedder.time_proj", "time_projection.1", 6 * kDim, kDim},
    {"proj_out", "head.head", 16, kDim}};

std::string underscored(std::string name) {
    std::replace(name.begin(), name.end(), '.', '_');
    return name;
}

TEST(AdapterFile, EveryLayoutGivesTheSameChanges) {
    at::manual_seed(1);
    const Model model;
    std::vector<Factors> all;
    for (const Module& module : kModules) all.push_back(factors(module.out, module.in));
    struct Layout {
        std::string prefix;
        bool original, dots;
        std::string down, up;
    };
    const Layout layouts[] = {
        {"transformer.", false, true, ".lora_A.weight", ".lora_B.weight"},
        {"", false, true, ".lora_A.weight", ".lora_B.weight"},
        {"", true, true, ".lora_A.weight", ".lora_B.weight"},
        {"base_model.model.", false, true, ".lora_A.default.weight", ".lora_B.default.weight"},
        {"base_model.model.transformer.", false, true, ".lora_A.style.weight",
         ".lora_B.style.weight"},
        {"transformer.", false, true, ".lora.down.weight", ".lora.up.weight"},
        {"diffusion_model.", true, true, ".lora_A.weight", ".lora_B.weight"},
        {"diffusion_model.", true, true, ".lora_down.weight", ".lora_up.weight"},
        {"model.diffusion_model.", true, true, ".lora_down.weight", ".lora_up.weight"},
        {"lora_unet_", true, false, ".lora_down.weight", ".lora_up.weight"},
        {"lora_unet_", false, false, ".lora_down.weight", ".lora_up.weight"},
        {"lora_unet__", true, false, ".lora_down.weight", ".lora_up.weight"},
        {"lycoris_", false, false, ".lora_down.weight", ".lora_up.weight"},
    };
    for (const Layout& layout : layouts) {
        std::vector<NamedTensor> tensors;
        for (std::size_t i = 0; i < all.size(); ++i) {
            const std::string& name =
                layout.original ? kModules[i].original : kModules[i].diffusers;
            const std::string module = layout.prefix + (layout.dots ? name : underscored(name));
            tensors.push_back({module + layout.down, all[i].down});
            tensors.push_back({module + layout.up, all[i].up});
        }
        const Adapter adapter = model.read(tensors);
        EXPECT_THAT(adapter.unmatched, ElementsAre()) << layout.prefix;
        EXPECT_EQ(adapter.rank, kRank);
        ASSERT_EQ(adapter.deltas.size(), kModules.size()) << layout.prefix << layout.down;
        for (const AdapterDelta& delta : adapter.deltas) {
            const auto module = std::find_if(kModules.begin(), kModules.end(), [&](const auto& m) {
                return m.diffusers + ".weight" == delta.param.name;
            });
            ASSERT_NE(module, kModules.end()) << delta.param.name;
            const Factors& own = all[static_cast<std::size_t>(module - kModules.begin())];
            EXPECT_TRUE(at::equal(delta.down, own.down));
            EXPECT_TRUE(at::equal(delta.up, own.up));
            EXPECT_EQ(delta.scale, 1);
        }
    }
}

// Every name of a released DiT's own modules, in the two key spaces and with underscores.
TEST(AdapterFile, EveryModuleOfTheTransformerHasItsOriginalName) {
    const std::pair<const char*, const char*> names[] = {
        {"patch_embedding", "patch_embedding"},
        {"condition_embedder.text_embedder.linear_1", "text_embedding.0"},
        {"condition_embedder.text_embedder.linear_2", "text_embedding.2"},
        {"condition_embedder.time_embedder.linear_1", "time_embedding.0"},
        {"condition_embedder.time_embedder.linear_2", "time_embedding.2"},
        {"condition_embedder.time_proj", "time_projection.1"},
        {"condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"},
        {"condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"},
        {"proj_out", "head.head"},
        {"blocks.11.attn1.to_q", "blocks.11.self_attn.q"},
        {"blocks.11.attn1.to_k", "blocks.11.self_attn.k"},
        {"blocks.11.attn1.to_v", "blocks.11.self_attn.v"},
        {"blocks.11.attn1.to_out.0", "blocks.11.self_attn.o"},
        {"blocks.11.attn1.norm_q", "blocks.11.self_attn.norm_q"},
        {"blocks.11.attn1.norm_k", "blocks.11.self_attn.norm_k"},
        {"blocks.11.attn2.to_q", "blocks.11.cross_attn.q"},
        {"blocks.11.attn2.to_k", "blocks.11.cross_attn.k"},
        {"blocks.11.attn2.to_v", "blocks.11.cross_attn.v"},
        {"blocks.11.attn2.to_out.0", "blocks.11.cross_attn.o"},
        {"blocks.11.attn2.norm_q", "blocks.11.cross_attn.norm_q"},
        {"blocks.11.attn2.norm_k", "blocks.11.cross_attn.norm_k"},
        {"blocks.11.attn2.add_k_proj", "blocks.11.cross_attn.k_img"},
        {"blocks.11.attn2.add_v_proj", "blocks.11.cross_attn.v_img"},
        {"blocks.11.attn2.norm_added_k", "blocks.11.cross_attn.norm_k_img"},
        {"blocks.11.norm2", "blocks.11.norm3"},
        {"blocks.11.ffn.net.0.proj", "blocks.11.ffn.0"},
        {"blocks.11.ffn.net.2", "blocks.11.ffn.2"},
        {"vace_blocks.3.attn2.to_v", "vace_blocks.3.cross_attn.v"},
        {"vace_blocks.0.proj_in", "vace_blocks.0.before_proj"},
        {"vace_blocks.3.proj_out", "vace_blocks.3.after_proj"},
    };
    Weights weights = Weights::random("transformer", {});
    for (const auto& [diffusers, original] : names)
        weights.param(std::string(diffusers) + ".weight", {2, 2}, Role::matrix);
    const ModuleIndex index(weights.params());
    std::set<const Param*> found;
    for (const auto& [diffusers, original] : names) {
        const std::string wanted = std::string(diffusers) + ".weight";
        for (const std::string& name :
             {std::string(original), "lora_unet_" + underscored(original),
              "lora_unet_" + underscored(diffusers), "transformer." + std::string(diffusers)}) {
            const Param* param = index.find(name, AdapterPiece::down);
            ASSERT_NE(param, nullptr) << name;
            EXPECT_EQ(param->name, wanted) << name;
            found.insert(param);
        }
    }
    EXPECT_EQ(found.size(), std::size(names));
}

TEST(AdapterFile, AlphaComesFromItsKeyTheMetadataOrPeftsFile) {
    const Model model;
    const auto [down, up] = factors(kDim, kDim);
    const std::string module = "transformer.blocks.0.attn1.to_q";
    const std::vector<NamedTensor> plain = {{module + ".lora_A.weight", down},
                                            {module + ".lora_B.weight", up}};
    const auto scale_of = [](const Adapter& adapter) { return adapter.deltas.at(0).scale; };
    EXPECT_EQ(scale_of(model.read(plain)), 1);
    EXPECT_EQ(scale_of(model.read(plain, {{"lora_alpha", "8"}})), 2);
    EXPECT_EQ(scale_of(model.read(plain, {}, R"({"r": 4, "lora_alpha": 6})")), 1.5);
    EXPECT_EQ(scale_of(model.read(plain, {}, R"({"lora_alpha": 6, "use_rslora": true})")), 3);
    EXPECT_EQ(scale_of(model.read(plain, {}, R"({"lora_alpha": 6, "alpha_pattern": {"to_q": 2}})")),
              0.5);
    const MemorySource::Metadata diffusers = {
        {"lora_adapter_metadata", R"({"transformer.lora_alpha": 16, "transformer.r": 4})"}};
    EXPECT_EQ(scale_of(model.read(plain, diffusers, R"({"lora_alpha": 6})")), 4);
    auto keyed = plain;
    keyed.push_back({module + ".alpha", at::tensor(1.0F)});
    EXPECT_EQ(scale_of(model.read(keyed, diffusers)), 0.25);
}

// Biases, norms, tables, convolutions: added where the parameter is made, in both modes.
TEST(AdapterSet, AddsWholeDifferences) {
    at::manual_seed(2);
    const std::tuple<const char*, const char*, std::vector<std::int64_t>> changes[] = {
        {"diffusion_model.blocks.0.self_attn.q.diff_b", "blocks.0.attn1.to_q.bias", {kDim}},
        {"diffusion_model.blocks.0.norm3.diff", "blocks.0.norm2.weight", {kDim}},
        {"diffusion_model.blocks.0.norm3.diff_b", "blocks.0.norm2.bias", {kDim}},
        {"diffusion_model.blocks.1.self_attn.norm_q.diff", "blocks.1.attn1.norm_q.weight", {kDim}},
        {"diffusion_model.blocks.1.diff_m", "blocks.1.scale_shift_table", {1, 6, kDim}},
        {"diffusion_model.head.diff_m", "scale_shift_table", {1, 2, kDim}},
        {"diffusion_model.head.head.diff", "proj_out.weight", {16, kDim}},
        {"diffusion_model.head.head.diff_b", "proj_out.bias", {16}},
        {"diffusion_model.patch_embedding.diff", "patch_embedding.weight", {kDim, 4, 1, 2, 2}},
        {"diffusion_model.blocks.1.ffn.0.diff", "blocks.1.ffn.net.0.proj.weight", {kHidden, kDim}},
        {"diffusion_model.blocks.0.modulation.diff", "blocks.0.scale_shift_table", {1, 6, kDim}},
    };
    Model base;
    std::vector<NamedTensor> tensors;
    for (const auto& [key, name, shape] : changes) tensors.push_back({key, at::randn(shape)});
    for (const AdapterMode mode : {AdapterMode::runtime, AdapterMode::merged}) {
        Model model;
        const Adapter adapter = model.read(tensors);
        EXPECT_THAT(adapter.unmatched, ElementsAre());
        model.set({{adapter, 0.5}}, mode);
        for (std::size_t i = 0; i < std::size(changes); ++i) {
            const auto& [key, name, shape] = changes[i];
            const at::Tensor wanted = base.value(name) + tensors[i].tensor * 0.5;
            EXPECT_LT((model.value(name) - wanted).abs().max().item<double>(), 1e-6) << name;
        }
        EXPECT_TRUE(
            at::equal(model.value("blocks.1.norm2.weight"), base.value("blocks.1.norm2.weight")));
    }
}

// Low rank beside roles that are no matrices of linear(): a convolution's kernel, time_proj.
TEST(AdapterSet, AddsLowRankToConvolutions) {
    at::manual_seed(3);
    Model base, model;
    const at::Tensor down = at::randn({kRank, 4, 1, 2, 2}), up = at::randn({kDim, kRank, 1, 1, 1});
    const auto [down_t, up_t] = factors(6 * kDim, kDim);
    model.set({{model.read({{"lora_unet_patch_embedding.lora_down.weight", down},
                            {"lora_unet_patch_embedding.lora_up.weight", up},
                            {"lora_unet_time_projection_1.lora_down.weight", down_t},
                            {"lora_unet_time_projection_1.lora_up.weight", up_t}}),
                2}});
    const at::Tensor kernel = at::matmul(up.flatten(1), down.flatten(1)).view({kDim, 4, 1, 2, 2});
    EXPECT_LT(relative_error(model.value("patch_embedding.weight"),
                             base.value("patch_embedding.weight") + 2 * kernel),
              1e-6);
    EXPECT_LT(relative_error(
                  model.value("condition_embedder.time_proj.weight"),
                  base.value("condition_embedder.time_proj.weight") + 2 * at::matmul(up_t, down_t)),
              1e-6);
}

// W + s (alpha / r) B A by hand, beside both modes, in every precision of the base.
TEST(AdapterSet, RuntimeEqualsMerged) {
    at::manual_seed(4);
    const auto [down, up] = factors(kHidden, kDim);
    const std::vector<NamedTensor> tensors = {
        {"diffusion_model.blocks.1.ffn.0.lora_down.weight", down},
        {"diffusion_model.blocks.1.ffn.0.lora_up.weight", up},
        {"diffusion_model.blocks.1.ffn.0.alpha", at::tensor(8.0F)}};
    const std::string name = "blocks.1.ffn.net.0.proj.weight";
    const at::Tensor x = at::randn({300, kDim});
    Model exact;
    const at::Tensor wanted = at::linear(x, exact.value(name) + 0.5 * 2 * at::matmul(up, down));
    struct Case {
        at::ScalarType dtype;
        Quantization quantization;
        double to_exact, apart;
    };
    // Rounding to bf16 gives 1.7e-3 to 3e-3, 8-bit weights (and activations) 6e-3 (1e-2).
    std::vector<Case> cases = {{at::kFloat, Quantization::none, 1e-6, 1e-6},
                               {at::kBFloat16, Quantization::none, 5e-3, 6e-3},
                               {at::kFloat, Quantization::int8_weight_only, 1e-2, 1.4e-2},
                               {at::kBFloat16, Quantization::int8_weight_only, 1.2e-2, 1.6e-2}};
    if (ops::takes_int8(at::kCPU, at::kBFloat16)) {
        cases.push_back({at::kBFloat16, Quantization::int8, 1.8e-2, 2.4e-2});
        cases.push_back({at::kFloat, Quantization::int8, 1.8e-2, 2.4e-2});
    }
    for (const auto& [dtype, quantization, to_exact, apart] : cases) {
        Model model({.compute_dtype = dtype, .quantization = quantization});
        const at::Tensor narrow = x.to(dtype);
        const at::Tensor without = model.linear(name, narrow);
        model.set({{model.read(tensors), 0.5}}, AdapterMode::runtime);
        const at::Tensor runtime = model.linear(name, narrow);
        model.set({{model.read(tensors), 0.5}}, AdapterMode::merged);
        const at::Tensor merged = model.linear(name, narrow);
        const std::string what =
            fmt::format("{} {}", c10::toString(dtype), zoetrope::name_of(quantization));
        EXPECT_GT(relative_error(without, wanted), 0.2) << what;
        EXPECT_LT(relative_error(runtime, wanted), to_exact) << what;
        EXPECT_LT(relative_error(merged, wanted), to_exact) << what;
        EXPECT_LT(relative_error(runtime, merged), apart) << what;
    }
}

TEST(AdapterSet, SeveralAddUpInAnyOrderAndStrengthZeroIsNone) {
    at::manual_seed(5);
    const std::string name = "blocks.0.attn1.to_q";
    const Factors a = factors(kDim, kDim), b = factors(kDim, kDim, 7);
    const at::Tensor bias = at::randn({kDim});
    const at::Tensor x = at::randn({50, kDim});
    Model base, model;
    const Adapter first =
        model.read({{name + ".lora_A.weight", a.down}, {name + ".lora_B.weight", a.up}});
    const Adapter second = model.read({{name + ".lora_A.weight", b.down},
                                       {name + ".lora_B.weight", b.up},
                                       {name + ".diff_b", bias}});
    const at::Tensor wanted =
        at::linear(x, base.value(name + ".weight") + 0.7 * a.product() - 1.5 * b.product());
    for (const AdapterMode mode : {AdapterMode::runtime, AdapterMode::merged}) {
        model.set({{first, 0.7}, {second, -1.5}}, mode);
        EXPECT_LT(relative_error(model.linear(name + ".weight", x), wanted), 1e-6);
        EXPECT_LT(relative_error(model.value(name + ".bias"), -1.5 * bias), 1e-6);
        model.set({{second, -1.5}, {first, 0.7}}, mode);
        EXPECT_LT(relative_error(model.linear(name + ".weight", x), wanted), 1e-6);
        model.set({{first, 0}, {second, 0}}, mode);
        EXPECT_TRUE(at::equal(model.linear(name + ".weight", x), base.linear(name + ".weight", x)));
        EXPECT_TRUE(at::equal(model.value(name + ".bias"), base.value(name + ".bias")));
    }
}

// The base stays where it is; what changes itself is made anew under a lease that goes on.
TEST(AdapterSet, SwitchesUnderALeaseThatStays) {
    at::manual_seed(6);
    Model model({.compute_dtype = at::kBFloat16});
    const std::string name = "blocks.0.attn1.to_q";
    const Lease lease = model.residency.lease_all();
    const Param& weight = model.param(name + ".weight");
    const Param& bias = model.param(name + ".bias");
    const void* place = lease[weight].const_data_ptr();
    const at::Tensor bias_before = lease[bias].clone();
    const auto bytes = model.residency.leased_bytes();
    const auto [down, up] = factors(kDim, kDim);
    const Adapter adapter = model.read({{name + ".lora_A.weight", down},
                                        {name + ".lora_B.weight", up},
                                        {name + ".diff_b", at::ones({kDim})}});
    model.set({{adapter, 1}});
    EXPECT_EQ(lease[weight].const_data_ptr(), place);
    EXPECT_TRUE(lease.matrix(weight).low_rank.defined());
    EXPECT_EQ(lease.matrix(weight).low_rank.down.scalar_type(), at::kBFloat16);
    EXPECT_FALSE(at::equal(lease[bias], bias_before));
    EXPECT_EQ(model.residency.leased_bytes(), bytes);
    // The factors in bf16, and the bias in fp32 while it is changed.
    EXPECT_EQ(model.residency.adapter_bytes(), 2 * kRank * 2 * kDim + 4 * kDim);
    model.residency.set_adapters(nullptr);
    EXPECT_FALSE(lease.matrix(weight).low_rank.defined());
    EXPECT_TRUE(at::equal(lease[bias], bias_before));
    EXPECT_EQ(model.residency.adapter_bytes(), 0);
}

TEST(AdapterSet, DoraSetsTheLengthOfRows) {
    at::manual_seed(7);
    const std::string name = "blocks.0.attn1.to_q";
    const auto [down, up] = factors(kDim, kDim);
    const at::Tensor magnitude = at::randn({kDim}).abs() + 0.5;
    Model base;
    const at::Tensor w = base.value(name + ".weight");
    const at::Tensor sum = w + 2 * at::matmul(up, down);
    const at::Tensor whole = sum * (magnitude / sum.norm(2, 1)).unsqueeze(1);
    for (const char* key :
         {".dora_scale", ".lora_magnitude_vector", ".lora_magnitude_vector.weight"}) {
        for (const AdapterMode mode : {AdapterMode::runtime, AdapterMode::merged}) {
            Model model;
            const at::Tensor given =
                std::string(key) == ".dora_scale" ? magnitude.unsqueeze(1) : magnitude;
            const Adapter adapter = model.read({{name + ".lora_A.weight", down},
                                                {name + ".lora_B.weight", up},
                                                {name + ".alpha", at::tensor(8.0F)},
                                                {name + key, given}});
            model.set({{adapter, 1}}, mode);
            EXPECT_LT(relative_error(model.value(name + ".weight"), whole), 1e-6) << key;
            model.set({{adapter, 0.25}}, mode);
            EXPECT_LT(relative_error(model.value(name + ".weight"), w + 0.25 * (whole - w)), 1e-6);
        }
    }
}

TEST(AdapterSet, LokrIsAKroneckerProduct) {
    at::manual_seed(8);
    const std::string name = "lycoris_blocks_1_ffn_net_0_proj";
    const at::Tensor w1 = at::randn({4, 6}), w2 = at::randn({10, 4}) * 0.1;
    const at::Tensor w1_a = at::randn({4, 2}), w1_b = at::randn({2, 6});
    const at::Tensor w2_a = at::randn({10, 2}) * 0.1, w2_b = at::randn({2, 4});
    const at::Tensor alpha = at::tensor(6.0F);
    Model base;
    const std::string target = "blocks.1.ffn.net.0.proj.weight";
    const at::Tensor w = base.value(target);
    const std::pair<std::vector<NamedTensor>, at::Tensor> cases[] = {
        {{{name + ".lokr_w1", w1}, {name + ".lokr_w2", w2}, {name + ".alpha", alpha}},
         at::kron(w1, w2)},
        {{{name + ".lokr_w1", w1}, {name + ".lokr_w2_a", w2_a}, {name + ".lokr_w2_b", w2_b}},
         at::kron(w1, at::matmul(w2_a, w2_b))},
        {{{name + ".lokr_w1_a", w1_a},
          {name + ".lokr_w1_b", w1_b},
          {name + ".lokr_w2_a", w2_a},
          {name + ".lokr_w2_b", w2_b},
          {name + ".alpha", alpha}},
         3 * at::kron(at::matmul(w1_a, w1_b), at::matmul(w2_a, w2_b))},
    };
    for (const auto& [tensors, product] : cases) {
        Model model;
        model.set({{model.read(tensors), 0.5}});
        EXPECT_LT(relative_error(model.value(target), w + 0.5 * product), 1e-6);
    }
    // Tucker's form of a convolution.
    const at::Tensor left = at::randn({4, 2}), core = at::randn({3, 3, 1, 2, 2});
    const at::Tensor a = at::randn({3, 6}), b = at::randn({3, 2});
    const at::Tensor right = at::einsum("ijtkl,jr,ip->prtkl", {core, b, a});
    const at::Tensor kernel =
        at::einsum("ab,cdtkl->acbdtkl", {left, right}).reshape({kDim, 4, 1, 2, 2});
    Model model;
    model.set({{model.read({{"patch_embedding.lokr_w1", left},
                            {"patch_embedding.lokr_t2", core},
                            {"patch_embedding.lokr_w2_a", a},
                            {"patch_embedding.lokr_w2_b", b}}),
                1}});
    EXPECT_LT(relative_error(model.value("patch_embedding.weight"),
                             base.value("patch_embedding.weight") + kernel),
              1e-6);
}

TEST(AdapterFile, KeysThatMatchNothingAreListed) {
    const Model model;
    const auto [down, up] = factors(kDim, kDim);
    std::vector<NamedTensor> tensors = {{"blocks.0.attn1.to_q.lora_A.weight", down},
                                        {"blocks.0.attn1.to_q.lora_B.weight", up}};
    for (int i = 10; i < 16; ++i) {
        const std::string module = fmt::format("lora_te_layers_{}_wq", i);
        tensors.push_back({module + ".lora_down.weight", down});
        tensors.push_back({module + ".lora_up.weight", up});
    }
    const Adapter adapter = model.read(tensors);
    EXPECT_EQ(adapter.deltas.size(), 1u);
    const auto [kind, message] = error_of([&] { check_matches(adapter, false); });
    EXPECT_EQ(kind, ErrorKind::bad_request);
    EXPECT_THAT(message, AllOf(HasSubstr("style.safetensors: 12 keys match nothing"),
                               HasSubstr("lora_te_layers_10_wq.lora_down.weight"),
                               HasSubstr("and 2 more"), HasSubstr("--lora-allow-unmatched")));
    check_matches(adapter, true);
    const Adapter foreign = model.read({tensors.begin() + 2, tensors.end()});
    EXPECT_THAT(error_of([&] { check_matches(foreign, true); }).second,
                HasSubstr("nothing in it is for this model"));
}

// An adapter for image-to-video on a model without image keys: what is shared is taken.
TEST(AdapterFile, PartsThatTheModelLacksAreLeftOut) {
    const Model model;
    const auto [down, up] = factors(kDim, kDim);
    for (const std::string prefix : {"diffusion_model.blocks.0.", "lora_unet_blocks_0_"}) {
        const bool dots = prefix.ends_with('.');
        std::vector<NamedTensor> tensors;
        for (const char* name : {"self_attn.q", "cross_attn.k_img", "cross_attn.v_img"}) {
            const std::string module = prefix + (dots ? name : underscored(name));
            tensors.push_back({module + ".lora_down.weight", down});
            tensors.push_back({module + ".lora_up.weight", up});
        }
        tensors.push_back({"diffusion_model.patch_embedding.diff", at::zeros({kDim, 9, 1, 2, 2})});
        const Adapter adapter = model.read(tensors);
        EXPECT_EQ(adapter.deltas.size(), 1u);
        EXPECT_EQ(adapter.lacking.size(), 5u);
        EXPECT_THAT(adapter.unmatched, ElementsAre());
        check_matches(adapter, false);
    }
}

TEST(AdapterFile, AnotherSizeIsRefusedWithBothSizes) {
    const Model model;
    const auto [down, up] = factors(5120, 5120);
    const auto [kind, message] = error_of([&] {
        model.read({{"blocks.0.self_attn.q.lora_down.weight", down},
                    {"blocks.0.self_attn.q.lora_up.weight", up}});
    });
    EXPECT_EQ(kind, ErrorKind::bad_request);
    EXPECT_THAT(message, HasSubstr("this adapter is for dim 5120 (Wan 14B), the model has 24"));
}

TEST(AdapterFile, HostileFilesGiveASentence) {
    const Model model;
    const std::string module = "blocks.0.attn1.to_q";
    const auto [down, up] = factors(kDim, kDim);
    const auto message_of = [&](std::vector<NamedTensor> tensors,
                                MemorySource::Metadata metadata = {}) {
        const auto [kind, message] = error_of([&] { model.read(tensors, metadata); });
        EXPECT_NE(kind, ErrorKind::internal) << message;
        return message;
    };
    const NamedTensor a{module + ".lora_A.weight", down}, b{module + ".lora_B.weight", up};
    EXPECT_THAT(message_of({a, {module + ".lora_B.weight", at::zeros({kDim, 3})}}),
                HasSubstr("not of one rank"));
    EXPECT_THAT(message_of({a}), HasSubstr("both are wanted"));
    EXPECT_THAT(message_of({a, b, {module + ".lora_down.weight", down}}),
                HasSubstr("the same piece"));
    EXPECT_THAT(message_of({{module + ".lora_A.weight", at::zeros({1000, kDim})},
                            {module + ".lora_B.weight", at::zeros({kDim, 1000})}}),
                HasSubstr("rank 1000"));
    EXPECT_THAT(message_of({{module + ".lora_A.weight", at::zeros({0, kDim})},
                            {module + ".lora_B.weight", at::zeros({kDim, 0})}}),
                HasSubstr("is empty"));
    EXPECT_THAT(message_of({{module + ".lora_A.weight", at::zeros({kRank})}, b}),
                HasSubstr("[rank, in]"));
    EXPECT_THAT(message_of({{module + ".lora_A.weight", down.to(at::kInt)}, b}),
                HasSubstr("fraction"));
    const float nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_THAT(message_of({a, b, {module + ".alpha", at::tensor(nan)}}), HasSubstr("finite"));
    EXPECT_THAT(message_of({a, b, {module + ".alpha", at::zeros({3})}}), HasSubstr("3 numbers"));
    EXPECT_THAT(message_of({a, b}, {{"lora_alpha", "\"much\""}}), HasSubstr("lora_alpha"));
    EXPECT_THAT(message_of({a, b}, {{"lora_adapter_metadata", "{"}}),
                HasSubstr("style.safetensors"));
    EXPECT_THAT(message_of({a, b}, {{"lora_adapter_metadata", "[1]"}}), HasSubstr("JSON object"));
    EXPECT_THAT(message_of({a, b, {module + ".dora_scale", at::ones({1, kDim})}}),
                HasSubstr("DoRA"));
    EXPECT_THAT(message_of({{module + ".lokr_w1", at::zeros({4, 6})}}), HasSubstr("lokr_w2"));
    EXPECT_THAT(message_of({{module + ".lokr_w1", at::zeros({4})}, {module + ".lokr_w2", down}}),
                HasSubstr("matrices are wanted"));
    EXPECT_THAT(message_of({{module + ".hada_w1_a", down}}), HasSubstr("LoHa"));
    EXPECT_THAT(message_of({{module + ".oft_blocks", down}}), HasSubstr("OFT"));
    EXPECT_THAT(message_of({{"blocks.0.norm3.diff", at::zeros({kDim + 1})}}),
                HasSubstr("blocks.0.norm2.weight"));

    Model other;
    at::Tensor broken = down.clone();
    broken[1][2] = nan;
    for (const AdapterMode mode : {AdapterMode::runtime, AdapterMode::merged}) {
        const Lease lease = other.residency.lease_all();
        const Adapter adapter = other.read({{module + ".lora_A.weight", broken}, b});
        EXPECT_THAT(error_of([&] {
                        other.set({{adapter, 1}}, mode);
                    }).second,
                    HasSubstr("not finite"));
        EXPECT_TRUE(at::isfinite(lease[other.param(module + ".weight")]).all().item<bool>());
        EXPECT_FALSE(lease.matrix(other.param(module + ".weight")).low_rank.defined());
    }
}

}  // namespace
}  // namespace zoetrope
