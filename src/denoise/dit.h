// The Wan diffusion transformer (DiT) behind five verbs: prepare, embed, blocks, head, params.
//
// One model for all variants; what a checkpoint does not have is absent from its config, and the
// conditions are optional. The DiT holds Param handles only: the caller leases parameters, calls a
// verb with the lease, and gives them back. It knows nothing of schedulers, step caches, guidance
// or files. Immutable after construction, so it may be shared; a Prepared or State belongs to one
// thread at a time. Key names and configuration are those of Diffusers' WanTransformer3DModel.
#pragma once

#include "denoise/face.h"
#include "ops/norm.h"
#include "weights/params.h"
#include "weights/weights.h"

#include <ATen/core/Tensor.h>

#include <nlohmann/json_fwd.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace zoetrope {

struct DitConfig {
    std::array<std::int64_t, 3> patch_size = {1, 2, 2};  // time, height, width
    std::int64_t num_attention_heads = 40;
    std::int64_t attention_head_dim = 128;
    std::int64_t in_channels = 16;
    std::int64_t out_channels = 16;
    std::int64_t text_dim = 4096;
    std::int64_t freq_dim = 256;
    std::int64_t ffn_dim = 13824;
    std::int64_t num_layers = 40;
    bool cross_attn_norm = true;
    double eps = 1e-6;
    std::int64_t rope_max_seq_len = 1024;
    // Pictures as tokens (Wan2.1 image-to-video); 0: none.
    std::int64_t image_dim = 0;  // channels of a picture's embedding
    std::int64_t pos_embed_seq_len =
        0;  // tokens with positions of their own (first and last frame)
    // The control branch (VACE): its blocks stand beside these blocks of the model. Empty: none.
    std::vector<std::int64_t> vace_layers;
    std::int64_t vace_in_channels = 96;

    // Wan-Animate: pose latents, and face pictures that every so many blocks look at. 0: neither.
    std::int64_t face_every = 0;
    std::int64_t pose_channels = 16;
    FaceConfig face;

    // From transformer/config.json; absent keys have the defaults of Diffusers' class
    // (WanTransformer3DModel, WanVACETransformer3DModel,
    // WanAnimateTransformer3DModel). Errors: io for values that make no model,
    // unsupported for other classes.
    // component: whose config it is, for messages.
    static DitConfig from_json(const nlohmann::json& config,
                               std::string_view component = "transformer");

    std::int64_t dim() const { return num_attention_heads * attention_head_dim; }
    bool has_control() const { return !vace_layers.empty(); }
    bool has_face() const { return face_every > 0; }
};

// Size of the latents that are denoised: frames, height, width in latent pixels.
struct LatentSize {
    std::int64_t frames = 0;
    std::int64_t height = 0;
    std::int64_t width = 0;

    bool operator==(const LatentSize&) const = default;
};

// What a guidance branch is conditioned on. All batches share it. What the model does not take is
// undefined.
struct Conditions {
    at::Tensor text;  // [1, Lt, text_dim] compute dtype: embeddings, padded with zeros
    LatentSize size;
    at::Tensor image;     // [n, Li, image_dim] any float dtype: embeddings of n pictures
    at::Tensor channels;  // [1, C, F, H, W] fp32: joined to the latents' channels
    at::Tensor control;   // [1, vace_in_channels, F, H, W] fp32
    double control_scale = 1;
    at::Tensor pose;   // [1, pose_channels, F - 1, H, W] fp32: added behind the first frame
    at::Tensor faces;  // [1, 3, S, size, size] in [-1, 1], S frames of video or one for all
};

// The time steps of one call: a few distinct values and which of them each latent frame has.
struct FrameTimesteps {
    std::vector<float> values;  // T distinct time steps, 0 to 1000
    std::vector<std::int64_t>
        frame_value;  // [frames] index into values; empty: all frames have values[0]
};

class Dit {
public:
    // What is computed once per segment, guidance branch and expert.
    struct Prepared {
        LatentSize size;
        std::array<std::int64_t, 3> grid = {};  // tokens in time, height, width
        at::Tensor text;                        // [1, Lt, dim] projected
        at::Tensor image;                       // [1, Li, dim] projected; undefined without
        at::Tensor channels;                    // as given
        at::Tensor control;                     // [1, L, dim] fp32: what enters the control branch
        double control_scale = 1;
        at::Tensor pose;          // [1, L - a frame's tokens, dim] fp32
        at::Tensor faces;         // [F, tokens, dim] compute dtype
        ops::RotaryTable rotary;  // [L, head_dim / 2] fp32
        struct KeyValue {
            at::Tensor key;    // [1, Lt, H, D]
            at::Tensor value;  // [1, Lt, H, D]
        };
        struct CrossCache {
            KeyValue text;
            KeyValue image;
        };
        // Per block, then per block of the control branch; filled by the first pass over it.
        std::vector<CrossCache> cross;
        std::vector<KeyValue> face_cross;  // [F, tokens, H, D], per block that looks at faces
    };

    // What flows through the blocks.
    struct State {
        at::Tensor x;        // [B, L, dim] fp32: the residual stream, changed in place by blocks()
        at::Tensor control;  // [B, L, dim] fp32: the same of the control branch
        at::Tensor time;     // [T, dim] fp32: time embedding
        at::Tensor modulation;  // [T, 6, dim] fp32: its projection, shared by all blocks
        ops::FrameIndex frames;
        Prepared* prepared = nullptr;
    };

    Dit(const DitConfig& config, Weights& weights);

    const DitConfig& config() const { return config_; }
    std::int64_t num_blocks() const { return config_.num_layers; }

    // Parameters of one block, or of everything around the blocks (embeddings and head).
    std::span<const Param> params(std::int64_t block) const;
    std::span<const Param> outer_params() const;

    // Lease: outer_params(). Errors: bad_request for a size that patches do not divide, or that is
    // longer than rope_max_seq_len in a dimension.
    Prepared prepare(const Conditions& conditions, const Lease& lease) const;

    // Lease: outer_params(). latents: [B, in_channels, F, H, W] of any float dtype, less the
    // channels that Conditions bring. `prepared` outlives the State.
    State embed(const at::Tensor& latents, const FrameTimesteps& timesteps, Prepared& prepared,
                const Lease& lease) const;

    // Runs blocks [first, last). Lease: params(i) of each of them.
    void blocks(std::int64_t first, std::int64_t last, State& state, const Lease& lease) const;

    // Lease: outer_params(). -> velocity [B, out_channels, F, H, W] fp32
    at::Tensor head(const State& state, const Lease& lease) const;

    // Multiply-adds times two of one pass over all blocks for B = 1, for the bench and the plan;
    // `attention` is the self-attention's part of it.
    struct Flop {
        double total = 0;
        double self_attention = 0;
    };
    Flop flop(const LatentSize& size, std::int64_t text_length) const;

    // Bytes at the peak of one block for B = 1 beside weights: residual stream, activations, and
    // per branch the cross-attention keys and values. `element`: bytes of the compute dtype.
    struct Memory {
        std::int64_t activations = 0;
        std::int64_t per_branch = 0;
    };
    Memory memory(const LatentSize& size, std::int64_t text_length, std::int64_t element) const;

private:
    // Tokens of the pictures that cross-attention sees, for flop() and memory().
    std::int64_t image_tokens() const;

    // Tokens whose hidden layer exists at a time: 73 MB in bf16 for the 1.3B model instead of the
    // 587 MB of a whole video of 32,760 tokens.
    static constexpr std::int64_t kFeedForwardTokens = 4096;

    struct Attention {
        Param q_weight, q_bias, k_weight, k_bias, v_weight, v_bias, out_weight, out_bias;
        Param q_norm, k_norm;
        // Of the pictures' tokens; undeclared where the model takes none.
        Param image_k_weight, image_k_bias, image_v_weight, image_v_bias, image_k_norm;
    };
    struct Block {
        Param modulation;  // [1, 6, dim]
        Attention self;
        Attention cross;
        Param cross_norm_weight, cross_norm_bias;
        Param up_weight, up_bias, down_weight, down_bias;
        Param hint_weight, hint_bias;  // control branch: what is added to the model's stream
    };
    struct ImageEmbedder {
        Param norm_1_weight, norm_1_bias, up_weight, up_bias, down_weight, down_bias;
        Param norm_2_weight, norm_2_bias, positions;
    };

    // out: the last matrix' name; norm_channels: of what queries and keys are normed over
    Attention declare_attention(Weights& weights, const std::string& prefix, const char* out,
                                std::int64_t norm_channels) const;
    Block declare_block(Weights& weights, const std::string& prefix) const;
    void declare_embedders(Weights& weights);
    void prepare_animation(const Conditions& conditions, Prepared& prepared,
                           const Lease& lease) const;
    at::Tensor look_at_faces(std::size_t index, const State& state, const Lease& lease) const;
    at::Tensor patches_of(const at::Tensor& latents) const;
    at::Tensor embed_images(const at::Tensor& image, const Lease& lease,
                            at::ScalarType dtype) const;
    void run_block(const Block& block, at::Tensor& x, Prepared::CrossCache& cached,
                   const State& state, const Lease& lease, const std::string& name) const;
    at::Tensor control_hint(std::size_t index, State& state, const Lease& lease) const;
    at::Tensor self_attention(const Block& block, at::Tensor x, const State& state,
                              const Lease& lease) const;
    at::Tensor cross_attention(const Block& block, at::Tensor x, Prepared::CrossCache& cached,
                               const Prepared& prepared, const Lease& lease) const;
    at::Tensor feed_forward(const Block& block, at::Tensor x, const Lease& lease) const;

    DitConfig config_;
    Param patch_weight_, patch_bias_;
    Param time_1_weight_, time_1_bias_, time_2_weight_, time_2_bias_;
    Param time_projection_weight_, time_projection_bias_;
    Param text_1_weight_, text_1_bias_, text_2_weight_, text_2_bias_;
    Param out_weight_, out_bias_, out_modulation_;
    ImageEmbedder image_;
    Param control_patch_weight_, control_patch_bias_, control_in_weight_, control_in_bias_;
    Param pose_patch_weight_, pose_patch_bias_;
    std::optional<FaceEncoder> face_encoder_;
    // A look at the face tokens of a latent frame of its own, behind blocks_[i * face_every].
    std::vector<Attention> face_adapters_;
    std::vector<Block> blocks_;
    std::vector<Block> control_blocks_;  // beside blocks_[config_.vace_layers[i]]
    std::vector<Param> outer_params_;
    std::vector<std::vector<Param>> block_params_;
};

}  // namespace zoetrope
