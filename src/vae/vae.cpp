#include "vae/vae.h"

#include "base/error.h"
#include "ops/device.h"
#include "ops/stats.h"
#include "vae/levels.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <cstring>
#include <mutex>

namespace zoetrope {
namespace {

using vae::account_normed;
using vae::account_step;
using vae::Builder;
using vae::Carried;
using vae::CausalConv;
using vae::conv_1x1x1;
using vae::conv_3x3x3;
using vae::ConvParams;
using vae::ConvShape;
using vae::DownLevel;
using vae::forward_normed;
using vae::Ledger;
using vae::MidBlock;
using vae::RmsNorm;
using vae::UpLevel;

// Chunks after which every chunk costs the same: a kernel of three frames on one frame per chunk
// that first sees the second chunk has its whole reach in the fourth.
constexpr std::int64_t kSettledChunks = 4;

// A copy of frames [B, C, n, H, W] with the pixels of patches as channels, columns before lines
// -> [B, C * patch * patch, n, H / patch, W / patch], channels last
at::Tensor to_patches(const at::Tensor& frames, std::int64_t patch) {
    return frames.permute({0, 2, 3, 4, 1})
        .unflatten(3, {frames.size(4) / patch, patch})
        .unflatten(2, {frames.size(3) / patch, patch})
        .permute({0, 1, 2, 4, 6, 5, 3})  // [B, n, h, w, C, column, line]
        .clone(at::MemoryFormat::Contiguous)
        .flatten(4, 6)
        .permute({0, 4, 1, 2, 3});
}

// And back.
at::Tensor from_patches(const at::Tensor& x, std::int64_t patch) {
    if (patch == 1) return x;
    return x.permute({0, 2, 3, 4, 1})
        .unflatten(4, {x.size(1) / (patch * patch), patch, patch})
        .permute({0, 1, 2, 6, 3, 5, 4})  // [B, n, h, line, w, column, C]
        .reshape({x.size(0), x.size(2), x.size(3) * patch, x.size(4) * patch, -1})
        .permute({0, 4, 1, 2, 3});
}

struct Encoder {
    CausalConv conv_in;
    std::vector<DownLevel> levels;
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

    // Where each level has a shortcut they are not looked for: that model's conditions are encoded
    // without frames that repeat.
    bool finds_repeats() const { return !levels.front().shortcut; }

    // frames: [B, C, n, H, W], of patches -> mean and log variance [B, 2 * z_dim, 1, h, w]
    at::Tensor forward(at::Tensor x, const Lease& lease, Carried& carried) const {
        x = conv_in.forward(x, lease, carried);
        for (const auto& level : levels) x = level.forward(std::move(x), lease, carried);
        x = mid.forward(std::move(x), lease, carried);
        x = forward_normed(norm_out, true, conv_out, x, lease, carried);
        return quant_conv.forward(x, lease, carried);
    }

    void account(const ops::ClipShape& frames, Ledger& ledger) const {
        ops::ClipShape x = frames;
        ledger.hold(x);
        account_step(conv_in, x, ledger);
        for (const auto& level : levels) level.account(x, ledger);
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
    std::vector<UpLevel> levels;
    RmsNorm norm_out;
    CausalConv conv_out;
    std::int64_t patch_size;

    Decoder(Builder& builder, const VaeConfig& config)
        : post_quant_conv(builder, "post_quant_conv", conv_1x1x1(config.z_dim, config.z_dim)),
          conv_in(builder, "decoder.conv_in",
                  conv_3x3x3(config.z_dim, config.decoder_base_dim * config.dim_mult.back())),
          mid(builder, "decoder.mid_block", config.decoder_base_dim * config.dim_mult.back()),
          levels(decoder_levels(builder, config)),
          norm_out(builder, "decoder.norm_out", config.decoder_base_dim * config.dim_mult.front(),
                   false),
          conv_out(builder, "decoder.conv_out", last_conv(config)),
          patch_size(config.patch_size) {}

    bool finds_repeats() const { return false; }

    // latents: [B, z_dim, 1, h, w] -> frames [B, C, n, H, W]
    at::Tensor forward(at::Tensor x, const Lease& lease, Carried& carried) const {
        x = post_quant_conv.forward(x, lease, carried);
        x = conv_in.forward(x, lease, carried);
        x = mid.forward(std::move(x), lease, carried);
        for (const auto& level : levels) x = level.forward(std::move(x), lease, carried);
        x = forward_normed(norm_out, true, conv_out, x, lease, carried).clamp_(-1, 1);
        return from_patches(x, patch_size);
    }

    void account(const ops::ClipShape& latents, Ledger& ledger) const {
        ops::ClipShape x = latents;
        ledger.hold(x);
        account_step(post_quant_conv, x, ledger);
        account_step(conv_in, x, ledger);
        account_step(mid, x, ledger);
        for (const auto& level : levels) level.account(x, ledger);
        const ops::ClipShape out = account_normed(norm_out, conv_out, x, ledger);
        ledger.drop(x);
        x = out;
        if (patch_size > 1) ledger.pass(x.elements() * ledger.element);
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
        ledger.repeats = ledger.packed() && coder.finds_repeats();
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

    at::Tensor push(at::Tensor x) {
        at::Tensor out = path.coder.forward(std::move(x), lease, carried);
        carried.first = false;
        return out;
    }
};

// a, b: [B, C, 1, H, W] on the CPU, channels last
bool same_bits(const at::Tensor& a, const at::Tensor& b) {
    const auto bytes = static_cast<std::size_t>(a[0].numel()) * a.element_size();
    for (std::int64_t i = 0; i < a.size(0); ++i) {
        if (std::memcmp(a[i].const_data_ptr(), b[i].const_data_ptr(), bytes) != 0) return false;
    }
    return true;
}

// [1, z_dim, 1, 1, 1] float32 beside the latents
at::Tensor per_channel(std::span<const float> values, const at::Tensor& latents) {
    return at::tensor(at::ArrayRef<float>(values.data(), values.size()))
        .to(latents.device())
        .view({1, -1, 1, 1, 1});
}

// One frame of that size inside the VAE.
ops::ClipShape patches(const VaeConfig& config, std::int64_t height, std::int64_t width) {
    return {config.in_channels, 1, height / config.patch_size, width / config.patch_size};
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
    at::Tensor last_frame;  // [B, C, 1, H, W], of patches; undefined: repeats are not looked for
    at::Tensor posterior;   // of the last chunk
    State(const Path<Encoder>& path_, const Lease& lease_, const VaeConfig& config_)
        : StreamState(path_, lease_), config(config_) {}

    // x: [B, C, n, H, W], of patches, channels last
    at::Tensor encode(at::Tensor x) {
        if (carried.packed != nullptr && path.coder.finds_repeats()) x = without_repeats(x);
        const at::Tensor result = push(std::move(x));
        if (result.size(2) != 0) posterior = result;
        return posterior.narrow(1, 0, config.z_dim).clone();
    }

private:
    at::Tensor without_repeats(const at::Tensor& x) {
        ops::Repeats& repeats = carried.repeats;
        repeats.frames.clear();
        std::vector<at::Tensor> kept;
        for (std::int64_t t = 0; t < x.size(2); ++t) {
            const at::Tensor frame = x.narrow(2, t, 1);
            repeats.frames.push_back(last_frame.defined() && same_bits(frame, last_frame));
            if (!repeats.frames.back()) kept.push_back(frame);
            last_frame = frame;
        }
        repeats.go_on = repeats.frames.back();
        last_frame = last_frame.clone(at::MemoryFormat::ChannelsLast3d);
        if (kept.empty()) return x.narrow(2, 0, 0);
        return std::ssize(kept) == x.size(2) ? x : at::cat(kept, 2);
    }
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
    const std::int64_t least = config.scale_factor_spatial;
    const std::int64_t multiple = config.is_residual ? least : config.patch_size;
    ZT_CHECK(frames.dim() == 5 && frames.size(1) == config.frame_channels() &&
                 frames.size(2) == wanted && frames.size(3) >= least && frames.size(4) >= least &&
                 frames.size(3) % multiple == 0 && frames.size(4) % multiple == 0,
             internal,
             "the VAE encodes frames [B, {}, {}, H, W] of at least {} pixels a side, in multiples "
             "of {}, got [{}]",
             config.frame_channels(), wanted, least, multiple, fmt::join(frames.sizes(), ", "));
    // A copy, since the first convolution carries the last frames on.
    return state_->encode(to_patches(frames, config.patch_size));
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

std::int64_t Vae::encode_peak_bytes(std::int64_t height, std::int64_t width,
                                    const ResidencyOptions& compute) const {
    return layers_->encoder
        .account(patches(config_, height, width), config_.scale_factor_temporal, kSettledChunks,
                 compute)
        .peak;
}

double Vae::encode_flop(std::int64_t frames, std::int64_t height, std::int64_t width) const {
    return layers_->encoder
        .account(patches(config_, height, width), config_.scale_factor_temporal,
                 config_.latent_frames(frames), {})
        .flop;
}

}  // namespace zoetrope
