#include "engine/stage_work.h"

#include "base/error.h"
#include "engine/parts.h"
#include "ops/device.h"
#include "text/umt5.h"
#include "vae/vae.h"
#include "weights/adapters.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>
#include <nlohmann/json.hpp>

namespace zoetrope {
namespace {

// The released models' sizes, from their config.json files.
struct Shape {
    std::string_view name;
    std::int64_t heads;  // of 128 channels each
    std::int64_t ffn_dim;
    std::int64_t layers;
    std::int64_t channels;        // of the latents
    std::int64_t spatial_factor;  // pixels per latent pixel
};

constexpr Shape kShapes[] = {
    {"wan2.1-t2v-1.3b", 12, 8960, 30, 16, 8},
    {"wan2.1-t2v-14b", 40, 13824, 40, 16, 8},
    {"wan2.2-ti2v-5b", 24, 14336, 30, 48, 16},
};
constexpr std::string_view kStages[] = {"text", "dit", "vae-encode", "vae-decode"};
constexpr std::uint64_t kSeed = 1;

const Shape& find_shape(const std::string& name) {
    for (const Shape& shape : kShapes) {
        if (shape.name == name) return shape;
    }
    ZT_CHECK(name != "animate-14b", unsupported,
             "--shape animate-14b is not built yet: accepted are {}",
             fmt::join(shape_names(), ", "));
    fail(ErrorKind::bad_request, "--shape is '{}': accepted are {}", name,
         fmt::join(shape_names(), ", "));
}

// Layers on random weights, all resident.
template <typename Layers>
struct Loaded {
    std::unique_ptr<Residency> residency;
    Layers layers;
    Lease lease;

    template <typename Config, typename... Options>
    Loaded(const char* component, const Config& config, const ResidencyOptions& compute,
           const Options&... layer_options)
        : Loaded(Weights::random(component, {.seed = kSeed, .dtype = compute.compute_dtype}),
                 config, compute, layer_options...) {}

private:
    template <typename Config, typename... Options>
    Loaded(Weights weights, const Config& config, const ResidencyOptions& compute,
           const Options&... layer_options)
        : layers(config, weights, layer_options...) {
        residency = std::make_unique<Residency>(std::move(weights), compute);
        lease = residency->lease_all();
    }
};

at::Tensor random_tensor(std::vector<std::int64_t> shape, at::ScalarType dtype) {
    return at::randn(shape, at::detail::createCPUGenerator(kSeed), at::kFloat).to(dtype);
}

LatentSize latent_size(const StageOptions& options, const Shape& shape) {
    return {(options.num_frames - 1) / 4 + 1, options.height / shape.spatial_factor,
            options.width / shape.spatial_factor};
}

// An addition of that rank to every matrix.
std::shared_ptr<const AdapterSet> random_adapters(const Residency& residency, std::int64_t rank) {
    const at::ScalarType dtype = residency.options().compute_dtype;
    AdapterUse use;
    for (const Param& param : residency.params()) {
        if (param.role != Role::matrix) continue;
        use.adapter.deltas.push_back({.param = param,
                                      .key = param.name,
                                      .down = random_tensor({rank, param.shape[1]}, dtype),
                                      .up = random_tensor({param.shape[0], rank}, dtype),
                                      .scale = 1e-3});
    }
    return std::make_shared<const AdapterSet>(residency.params(), std::span(&use, 1),
                                              AdapterSetOptions{.dtype = dtype});
}

// All blocks once, with the prompt's keys and values computed anew.
StageWork dit_work(const StageOptions& options, const Shape& shape, at::ScalarType dtype) {
    DitConfig config;
    config.num_attention_heads = shape.heads;
    config.ffn_dim = shape.ffn_dim;
    config.num_layers = options.layers == 0 ? shape.layers : options.layers;
    config.in_channels = config.out_channels = shape.channels;
    const LatentSize size = latent_size(options, shape);
    const ResidencyOptions compute{.compute_dtype = dtype,
                                   .quantization = parse_quantization(options.quantization)};
    check_quantization(compute);
    auto model = std::make_shared<Loaded<Dit>>("transformer", config, compute);
    if (options.lora_rank > 0)
        model->residency->set_adapters(random_adapters(*model->residency, options.lora_rank));
    const at::Tensor text = random_tensor({1, kTextLength, config.text_dim}, dtype);
    const at::Tensor latents =
        random_tensor({1, shape.channels, size.frames, size.height, size.width}, at::kFloat);
    StageWork work;
    work.layers = config.num_layers;
    work.flop = model->layers.flop(size, kTextLength).total;
    work.run = [model, text, latents, size] {
        const Dit& dit = model->layers;
        Dit::Prepared prepared = dit.prepare({.text = text, .size = size}, model->lease);
        Dit::State state =
            dit.embed(latents, {.values = {500}, .frame_value = {}}, prepared, model->lease);
        dit.blocks(0, dit.num_blocks(), state, model->lease);
    };
    return work;
}

StageWork text_work(const StageOptions& options, at::ScalarType dtype) {
    Umt5Config config;
    config.vocab_size = 256;  // the table is only looked up in
    if (options.layers != 0) config.num_layers = options.layers;
    auto model = std::make_shared<Loaded<Umt5Encoder>>("text_encoder", config,
                                                       ResidencyOptions{.compute_dtype = dtype});
    std::vector<std::int32_t> ids(static_cast<std::size_t>(options.tokens));
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i % 256);
    StageWork work;
    work.layers = config.num_layers;
    work.flop = model->layers.flop(options.tokens);
    work.run = [model, ids] { model->layers.encode(ids, *model->residency); };
    return work;
}

VaeConfig vae_config(const Shape& shape) {
    const auto channels = static_cast<std::size_t>(shape.channels);
    nlohmann::json config = {{"z_dim", shape.channels},
                             {"latents_mean", std::vector<float>(channels, 0)},
                             {"latents_std", std::vector<float>(channels, 1)}};
    if (shape.spatial_factor == 16) {  // that of Wan2.2-TI2V-5B
        config.update({{"base_dim", 160},
                       {"decoder_base_dim", 256},
                       {"is_residual", true},
                       {"patch_size", 2},
                       {"in_channels", 12},
                       {"out_channels", 12}});
    }
    return VaeConfig::from_json(config);
}

StageWork vae_work(const StageOptions& options, const Shape& shape, at::ScalarType dtype,
                   bool decode) {
    const VaeConfig config = vae_config(shape);
    // As the engine does it on the CPU.
    const VaeOptions vae_options{.bf16_products = dtype != at::kFloat};
    dtype = at::kFloat;
    auto model = std::make_shared<Loaded<Vae>>(
        "vae", config, ResidencyOptions{.compute_dtype = dtype}, vae_options);
    const LatentSize size = latent_size(options, shape);
    StageWork work;
    if (decode) {
        work.flop = model->layers.decode_flop(size.frames, size.height, size.width);
        const at::Tensor latents =
            random_tensor({1, config.z_dim, size.frames, size.height, size.width}, dtype);
        work.run = [model, latents] {
            auto stream = model->layers.decode_stream(model->lease);
            for (std::int64_t f = 0; f < latents.size(2); ++f) stream.push(latents.narrow(2, f, 1));
        };
    } else {
        const std::int64_t frames = 4 * (size.frames - 1) + 1;
        const std::int64_t height = size.height * shape.spatial_factor;
        const std::int64_t width = size.width * shape.spatial_factor;
        work.flop = model->layers.encode_flop(frames, height, width);
        const at::Tensor video = random_tensor({1, 3, frames, height, width}, dtype).tanh_();
        work.run = [model, video] {
            auto stream = model->layers.encode_stream(model->lease);
            stream.push(video.narrow(2, 0, 1));
            for (std::int64_t f = 1; f < video.size(2); f += 4) stream.push(video.narrow(2, f, 4));
        };
    }
    return work;
}

StageWork work_of(const StageOptions& options, const Shape& shape, at::ScalarType dtype) {
    if (options.stage == "dit") return dit_work(options, shape, dtype);
    if (options.stage == "text") return text_work(options, dtype);
    if (options.stage == "vae-decode") return vae_work(options, shape, dtype, true);
    if (options.stage == "vae-encode") return vae_work(options, shape, dtype, false);
    fail(ErrorKind::bad_request, "--stage is '{}': accepted are {}", options.stage,
         fmt::join(kStages, ", "));
}

}  // namespace

std::vector<std::string> shape_names() {
    std::vector<std::string> names;
    for (const Shape& shape : kShapes) names.emplace_back(shape.name);
    return names;
}

StageWork make_stage_work(const StageOptions& options) {
    const c10::InferenceMode inference;
    ops::prepare_process();
    const Shape& shape = find_shape(options.shape);
    const at::ScalarType dtype =
        options.dtype == "auto" ? ops::default_dtype(at::kCPU) : ops::parse_dtype(options.dtype);
    StageWork work = work_of(options, shape, dtype);
    work.dtype = ops::name_of(dtype);
    work.run = [run = std::move(work.run)] {
        const c10::InferenceMode mode;
        run();
    };
    return work;
}

}  // namespace zoetrope
