#include "vae/vae.h"

#include "base/error.h"
#include "ops/device.h"
#include "ops/stats.h"
#include "vae/layers.h"

#include <ATen/ops/tensor.h>

#include <mutex>

namespace zoetrope {
namespace {

using vae::account_normed;
using vae::Builder;
using vae::Carried;
using vae::CausalConv;
using vae::conv_1x1x1;
using vae::conv_3x3x3;
using vae::ConvParams;
using vae::ConvShape;
using vae::Downsample;
using vae::forward_normed;
using vae::Ledger;
using vae::MidBlock;
using vae::ResidualBlock;
using vae::RmsNorm;
using vae::Upsample;

// Chunks after which every chunk costs the same: a kernel of three frames on one frame per chunk
// that first sees the second chunk has its whole reach in the fourth.
constexpr std::int64_t kSettledChunks = 4;

// One resolution: residual blocks, then half or twice the size but in the last one.
template <typename Resample>
struct Level {
    std::vector<ResidualBlock> blocks;
    std::optional<Resample> resample;
};

template <typename Resample>
at::Tensor run_levels(const std::vector<Level<Resample>>& levels, at::Tensor x, const Lease& lease,
                      Carried& carried) {
    for (const auto& level : levels) {
        for (const auto& block : level.blocks) x = block.forward(x, lease, carried);
        if (level.resample) x = level.resample->forward(x, lease, carried);
    }
    return x;
}

// x goes through the layer and is let go.
template <typename Layer>
void account_step(const Layer& layer, ops::ClipShape& x, Ledger& ledger) {
    const ops::ClipShape out = layer.account(x, ledger);
    ledger.drop(x);
    x = out;
}

template <typename Resample>
void account_levels(const std::vector<Level<Resample>>& levels, ops::ClipShape& x, Ledger& ledger) {
    for (const auto& level : levels) {
        for (const auto& block : level.blocks) account_step(block, x, ledger);
        if (level.resample) account_step(*level.resample, x, ledger);
    }
}

std::vector<Level<Downsample>> encoder_levels(Builder& builder, const VaeConfig& config) {
    std::vector<Level<Downsample>> levels(config.dim_mult.size());
    std::int64_t channels = config.base_dim;
    int index = 0;  // down_blocks is one flat list
    const auto next = [&] { return fmt::format("encoder.down_blocks.{}", index++); };
    for (std::size_t i = 0; i < levels.size(); ++i) {
        const std::int64_t out = config.base_dim * config.dim_mult[i];
        for (std::int64_t j = 0; j < config.num_res_blocks; ++j) {
            levels[i].blocks.emplace_back(builder, next(), channels, out);
            channels = out;
        }
        if (i + 1 < levels.size()) {
            levels[i].resample.emplace(builder, next(), out, config.temporal_downsample[i]);
        }
    }
    return levels;
}

// From the smallest pictures to the largest, so dim_mult and temporal_downsample backwards.
std::vector<Level<Upsample>> decoder_levels(Builder& builder, const VaeConfig& config) {
    std::vector<Level<Upsample>> levels(config.dim_mult.size());
    std::int64_t channels = config.decoder_base_dim * config.dim_mult.back();
    for (std::size_t i = 0; i < levels.size(); ++i) {
        const std::size_t mirrored = levels.size() - 1 - i;
        const std::int64_t out = config.decoder_base_dim * config.dim_mult[mirrored];
        const std::string prefix = fmt::format("decoder.up_blocks.{}", i);
        for (std::int64_t j = 0; j <= config.num_res_blocks; ++j) {
            levels[i].blocks.emplace_back(builder, fmt::format("{}.resnets.{}", prefix, j),
                                          channels, out);
            channels = out;
        }
        if (mirrored == 0) break;
        channels = out / 2;
        levels[i].resample.emplace(
            builder, prefix + ".upsamplers.0",
            Upsample::Shape{
                .in = out, .out = channels, .temporal = config.temporal_downsample[mirrored - 1]});
    }
    return levels;
}

struct Encoder {
    CausalConv conv_in;
    std::vector<Level<Downsample>> levels;
    MidBlock mid;
    RmsNorm norm_out;
    CausalConv conv_out;
    CausalConv quant_conv;

    Encoder(Builder& builder, const VaeConfig& config)
        : conv_in(builder, "encoder.conv_in", conv_3x3x3(config.in_channels, config.base_dim)),
          levels(encoder_levels(builder, config)),
          mid(builder, "encoder.mid_block", config.base_dim * config.dim_mult.back()),
          norm_out(builder, "encoder.norm_out", config.base_dim * config.dim_mult.back(), false),
          conv_out(builder, "encoder.conv_out",
                   conv_3x3x3(config.base_dim * config.dim_mult.back(), 2 * config.z_dim)),
          quant_conv(builder, "quant_conv", conv_1x1x1(2 * config.z_dim, 2 * config.z_dim)) {}

    // frames: [B, C, n, H, W] -> mean and log variance [B, 2 * z_dim, 1, h, w]
    at::Tensor forward(at::Tensor x, const Lease& lease, Carried& carried) const {
        x = conv_in.forward(x, lease, carried);
        x = run_levels(levels, std::move(x), lease, carried);
        x = mid.forward(std::move(x), lease, carried);
        x = forward_normed(norm_out, true, conv_out, x, lease, carried);
        return quant_conv.forward(x, lease, carried);
    }

    void account(const ops::ClipShape& frames, Ledger& ledger) const {
        ops::ClipShape x = frames;
        ledger.hold(x);
        account_step(conv_in, x, ledger);
        account_levels(levels, x, ledger);
        account_step(mid, x, ledger);
        const ops::ClipShape out = account_normed(norm_out, conv_out, x, ledger);
        ledger.drop(x);
        x = out;
        account_step(quant_conv, x, ledger);
        ledger.drop(x);
    }
};

// From channels to colours.
ConvShape last_conv(const VaeConfig& config) {
    ConvShape shape =
        conv_3x3x3(config.decoder_base_dim * config.dim_mult.front(), config.out_channels);
    shape.spread_taps = true;
    return shape;
}

struct Decoder {
    CausalConv post_quant_conv;
    CausalConv conv_in;
    MidBlock mid;
    std::vector<Level<Upsample>> levels;
    RmsNorm norm_out;
    CausalConv conv_out;

    Decoder(Builder& builder, const VaeConfig& config)
        : post_quant_conv(builder, "post_quant_conv", conv_1x1x1(config.z_dim, config.z_dim)),
          conv_in(builder, "decoder.conv_in",
                  conv_3x3x3(config.z_dim, config.decoder_base_dim * config.dim_mult.back())),
          mid(builder, "decoder.mid_block", config.decoder_base_dim * config.dim_mult.back()),
          levels(decoder_levels(builder, config)),
          norm_out(builder, "decoder.norm_out", config.decoder_base_dim * config.dim_mult.front(),
                   false),
          conv_out(builder, "decoder.conv_out", last_conv(config)) {}

    // latents: [B, z_dim, 1, h, w] -> frames [B, C, n, H, W]
    at::Tensor forward(at::Tensor x, const Lease& lease, Carried& carried) const {
        x = post_quant_conv.forward(x, lease, carried);
        x = conv_in.forward(x, lease, carried);
        x = mid.forward(std::move(x), lease, carried);
        x = run_levels(levels, std::move(x), lease, carried);
        return forward_normed(norm_out, true, conv_out, x, lease, carried).clamp_(-1, 1);
    }

    void account(const ops::ClipShape& latents, Ledger& ledger) const {
        ops::ClipShape x = latents;
        ledger.hold(x);
        account_step(post_quant_conv, x, ledger);
        account_step(conv_in, x, ledger);
        account_step(mid, x, ledger);
        account_levels(levels, x, ledger);
        const ops::ClipShape out = account_normed(norm_out, conv_out, x, ledger);
        ledger.drop(x);
        x = out;
        ledger.drop(x);
    }
};

// Convolutions in a kernel's order, made when a stream first asks for them.
struct Packing {
    std::once_flag once;
    std::vector<ops::PackedConv> convs;
};

// An encoder or a decoder with what a stream through it needs.
template <typename Coder>
struct Path {
    Coder coder;
    std::size_t slots;
    std::vector<ConvParams> convs;
    std::vector<Param> params;
    kernels::Isa isa;  // of packed convolutions; ref: none
    std::unique_ptr<Packing> packing = std::make_unique<Packing>();

    static Path build(const VaeConfig& config, Weights& weights, kernels::Isa isa) {
        const std::size_t before = weights.params().size();
        Builder builder{.weights = weights};
        Coder coder(builder, config);
        const std::span<const Param> own = weights.params().subspan(before);
        return {std::move(coder),
                builder.slots,
                std::move(builder.convs),
                {own.begin(), own.end()},
                isa};
    }

    // Null where ATen's convolutions are to be used.
    const std::vector<ops::PackedConv>* packed(const Lease& lease) const {
        const at::Tensor& weight = lease[convs.front().weight];
        if (!weight.is_cpu()) return nullptr;
        if (isa == kernels::Isa::ref || weight.scalar_type() != at::kFloat) {
            ops::count_fallback(fmt::format("VAE convolutions in {}: no kernel on this CPU",
                                            ops::name_of(weight.scalar_type())));
            return nullptr;
        }
        std::call_once(packing->once, [&] {
            for (const ConvParams& conv : convs) packing->convs.push_back(conv.pack(lease, isa));
        });
        return &packing->convs;
    }

    std::int64_t packed_bytes() const {
        std::int64_t bytes = 0;
        for (const ConvParams& conv : convs)
            bytes += ops::conv_cpu_bytes({}, conv.shape.spec(), isa).weight;
        return bytes;
    }

    // Chunks in a row, one frame in the first and `frames` in each that follows.
    Ledger account(ops::ClipShape clip, std::int64_t frames, std::int64_t chunks,
                   const ResidencyOptions& compute) const {
        const auto element = static_cast<std::int64_t>(c10::elementSize(compute.compute_dtype));
        const bool packs = compute.device.is_cpu() && compute.compute_dtype == at::kFloat;
        Ledger ledger{.element = element,
                      .frames = std::vector<std::int64_t>(slots),
                      .isa = packs ? isa : kernels::Isa::ref};
        if (ledger.packed()) ledger.hold(packed_bytes());
        clip.frames = 1;
        double chunk_flop = 0;
        for (std::int64_t i = 0; i < std::min(chunks, kSettledChunks); ++i) {
            const double before = ledger.flop;
            coder.account(clip, ledger);
            chunk_flop = ledger.flop - before;
            clip.frames = frames;
            ledger.first = false;
        }
        ledger.flop +=
            chunk_flop * static_cast<double>(std::max<std::int64_t>(0, chunks - kSettledChunks));
        return ledger;
    }
};

// The place of one stream in its clip.
template <typename Coder>
struct StreamState {
    const Path<Coder>& path;
    const Lease& lease;
    Carried carried;

    StreamState(const Path<Coder>& path_, const Lease& lease_) : path(path_), lease(lease_) {
        carried.packed = path.packed(lease);
        carried.frames.resize(path.slots);
        carried.histories.resize(path.slots);
    }

    at::Tensor push(const at::Tensor& x) {
        at::Tensor out = path.coder.forward(x, lease, carried);
        carried.first = false;
        return out;
    }
};

// [1, z_dim, 1, 1, 1] float32 beside the latents
at::Tensor per_channel(std::span<const float> values, const at::Tensor& latents) {
    return at::tensor(at::ArrayRef<float>(values.data(), values.size()))
        .to(latents.device())
        .view({1, -1, 1, 1, 1});
}

}  // namespace

struct Vae::Layers {
    Path<Encoder> encoder;
    Path<Decoder> decoder;
};

struct Vae::DecodeStream::State : StreamState<Decoder> {
    VaeConfig config;
    State(const Path<Decoder>& path_, const Lease& lease_, const VaeConfig& config_)
        : StreamState(path_, lease_), config(config_) {}
};

struct Vae::EncodeStream::State : StreamState<Encoder> {
    VaeConfig config;
    State(const Path<Encoder>& path_, const Lease& lease_, const VaeConfig& config_)
        : StreamState(path_, lease_), config(config_) {}
};

Vae::Vae(const VaeConfig& config, Weights& weights, const VaeOptions& options) : config_(config) {
    const kernels::Isa isa = ops::conv_cpu_isa(options.bf16_products);
    auto encoder = Path<Encoder>::build(config, weights, isa);
    auto decoder = Path<Decoder>::build(config, weights, isa);
    layers_ = std::make_unique<Layers>(Layers{std::move(encoder), std::move(decoder)});
}

Vae::~Vae() = default;
Vae::Vae(Vae&&) noexcept = default;

std::span<const Param> Vae::encoder_params() const { return layers_->encoder.params; }
std::span<const Param> Vae::decoder_params() const { return layers_->decoder.params; }

at::Tensor Vae::denormalize(const at::Tensor& latents) const {
    return latents.to(at::kFloat)
        .mul(per_channel(config_.latents_std, latents))
        .add_(per_channel(config_.latents_mean, latents))
        .to(latents.scalar_type());
}

at::Tensor Vae::normalize(const at::Tensor& latents) const {
    return latents.to(at::kFloat)
        .sub(per_channel(config_.latents_mean, latents))
        .div_(per_channel(config_.latents_std, latents))
        .to(latents.scalar_type());
}

Vae::DecodeStream Vae::decode_stream(const Lease& lease) const {
    return DecodeStream(std::make_unique<DecodeStream::State>(layers_->decoder, lease, config_));
}

Vae::DecodeStream::DecodeStream(std::unique_ptr<State> state) : state_(std::move(state)) {}
Vae::DecodeStream::DecodeStream(DecodeStream&&) noexcept = default;
Vae::DecodeStream::~DecodeStream() = default;

at::Tensor Vae::DecodeStream::push(const at::Tensor& latents) {
    ZT_CHECK(latents.dim() == 5 && latents.size(1) == state_->config.z_dim && latents.size(2) == 1,
             internal, "the VAE decodes latents [B, {}, 1, h, w], got [{}]", state_->config.z_dim,
             fmt::join(latents.sizes(), ", "));
    return state_->push(latents);
}

Vae::EncodeStream Vae::encode_stream(const Lease& lease) const {
    return EncodeStream(std::make_unique<EncodeStream::State>(layers_->encoder, lease, config_));
}

Vae::EncodeStream::EncodeStream(std::unique_ptr<State> state) : state_(std::move(state)) {}
Vae::EncodeStream::EncodeStream(EncodeStream&&) noexcept = default;
Vae::EncodeStream::~EncodeStream() = default;

at::Tensor Vae::EncodeStream::push(const at::Tensor& frames) {
    const VaeConfig& config = state_->config;
    const std::int64_t wanted = state_->carried.first ? 1 : config.scale_factor_temporal;
    ZT_CHECK(frames.dim() == 5 && frames.size(1) == config.in_channels &&
                 frames.size(2) == wanted && frames.size(3) >= config.scale_factor_spatial &&
                 frames.size(4) >= config.scale_factor_spatial,
             internal,
             "the VAE encodes frames [B, {}, {}, H, W] of at least {} pixels a side, got "
             "[{}]",
             config.in_channels, wanted, config.scale_factor_spatial,
             fmt::join(frames.sizes(), ", "));
    // A copy, since the first convolution carries the last frames on.
    const at::Tensor posterior = state_->push(frames.clone(at::MemoryFormat::ChannelsLast3d));
    return posterior.narrow(1, 0, config.z_dim);
}

std::int64_t Vae::decode_peak_bytes(std::int64_t latent_height, std::int64_t latent_width,
                                    const ResidencyOptions& compute) const {
    const ops::ClipShape latents{config_.z_dim, 1, latent_height, latent_width};
    return layers_->decoder.account(latents, 1, kSettledChunks, compute).peak;
}

double Vae::decode_flop(std::int64_t latent_frames, std::int64_t latent_height,
                        std::int64_t latent_width) const {
    const ops::ClipShape latents{config_.z_dim, 1, latent_height, latent_width};
    return layers_->decoder.account(latents, 1, latent_frames, {}).flop;
}

double Vae::encode_flop(std::int64_t frames, std::int64_t height, std::int64_t width) const {
    const ops::ClipShape clip{config_.in_channels, 1, height, width};
    return layers_->encoder
        .account(clip, config_.scale_factor_temporal, config_.latent_frames(frames), {})
        .flop;
}

}  // namespace zoetrope
