// The layers of the Wan VAEs: causal convolutions with carried features, residual blocks,
// attention, resampling, shortcuts past levels.
//
// Convolutions run on our own kernels where the stream has packed weights, else on ATen.
// A layer keeps Params; forward() takes the clip, a Lease on them, and the Carried features of the
// stream that it runs in. account() is its twin on sizes alone: it counts into a Ledger what
// forward() computes and holds. Layers are immutable; a Carried belongs to one stream.
#pragma once

#include "ops/conv_cpu.h"
#include "weights/params.h"
#include "weights/weights.h"

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace zoetrope::vae {

struct ConvShape {
    std::int64_t in = 0;
    std::int64_t out = 0;
    std::array<std::int64_t, 3> kernel = {3, 3, 3};  // time, height, width
    ops::ConvOptions options;
    bool planar = false;  // the weight is that of a 2D convolution, [out, in, height, width]
    std::int64_t frames_per_step = 1;  // 2: the halves of the result's channels are two frames
    bool spread_taps = false;          // see ops::ConvSpec

    std::array<std::int64_t, 5> weight() const {
        return {out, in, kernel[0], kernel[1], kernel[2]};
    }
    ops::ConvSpec spec() const { return {weight(), options, frames_per_step, spread_taps}; }
};

// A convolution's weight, to be packed.
struct ConvParams {
    ConvShape shape;
    Param weight, bias;

    at::Tensor weight_of(const Lease& lease) const;  // [out, in, time, height, width]
    ops::PackedConv pack(const Lease& lease, kernels::Isa isa) const;
};

// What layers are built from: the weights, and the slots for carried features and the places among
// the convolutions, handed out in order.
struct Builder {
    Weights& weights;
    std::size_t slots = 0;
    std::vector<ConvParams> convs;
};

// What a stream keeps between its chunks. The frames in a slot are the last ones that a layer saw,
// never more than its kernel reaches back; none stand for "nothing before", which counts as zeros.
struct Carried {
    std::vector<at::Tensor> frames;  // by slot: [B, C, n, H, W], undefined: none
    bool first = true;               // the first chunk runs; it has one frame
    // Convolutions in a kernel's order, by place; null: they are ATen's. Then:
    const std::vector<ops::PackedConv>* packed = nullptr;
    std::vector<ops::ConvHistory> histories;  // by slot, instead of `frames`
    ops::ConvPool pool;
    ops::Repeats repeats;  // in the clip that is between two layers
};

// Counts operations and live memory for one clip of batch 1. A layer is called with its input
// counted as held, and returns with its result held as well.
struct Ledger {
    std::int64_t element = 0;              // bytes per element
    std::vector<std::int64_t> frames;      // by slot: carried frames
    kernels::Isa isa = kernels::Isa::ref;  // of packed convolutions; ref: ATen's
    bool first = true;
    bool repeats = false;  // clips may have repeats, for which blocks keep and hold more
    double flop = 0;
    std::int64_t held = 0;            // bytes
    std::int64_t peak = 0;            // bytes
    std::vector<std::int64_t> spare;  // bytes of frames in the pool, which are held as well

    bool packed() const { return isa != kernels::Isa::ref; }
    void hold(std::int64_t bytes) {
        held += bytes;
        peak = std::max(peak, held);
    }
    void drop(std::int64_t bytes) { held -= bytes; }
    // A result that lies where its input lay, which is about to be dropped.
    void reuse(const ops::ClipShape& clip) { held += clip.elements() * element; }
    void hold(const ops::ClipShape& clip) { hold(clip.elements() * element); }
    void drop(const ops::ClipShape& clip) { drop(clip.elements() * element); }
    void pass(std::int64_t bytes) {  // held for a moment
        hold(bytes);
        drop(bytes);
    }
    void take(std::int64_t bytes);  // as ops::ConvPool
    void give(std::int64_t bytes) { spare.push_back(bytes); }
};

// A convolution causal in time. With time padding it carries the frames that its kernel reaches
// back.
class CausalConv {
public:
    CausalConv() = default;
    CausalConv(Builder& builder, const std::string& prefix, const ConvShape& shape);

    at::Tensor forward(const at::Tensor& x, const Lease& lease, Carried& carried) const;
    ops::ClipShape account(const ops::ClipShape& x, Ledger& ledger) const;

    // Keeps x as what came before, without computing anything.
    void carry(const at::Tensor& x, Carried& carried) const;
    void account_carry(const ops::ClipShape& x, Ledger& ledger) const;

    // For ops::causal_conv3d_cpu, where the stream has packed weights. gamma: undefined for no norm
    ops::ConvStage stage(Carried& carried, const at::Tensor& gamma, bool silu) const;
    // Its twin: a frame comes in and, once its result is computed, the last one not needed goes.
    void account_frame_in(const ops::ClipShape& x, Ledger& ledger) const;
    void account_frame_out(const ops::ClipShape& x, Ledger& ledger) const;
    ops::ConvCost cost(const ops::ClipShape& x, const Ledger& ledger) const;

private:
    std::int64_t frame_bytes(const ops::ClipShape& x, const Ledger& ledger) const;
    void account_trim(const ops::ClipShape& x, std::int64_t kept, Ledger& ledger) const;

    ConvParams params_;
    std::int64_t reach_ = 0;  // frames that are carried
    std::size_t slot_ = 0;
    std::size_t place_ = 0;
};

// 3x3x3 with zeros around, 1x1x1: the shapes of most of the VAE's convolutions.
ConvShape conv_3x3x3(std::int64_t in, std::int64_t out);
ConvShape conv_1x1x1(std::int64_t in, std::int64_t out);

class RmsNorm {
public:
    RmsNorm() = default;
    // `planar`: the weight is [C, 1, 1], not [C, 1, 1, 1].
    RmsNorm(Builder& builder, const std::string& prefix, std::int64_t channels, bool planar);

    at::Tensor forward(const at::Tensor& x, const Lease& lease, bool silu) const;
    ops::ClipShape account(const ops::ClipShape& x, Ledger& ledger) const;

    const at::Tensor& gamma(const Lease& lease) const { return lease[gamma_]; }

private:
    Param gamma_;
};

// conv(norm(x)), or conv(silu(norm(x))).
at::Tensor forward_normed(const RmsNorm& norm, bool silu, const CausalConv& conv,
                          const at::Tensor& x, const Lease& lease, Carried& carried);
ops::ClipShape account_normed(const RmsNorm& norm, const CausalConv& conv, const ops::ClipShape& x,
                              Ledger& ledger);

// x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1x1 convolution on the way past where the
// channels change.
class ResidualBlock {
public:
    ResidualBlock(Builder& builder, const std::string& prefix, std::int64_t in, std::int64_t out);

    // May write over x, but where that is to be kept.
    at::Tensor forward(const at::Tensor& x, const Lease& lease, Carried& carried,
                       bool keep_x = false) const;
    ops::ClipShape account(const ops::ClipShape& x, Ledger& ledger, bool keep_x = false) const;

private:
    ops::ClipShape account_packed(const ops::ClipShape& x, Ledger& ledger, bool keep_x) const;

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

// The shortcuts of residual levels have no weights: the pixels of a block (of `frames` x `side` x
// `side`) and the channels count as one row of numbers, dealt out to the other side's channels in
// order.
struct ShortcutShape {
    std::int64_t in = 0;
    std::int64_t out = 0;
    std::int64_t frames = 1;
    std::int64_t side = 1;

    std::int64_t pixels() const { return frames * side * side; }
};

// Past a level of the encoder: channels of the result are means of numbers in a row. A first chunk
// of one frame is the last of its block, the others being zeros.
class AverageDown {
public:
    explicit AverageDown(const ShortcutShape& shape) : shape_(shape) {}

    at::Tensor forward(const at::Tensor& x) const;
    ops::ClipShape account(const ops::ClipShape& x, Ledger& ledger) const;

private:
    ShortcutShape shape_;
};

// Past a level of the decoder: each channel of x stands for some numbers in a row.
class DuplicateUp {
public:
    explicit DuplicateUp(const ShortcutShape& shape) : shape_(shape) {}

    // Adds it to `to`, the level's result. first: only the last frame of each block is there.
    void add(const at::Tensor& x, bool first, const at::Tensor& to) const;

private:
    ShortcutShape shape_;
};

}  // namespace zoetrope::vae
