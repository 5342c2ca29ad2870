#include "vae/layers.h"

#include "ops/attention.h"

#include <ATen/ops/cat.h>

namespace zoetrope::vae {
namespace {

// [B, C, T, H, W] -> [B * T, H * W, 1, C]: the pixels of each frame as tokens of one head.
at::Tensor tokens_of(const at::Tensor& x) {
    return x.permute({0, 2, 3, 4, 1}).reshape({x.size(0) * x.size(2), -1, 1, x.size(1)});
}

}  // namespace

CausalConv::Shape conv_3x3x3(std::int64_t in, std::int64_t out) {
    return {.in = in, .out = out, .options = {.time_padding = 2, .padding = {1, 1, 1, 1}}};
}

CausalConv::Shape conv_1x1x1(std::int64_t in, std::int64_t out) {
    return {.in = in, .out = out, .kernel = {1, 1, 1}};
}

CausalConv::CausalConv(Builder& builder, const std::string& prefix, const Shape& shape)
    : shape_(shape), reach_(shape.kernel[0] - shape.options.stride[0]) {
    const auto [time, height, width] = shape.kernel;
    std::vector<std::int64_t> weight = {shape.out, shape.in, time, height, width};
    if (shape.planar) weight.erase(weight.begin() + 2);
    weight_ = builder.weights.param(prefix + ".weight", weight, Role::conv);
    bias_ = builder.weights.param(prefix + ".bias", {shape.out}, Role::vector);
    if (reach_ > 0) slot_ = builder.slots++;
}

at::Tensor CausalConv::forward(const at::Tensor& x, const Lease& lease, Carried& carried) const {
    ops::CausalConv3dArgs args{
        .x = x,
        .weight = shape_.planar ? lease[weight_].unsqueeze(2) : lease[weight_],
        .bias = lease[bias_],
        .options = shape_.options};
    if (reach_ > 0) args.history = carried.frames[slot_];
    at::Tensor out = ops::causal_conv3d(args);
    args.history.reset();
    carry(x, carried);
    return out;
}

void CausalConv::carry(const at::Tensor& x, Carried& carried) const {
    if (reach_ == 0) return;
    at::Tensor& slot = carried.frames[slot_];
    const std::int64_t frames = x.size(2);
    if (frames == reach_) {
        slot = x;
    } else if (frames > reach_) {
        slot.reset();
        slot = x.narrow(2, frames - reach_, reach_).clone();  // does not keep all of x alive
    } else if (slot.defined()) {
        const std::int64_t kept = std::min(slot.size(2), reach_ - frames);
        slot = at::cat({slot.narrow(2, slot.size(2) - kept, kept), x}, 2);
    } else {
        slot = x;
    }
}

ops::ClipShape CausalConv::account(const ops::ClipShape& x, Ledger& ledger) const {
    const auto [time, height, width] = shape_.kernel;
    const std::int64_t history = reach_ > 0 ? ledger.frames[slot_] : 0;
    const ops::ConvCost cost = ops::causal_conv3d_cost(
        x, history, {shape_.out, shape_.in, time, height, width}, shape_.options);
    ledger.flop += cost.flop;
    ledger.hold(cost.result);
    ledger.pass(cost.workspace * ledger.element);
    account_carry(x, ledger);
    return cost.result;
}

void CausalConv::account_carry(const ops::ClipShape& x, Ledger& ledger) const {
    if (reach_ == 0) return;
    const std::int64_t before = ledger.frames[slot_];
    const std::int64_t after = std::min(reach_, before + x.frames);
    const std::int64_t frame = x.channels * x.height * x.width * ledger.element;
    if (x.frames < reach_) ledger.pass(after * frame);  // the old ones live while they are copied
    ledger.hold((after - before) * frame);
    ledger.frames[slot_] = after;
}

RmsNorm::RmsNorm(Builder& builder, const std::string& prefix, std::int64_t channels, bool planar) {
    std::vector<std::int64_t> shape = {channels, 1, 1};
    if (!planar) shape.push_back(1);
    gamma_ = builder.weights.param(prefix + ".gamma", shape, Role::fp32);
}

at::Tensor RmsNorm::forward(const at::Tensor& x, const Lease& lease, bool silu) const {
    return ops::channel_rms_norm(x, lease[gamma_], silu);
}

ops::ClipShape RmsNorm::account(const ops::ClipShape& x, Ledger& ledger) const {
    ledger.hold(x);
    ledger.pass(ops::channel_rms_norm_workspace(x.channels));
    return x;
}

ResidualBlock::ResidualBlock(Builder& builder, const std::string& prefix, std::int64_t in,
                             std::int64_t out)
    : norm1_(builder, prefix + ".norm1", in, false),
      norm2_(builder, prefix + ".norm2", out, false),
      conv1_(builder, prefix + ".conv1", conv_3x3x3(in, out)),
      conv2_(builder, prefix + ".conv2", conv_3x3x3(out, out)) {
    if (in != out) shortcut_.emplace(builder, prefix + ".conv_shortcut", conv_1x1x1(in, out));
}

at::Tensor ResidualBlock::forward(const at::Tensor& x, const Lease& lease, Carried& carried) const {
    at::Tensor h = norm1_.forward(x, lease, true);
    h = conv1_.forward(h, lease, carried);
    h = norm2_.forward(h, lease, true);
    h = conv2_.forward(h, lease, carried);
    return h.add_(shortcut_ ? shortcut_->forward(x, lease, carried) : x);
}

ops::ClipShape ResidualBlock::account(const ops::ClipShape& x, Ledger& ledger) const {
    norm1_.account(x, ledger);
    const ops::ClipShape h = conv1_.account(x, ledger);
    ledger.drop(x);
    norm2_.account(h, ledger);
    ledger.drop(h);
    conv2_.account(h, ledger);
    ledger.drop(h);
    if (shortcut_) ledger.drop(shortcut_->account(x, ledger));
    return h;
}

AttentionBlock::AttentionBlock(Builder& builder, const std::string& prefix, std::int64_t channels)
    : norm_(builder, prefix + ".norm", channels, true) {
    CausalConv::Shape shape = conv_1x1x1(channels, 3 * channels);
    shape.planar = true;
    to_qkv_ = CausalConv(builder, prefix + ".to_qkv", shape);
    shape.out = channels;
    proj_ = CausalConv(builder, prefix + ".proj", shape);
}

at::Tensor AttentionBlock::forward(const at::Tensor& x, const Lease& lease,
                                   Carried& carried) const {
    const at::Tensor normed = norm_.forward(x, lease, false);
    const std::vector<at::Tensor> qkv =
        tokens_of(to_qkv_.forward(normed, lease, carried)).chunk(3, 3);
    const at::Tensor attended =
        ops::attention({.q = qkv[0], .k = qkv[1], .v = qkv[2]}).out;  // [B * T, H * W, 1, C]
    const at::Tensor clip = attended.view({x.size(0), x.size(2), x.size(3), x.size(4), x.size(1)})
                                .permute({0, 4, 1, 2, 3});
    return proj_.forward(clip, lease, carried).add_(x);
}

ops::ClipShape AttentionBlock::account(const ops::ClipShape& x, Ledger& ledger) const {
    norm_.account(x, ledger);
    const ops::ClipShape qkv = to_qkv_.account(x, ledger);
    const auto pixels = static_cast<double>(x.height * x.width);
    ledger.flop += 4.0 * static_cast<double>(x.elements()) * pixels;  // q k^T, then times v
    ledger.hold(x);                                                   // attended
    ledger.pass(2 * x.elements() * ledger.element);  // keys and values, packed by LibTorch
    proj_.account(x, ledger);
    ledger.drop(x);
    ledger.drop(qkv);
    ledger.drop(x);  // normed
    return x;
}

MidBlock::MidBlock(Builder& builder, const std::string& prefix, std::int64_t channels)
    : first_(builder, prefix + ".resnets.0", channels, channels),
      attention_(builder, prefix + ".attentions.0", channels),
      second_(builder, prefix + ".resnets.1", channels, channels) {}

at::Tensor MidBlock::forward(at::Tensor x, const Lease& lease, Carried& carried) const {
    x = first_.forward(x, lease, carried);
    x = attention_.forward(x, lease, carried);
    return second_.forward(x, lease, carried);
}

ops::ClipShape MidBlock::account(const ops::ClipShape& x, Ledger& ledger) const {
    first_.account(x, ledger);
    attention_.account(x, ledger);
    ledger.drop(x);
    second_.account(x, ledger);
    ledger.drop(x);
    return x;
}

Upsample::Upsample(Builder& builder, const std::string& prefix, const Shape& shape) {
    conv_ = CausalConv(builder, prefix + ".resample.1",
                       {.in = shape.in,
                        .out = shape.out,
                        .kernel = {1, 3, 3},
                        .options = {.padding = {1, 1, 1, 1}, .upsample = true},
                        .planar = true});
    if (shape.temporal) {
        time_conv_.emplace(builder, prefix + ".time_conv",
                           CausalConv::Shape{.in = shape.in,
                                             .out = 2 * shape.in,
                                             .kernel = {3, 1, 1},
                                             .options = {.time_padding = 2}});
    }
}

at::Tensor Upsample::forward(at::Tensor x, const Lease& lease, Carried& carried) const {
    if (time_conv_ && !carried.first) {
        x = time_conv_->forward(x, lease, carried);
        // The halves of the channels are two frames: [B, 2C, T, H, W] -> [B, C, 2T, H, W].
        x = x.permute({0, 2, 3, 4, 1})
                .unflatten(4, {2, x.size(1) / 2})
                .permute({0, 1, 4, 2, 3, 5})
                .flatten(1, 2)
                .permute({0, 4, 1, 2, 3});
    }
    return conv_.forward(x, lease, carried);
}

ops::ClipShape Upsample::account(ops::ClipShape x, Ledger& ledger) const {
    if (!time_conv_ || ledger.first) return conv_.account(x, ledger);
    ops::ClipShape doubled = x;
    doubled.frames *= 2;
    ledger.drop(time_conv_->account(x, ledger));
    ledger.hold(doubled);
    ledger.pass(doubled.elements() * ledger.element);  // while the halves are put in order
    const ops::ClipShape out = conv_.account(doubled, ledger);
    ledger.drop(doubled);
    return out;
}

Downsample::Downsample(Builder& builder, const std::string& prefix, std::int64_t channels,
                       bool temporal)
    : conv_(builder, prefix + ".resample.1",
            {.in = channels,
             .out = channels,
             .kernel = {1, 3, 3},
             .options = {.stride = {1, 2, 2}, .padding = {0, 1, 0, 1}},
             .planar = true}) {
    if (temporal) {
        time_conv_.emplace(builder, prefix + ".time_conv",
                           CausalConv::Shape{.in = channels,
                                             .out = channels,
                                             .kernel = {3, 1, 1},
                                             .options = {.stride = {2, 1, 1}}});
    }
}

at::Tensor Downsample::forward(const at::Tensor& x, const Lease& lease, Carried& carried) const {
    at::Tensor half = conv_.forward(x, lease, carried);
    if (!time_conv_) return half;
    if (!carried.first) return time_conv_->forward(half, lease, carried);
    time_conv_->carry(half, carried);
    return half;
}

ops::ClipShape Downsample::account(const ops::ClipShape& x, Ledger& ledger) const {
    const ops::ClipShape half = conv_.account(x, ledger);
    if (!time_conv_) return half;
    if (ledger.first) {
        time_conv_->account_carry(half, ledger);
        return half;
    }
    const ops::ClipShape out = time_conv_->account(half, ledger);
    ledger.drop(half);
    return out;
}

}  // namespace zoetrope::vae
