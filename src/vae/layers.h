// The layers of the Wan VAE: causal convolutions with carried features, residual blocks, attention,
// resampling.
//
// A layer keeps Params; forward() takes the clip, a Lease on them, and the Carried features of the
// stream that it runs in. account() is its twin on sizes alone: it counts into a Ledger what
// forward() computes and holds. Layers are immutable; a Carried belongs to one stream.
#pragma once

#include "ops/conv.h"
#include "weights/params.h"
#include "weights/weights.h"

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace zoetrope::vae {

// What layers are built from: the weights, and the slots for carried features, handed out in order.
struct Builder {
    Weights& weights;
    std::size_t slots = 0;
};

// What a stream keeps between its chunks. The frames in a slot are the last ones that a layer saw,
// never more than its kernel reaches back; none stand for "nothing before", which counts as zeros.
struct Carried {
    std::vector<at::Tensor> frames;  // by slot: [B, C, n, H, W], undefined: none
    bool first = true;               // the first chunk runs; it has one frame
};

// Counts operations and live memory for one clip of batch 1. A layer is called with its input
// counted as held, and returns with its result held as well.
struct Ledger {
    std::int64_t element = 0;          // bytes per element
    std::vector<std::int64_t> frames;  // by slot: carried frames
    bool first = true;
    double flop = 0;
    std::int64_t held = 0;  // bytes
    std::int64_t peak = 0;  // bytes

    void hold(std::int64_t bytes) {
        held += bytes;
        peak = std::max(peak, held);
    }
    void drop(std::int64_t bytes) { held -= bytes; }
    void hold(const ops::ClipShape& clip) { hold(clip.elements() * element); }
    void drop(const ops::ClipShape& clip) { drop(clip.elements() * element); }
    void pass(std::int64_t bytes) {  // held for a moment
        hold(bytes);
        drop(bytes);
    }
};

// A convolution causal in time. With time padding it carries the frames that its kernel reaches
// back.
class CausalConv {
public:
    struct Shape {
        std::int64_t in = 0;
        std::int64_t out = 0;
        std::array<std::int64_t, 3> kernel = {3, 3, 3};  // time, height, width
        ops::ConvOptions options;
        bool planar = false;  // the weight is that of a 2D convolution, [out, in, height, width]
    };
    CausalConv() = default;
    CausalConv(Builder& builder, const std::string& prefix, const Shape& shape);

    at::Tensor forward(const at::Tensor& x, const Lease& lease, Carried& carried) const;
    ops::ClipShape account(const ops::ClipShape& x, Ledger& ledger) const;

    // Keeps x as what came before, without computing anything.
    void carry(const at::Tensor& x, Carried& carried) const;
    void account_carry(const ops::ClipShape& x, Ledger& ledger) const;

private:
    Shape shape_;
    Param weight_, bias_;
    std::int64_t reach_ = 0;  // frames that are carried
    std::size_t slot_ = 0;
};

// 3x3x3 with zeros around, 1x1x1: the shapes of most of the VAE's convolutions.
CausalConv::Shape conv_3x3x3(std::int64_t in, std::int64_t out);
CausalConv::Shape conv_1x1x1(std::int64_t in, std::int64_t out);

class RmsNorm {
public:
    RmsNorm() = default;
    // `planar`: the weight is [C, 1, 1], not [C, 1, 1, 1].
    RmsNorm(Builder& builder, const std::string& prefix, std::int64_t channels, bool planar);

    at::Tensor forward(const at::Tensor& x, const Lease& lease, bool silu) const;
    ops::ClipShape account(const ops::ClipShape& x, Ledger& ledger) const;

private:
    Param gamma_;
};

// x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1x1 convolution on the way past where the
// channels change.
class ResidualBlock {
public:
    ResidualBlock(Builder& builder, const std::string& prefix, std::int64_t in, std::int64_t out);

    at::Tensor forward(const at::Tensor& x, const Lease& lease, Carried& carried) const;
    ops::ClipShape account(const ops::ClipShape& x, Ledger& ledger) const;

private:
    RmsNorm norm1_, norm2_;
    CausalConv conv1_, conv2_;
    std::optional<CausalConv> shortcut_;
};

// Self-attention over the pixels of each frame, one head, added to its input.
class AttentionBlock {
public:
    AttentionBlock(Builder& builder, const std::string& prefix, std::int64_t channels);

    at::Tensor forward(const at::Tensor& x, const Lease& lease, Carried& carried) const;
    ops::ClipShape account(const ops::ClipShape& x, Ledger& ledger) const;

private:
    RmsNorm norm_;
    CausalConv to_qkv_, proj_;
};

// Residual block, attention, residual block.
class MidBlock {
public:
    MidBlock(Builder& builder, const std::string& prefix, std::int64_t channels);

    at::Tensor forward(at::Tensor x, const Lease& lease, Carried& carried) const;
    ops::ClipShape account(const ops::ClipShape& x, Ledger& ledger) const;

private:
    ResidualBlock first_;
    AttentionBlock attention_;
    ResidualBlock second_;
};

// Twice the height and width and, where temporal, twice the frames. The first chunk's frame is not
// doubled and the time convolution does not see it: its clip begins with the second chunk.
class Upsample {
public:
    struct Shape {
        std::int64_t in = 0;
        std::int64_t out = 0;
        bool temporal = false;
    };
    Upsample(Builder& builder, const std::string& prefix, const Shape& shape);

    at::Tensor forward(at::Tensor x, const Lease& lease, Carried& carried) const;
    ops::ClipShape account(ops::ClipShape x, Ledger& ledger) const;

private:
    std::optional<CausalConv> time_conv_;
    CausalConv conv_;
};

// Half the height and width and, where temporal, half the frames. The first chunk's frame passes
// the time convolution by and is the frame before the second chunk.
class Downsample {
public:
    Downsample(Builder& builder, const std::string& prefix, std::int64_t channels, bool temporal);

    at::Tensor forward(const at::Tensor& x, const Lease& lease, Carried& carried) const;
    ops::ClipShape account(const ops::ClipShape& x, Ledger& ledger) const;

private:
    CausalConv conv_;
    std::optional<CausalConv> time_conv_;
};

}  // namespace zoetrope::vae
