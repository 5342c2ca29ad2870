// Wan-Animate's eyes: face pictures -> motion vectors -> tokens that the blocks look at.
//
// The motion encoder (a convolutional network as in Latent Image Animator, Wang et al. 2022, arXiv
// 2203.09043) sees one picture at a time; the face encoder convolves its vectors causally in time
// down to one set of tokens per latent frame. All of it is float32 on the device: it is computed
// once per segment and guidance branch. Key names are those of Diffusers'
// WanAnimateTransformer3DModel. Immutable; encode() may run on several threads with one lease each.
#pragma once

#include "weights/params.h"
#include "weights/weights.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace zoetrope {

struct FaceConfig {
    // Channels of the motion encoder's convolutions by the pixels of a side.
    std::map<std::int64_t, std::int64_t> channels = {{4, 512},  {8, 512},  {16, 512},
                                                     {32, 512}, {64, 256}, {128, 128},
                                                     {256, 64}, {512, 32}, {1024, 16}};
    std::int64_t size = 512;  // pixels of a side of a face picture: a power of two, 8 at least
    std::int64_t style_dim = 512;
    std::int64_t motion_dim = 20;   // directions that motion is made of
    std::int64_t vector_dim = 512;  // of a motion vector
    std::int64_t hidden_dim = 1024;
    std::int64_t heads = 4;       // tokens per latent frame, and one of padding behind them
    std::int64_t batch_size = 8;  // pictures in the motion encoder's small levels at a time
};

class FaceEncoder {
public:
    // dim: of the tokens
    FaceEncoder(const FaceConfig& config, std::int64_t dim, Weights& weights);

    const FaceConfig& config() const { return config_; }

    // Tokens of one latent frame.
    std::int64_t tokens() const { return config_.heads + 1; }

    // faces: [1, 3, S, size, size] fp32 in [-1, 1]; a single picture stands for `frames` equal
    // ones.
    // -> [1 + (frames - 1) / 4 + 1, tokens, dim] fp32: zeros for the reference picture's latent
    // frame, then one row per latent frame
    at::Tensor encode(const at::Tensor& faces, std::int64_t frames, const Lease& lease) const;

    // Multiply-adds times two of encode() for that many pictures.
    double flop(std::int64_t frames) const;

private:
    struct Conv {
        Param weight, bias;  // bias undeclared: none
    };
    struct ResBlock {
        Conv first, second, skip;
    };
    struct Motion;  // what the motion encoder computes with

    Conv declare_conv(const std::string& name, std::int64_t in, std::int64_t out,
                      std::int64_t kernel, const char* bias, Weights& weights) const;
    Motion prepare_motion(const Lease& lease) const;
    // [n, 3, size, size] -> [n, vector_dim]
    at::Tensor motion_of(const at::Tensor& faces, const Motion& motion) const;
    // [1, S, vector_dim] -> [(S - 1) / 4 + 1, tokens, dim]
    at::Tensor tokens_of(const at::Tensor& motion, const Lease& lease) const;

    FaceConfig config_;
    std::int64_t dim_;
    Conv conv_in_, conv_out_;
    std::vector<ResBlock> blocks_;
    std::vector<Conv> linears_;  // kernel size 1: matrices
    Param synthesis_;
    Conv local_, second_, third_, out_;
    Param padding_;
};

}  // namespace zoetrope
