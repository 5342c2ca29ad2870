// The Wan VAEs (2.1, and that of Wan2.2-TI2V-5B): latents <-> frames, causal in time, chunk by
// chunk with carried features.
//
// One latent frame is decoded (and four frames are encoded) at a time; what the causal convolutions
// need of earlier frames is carried in the stream object, so memory does not grow with the length
// of the video. A Vae is immutable and may be shared; a stream belongs to one thread. Key names and
// configuration are those of Diffusers' AutoencoderKLWan.
#pragma once

#include "weights/params.h"
#include "weights/weights.h"

#include <ATen/core/Tensor.h>

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace zoetrope {

struct VaeConfig {
    std::int64_t base_dim = 96;
    std::int64_t decoder_base_dim = 96;
    std::int64_t z_dim = 16;
    std::vector<std::int64_t> dim_mult = {1, 2, 4, 4};
    std::int64_t num_res_blocks = 2;
    std::vector<bool> temporal_downsample = {false, true, true};
    std::vector<float> latents_mean;  // [z_dim]
    std::vector<float> latents_std;   // [z_dim]
    // Wan 2.2: each level has a shortcut past all of it.
    bool is_residual = false;
    // Pixels of a side of the patches whose pixels are channels inside the VAE.
    std::int64_t patch_size = 1;
    std::int64_t in_channels = 3;   // inside: those of the frames times patch_size^2
    std::int64_t out_channels = 3;  // as in_channels
    // Frames per latent frame (after the first), pixels per latent pixel. They follow from the
    // layers and patch_size: from_json() computes them and does not read the keys of these names.
    std::int64_t scale_factor_temporal = 4;
    std::int64_t scale_factor_spatial = 8;

    // From vae/config.json. Absent keys have the defaults of Diffusers 0.42's class, and what that
    // does not read means nothing here either: clip_output (frames are always clamped), attn_scales
    // of a residual VAE. Errors: io for values that make no VAE, unsupported for other attn_scales,
    // with which Diffusers cannot encode either.
    static VaeConfig from_json(const nlohmann::json& config);

    std::int64_t latent_frames(std::int64_t frames) const {
        return (frames - 1) / scale_factor_temporal + 1;
    }
    std::int64_t frame_channels() const { return in_channels / (patch_size * patch_size); }
};

struct VaeOptions {
    // On the CPU, with float32 weights: convolutions by the CPU's best products for bf16
    // (ops::fastest_bf16_products()), with float32 between them; else by those of float32.
    bool bf16_products = false;
};

class Vae {
public:
    Vae(const VaeConfig& config, Weights& weights, const VaeOptions& options = {});
    ~Vae();
    Vae(Vae&&) noexcept;

    const VaeConfig& config() const { return config_; }
    std::span<const Param> encoder_params() const;
    std::span<const Param> decoder_params() const;

    // The denoiser's latents -> the VAE's: z * std + mean, and back: (z - mean) / std.
    // [B, z_dim, F, h, w] of any float dtype
    at::Tensor denormalize(const at::Tensor& latents) const;
    at::Tensor normalize(const at::Tensor& latents) const;

    // Gives frames in order of time as latents come in order of time.
    class DecodeStream {
    public:
        DecodeStream(DecodeStream&&) noexcept;
        ~DecodeStream();
        // latents: [B, z_dim, 1, h, w], denormalized, in the compute dtype
        // -> [B, 3, n, H, W] in [-1, 1] (clamped), H and W being scale_factor_spatial times h and
        // w; n = 1 for the first call, then scale_factor_temporal
        at::Tensor push(const at::Tensor& latents);

    private:
        friend class Vae;
        struct State;
        explicit DecodeStream(std::unique_ptr<State> state);
        std::unique_ptr<State> state_;
    };
    // The lease covers decoder_params() and outlives the stream. On the CPU the first stream packs
    // the convolutions' weights, which the Vae keeps.
    DecodeStream decode_stream(const Lease& lease) const;

    // Takes frames in order of time, gives latents.
    class EncodeStream {
    public:
        EncodeStream(EncodeStream&&) noexcept;
        ~EncodeStream();
        // frames: [B, 3, n, H, W] in [-1, 1], compute dtype; n = 1 for the first call, then
        // scale_factor_temporal. H and W: at least scale_factor_spatial, and whole multiples of it
        // where the VAE is residual, else of patch_size
        // -> mean of the posterior [B, z_dim, 1, h, w], not yet normalized (the mode, as pipelines
        // use it)
        // On the CPU, with the VAE of Wan 2.1, frames that equal the one before bit by bit (the
        // zeros after a picture) cost less and less: each layer whose window has stopped changing
        // repeats its last result, which is what it would compute.
        at::Tensor push(const at::Tensor& frames);

    private:
        friend class Vae;
        struct State;
        explicit EncodeStream(std::unique_ptr<State> state);
        std::unique_ptr<State> state_;
    };
    EncodeStream encode_stream(const Lease& lease) const;

    // Bytes at the peak of decoding or encoding (batch 1, however many frames) beside the leased
    // weights and what is pushed: packed weights, activations, carried features and the operators'
    // workspace, counted over the layers. height, width: pixels
    std::int64_t decode_peak_bytes(std::int64_t latent_height, std::int64_t latent_width,
                                   const ResidencyOptions& compute) const;
    std::int64_t encode_peak_bytes(std::int64_t height, std::int64_t width,
                                   const ResidencyOptions& compute) const;
    // Multiply-adds times two, in convolutions and attention, to decode `latent_frames` of that
    // size, and to encode. What the zero frames before the first would cost is not computed, and
    // not counted.
    double decode_flop(std::int64_t latent_frames, std::int64_t latent_height,
                       std::int64_t latent_width) const;
    double encode_flop(std::int64_t frames, std::int64_t height, std::int64_t width) const;

private:
    struct Layers;
    VaeConfig config_;
    std::unique_ptr<Layers> layers_;
};

}  // namespace zoetrope
