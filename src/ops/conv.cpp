#include "ops/conv.h"

#include "base/error.h"
#include "ops/stats.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/upsample_nearest2d.h>

#include <cmath>

namespace zoetrope::ops {
namespace {

// The least divisor of the norm: eps of torch.nn.functional.normalize.
constexpr double kNormEps = 1e-12;

// Elements that the norm works on at a time: its float32 temporaries then stay in the cache
// (1 Mi elements are 4 MiB).
constexpr std::int64_t kNormBlockElements = std::int64_t{1} << 20;

// Copies of the weight that ATen and oneDNN make: channels last, then oneDNN's blocked order
// (measured: the resident set grows by one to two times the weight during a call).
constexpr std::int64_t kWeightCopies = 2;

// Sizes of one causal_conv3d call.
struct Plan {
    std::int64_t x_frames, history_frames, zero_frames;
    std::int64_t frames, height, width;      // of the result
    std::int64_t input_height, input_width;  // after upsampling, before padding
    std::array<std::int64_t, 3> kernel;
    std::int64_t time_stride;
    bool pointwise;   // a matrix product over channels
    bool asymmetric;  // padding that ATen's convolutions cannot express
};

// The frames that one frame of the result sees, as a range of [history, x]; `first_tap` taps before
// them meet zero frames.
struct Window {
    std::int64_t first_frame, frames, first_tap;
};

Plan plan_of(const ClipShape& x, std::int64_t history_frames,
             const std::array<std::int64_t, 5>& weight, const ConvOptions& options) {
    Plan plan{};
    plan.kernel = {weight[2], weight[3], weight[4]};
    plan.x_frames = x.frames;
    plan.history_frames = history_frames;
    plan.zero_frames = std::max<std::int64_t>(0, options.time_padding - history_frames);
    plan.time_stride = options.stride[0];
    const std::int64_t scale = options.upsample ? 2 : 1;
    plan.input_height = x.height * scale;
    plan.input_width = x.width * scale;
    const auto& [left, right, top, bottom] = options.padding;
    const std::int64_t spare_frames = plan.zero_frames + history_frames + x.frames - plan.kernel[0];
    const std::int64_t spare_rows = plan.input_height + top + bottom - plan.kernel[1];
    const std::int64_t spare_columns = plan.input_width + left + right - plan.kernel[2];
    ZT_CHECK(x.channels == weight[1] && x.frames >= 1, internal,
             "causal_conv3d: a clip of {} channels and {} frames for a weight of [{}]", x.channels,
             x.frames, fmt::join(weight, ", "));
    ZT_CHECK(spare_frames >= 0 && spare_rows >= 0 && spare_columns >= 0 &&
                 options.time_padding < plan.kernel[0],
             internal,
             "causal_conv3d: {} frames of {}x{} after {}, {} zero frames in front, for a kernel of "
             "[{}]",
             x.frames, plan.input_width, plan.input_height, history_frames, options.time_padding,
             fmt::join(plan.kernel, ", "));
    plan.frames = spare_frames / options.stride[0] + 1;
    plan.height = spare_rows / options.stride[1] + 1;
    plan.width = spare_columns / options.stride[2] + 1;
    plan.pointwise = plan.kernel == std::array<std::int64_t, 3>{1, 1, 1} &&
                     options.stride == std::array<std::int64_t, 3>{1, 1, 1} &&
                     options.padding == std::array<std::int64_t, 4>{0, 0, 0, 0} &&
                     !options.upsample && history_frames == 0;
    plan.asymmetric = left != right || top != bottom;
    return plan;
}

Window window_of(const Plan& plan, std::int64_t frame) {
    const std::int64_t first = frame * plan.time_stride - plan.zero_frames;
    const std::int64_t zeros = std::max<std::int64_t>(0, -first);
    return {.first_frame = std::max<std::int64_t>(0, first),
            .frames = plan.kernel[0] - zeros,
            .first_tap = zeros};
}

// Frames [first, first + frames) of [history, x], copied only where both have a part in them.
at::Tensor window_frames(const CausalConv3dArgs& args, const Plan& plan, const Window& window) {
    const std::int64_t from_history =
        std::clamp<std::int64_t>(plan.history_frames - window.first_frame, 0, window.frames);
    const std::int64_t from_x = window.frames - from_history;
    if (from_history == 0) {
        return args.x.narrow(2, window.first_frame - plan.history_frames, from_x);
    }
    const at::Tensor before = args.history.narrow(2, window.first_frame, from_history);
    return from_x == 0 ? before : at::cat({before, args.x.narrow(2, 0, from_x)}, 2);
}

// One frame of the result from the frames that it sees: a 2D convolution where that is one.
// frames: [B, C, n, H, W]; weight: [O, C, n, kh, kw] -> [B, O, 1, H', W']
at::Tensor convolve(at::Tensor frames, const at::Tensor& weight, const at::Tensor& bias,
                    const Plan& plan, const ConvOptions& options) {
    const auto& [left, right, top, bottom] = options.padding;
    if (options.upsample) {
        std::vector<at::Tensor> scaled;
        for (std::int64_t t = 0; t < frames.size(2); ++t) {
            scaled.push_back(at::upsample_nearest2d(frames.select(2, t),
                                                    {plan.input_height, plan.input_width}, {}, {})
                                 .unsqueeze(2));
        }
        frames = scaled.size() == 1 ? scaled[0] : at::cat(scaled, 2);
    }
    if (plan.asymmetric) frames = at::constant_pad_nd(frames, {left, right, top, bottom});
    const std::int64_t rows = plan.asymmetric ? 0 : top;
    const std::int64_t columns = plan.asymmetric ? 0 : left;
    const auto& stride = options.stride;
    if (frames.size(2) == 1) {
        return at::conv2d(frames.select(2, 0), weight.select(2, 0), bias, {stride[1], stride[2]},
                          {rows, columns})
            .unsqueeze(2);
    }
    return at::conv3d(frames, weight, bias, {1, stride[1], stride[2]}, {0, rows, columns});
}

at::Tensor convolve_frames(const CausalConv3dArgs& args, const Plan& plan) {
    at::Tensor taps;
    std::int64_t taps_first = -1;
    at::Tensor result;
    for (std::int64_t t = 0; t < plan.frames; ++t) {
        const Window window = window_of(plan, t);
        if (window.first_tap != taps_first) {
            taps = args.weight.narrow(2, window.first_tap, window.frames)
                       .contiguous(at::MemoryFormat::ChannelsLast3d);
            taps_first = window.first_tap;
        }
        const at::Tensor frame =
            convolve(window_frames(args, plan, window), taps, args.bias, plan, args.options);
        if (plan.frames == 1) return frame;
        if (!result.defined()) {
            result = at::empty({frame.size(0), frame.size(1), plan.frames, plan.height, plan.width},
                               frame.options(), at::MemoryFormat::ChannelsLast3d);
        }
        result.narrow(2, t, 1).copy_(frame);
    }
    return result;
}

ClipShape shape_of(const at::Tensor& clip) {
    return {clip.size(1), clip.size(2), clip.size(3), clip.size(4)};
}

}  // namespace

at::Tensor causal_conv3d(const CausalConv3dArgs& args) {
    const at::Tensor &x = args.x, &weight = args.weight;
    ZT_CHECK(x.dim() == 5 && weight.dim() == 5, internal,
             "causal_conv3d takes a clip and a weight of 5 dimensions, got {} and {}", x.dim(),
             weight.dim());
    const std::array<std::int64_t, 5> weight_shape = {
        weight.size(0), weight.size(1), weight.size(2), weight.size(3), weight.size(4)};
    const std::int64_t history = args.history.defined() ? args.history.size(2) : 0;
    const Plan plan = plan_of(shape_of(x), history, weight_shape, args.options);
    const double flop = causal_conv3d_cost(shape_of(x), history, weight_shape, args.options).flop;
    const OperatorScope scope("conv3d", flop * static_cast<double>(x.size(0)));
    if (plan.pointwise) {
        const at::Tensor matrix = weight.reshape({weight.size(0), weight.size(1)});
        return at::linear(x.permute({0, 2, 3, 4, 1}), matrix, args.bias).permute({0, 4, 1, 2, 3});
    }
    return convolve_frames(args, plan);
}

ConvCost causal_conv3d_cost(const ClipShape& x, std::int64_t history_frames,
                            const std::array<std::int64_t, 5>& weight, const ConvOptions& options) {
    const Plan plan = plan_of(x, history_frames, weight, options);
    ConvCost cost;
    cost.result = {weight[0], plan.frames, plan.height, plan.width};
    const std::int64_t result_frame = weight[0] * plan.height * plan.width;
    const std::int64_t x_frame = x.channels * x.height * x.width;
    const std::int64_t upsampled_frame = x.channels * plan.input_height * plan.input_width;
    const std::int64_t taps_2d = plan.kernel[1] * plan.kernel[2];
    const std::int64_t padded_frame =
        x.channels * (plan.input_height + options.padding[2] + options.padding[3]) *
        (plan.input_width + options.padding[0] + options.padding[1]);
    if (plan.pointwise) {
        cost.flop = 2.0 * static_cast<double>(cost.result.elements() * x.channels);
        return cost;
    }
    // Frames of the result become resident as they are written, so early windows weigh less.
    std::int64_t peak = 0;
    for (std::int64_t t = 0; t < plan.frames; ++t) {
        const Window window = window_of(plan, t);
        cost.flop += 2.0 * static_cast<double>(result_frame * x.channels) *
                     static_cast<double>(window.frames * taps_2d);
        std::int64_t held = 0;
        if (window.first_frame < history_frames && window.frames > 1) {
            held += window.frames * x_frame;
        }
        if (options.upsample) held += window.frames * upsampled_frame;
        if (plan.asymmetric) held += window.frames * padded_frame;
        peak = std::max(peak, held + (t + 1) * result_frame);
    }
    // The last frame exists twice while it is copied.
    if (plan.frames > 1) peak = std::max(peak, (plan.frames + 1) * result_frame);
    cost.workspace = peak - cost.result.elements() +
                     kWeightCopies * weight[0] * weight[1] * plan.kernel[0] * taps_2d;
    return cost;
}

at::Tensor channel_rms_norm(const at::Tensor& x, const at::Tensor& gamma, bool silu) {
    const std::int64_t channels = x.size(1);
    ZT_CHECK(x.dim() == 5 && gamma.numel() == channels, internal,
             "channel_rms_norm: {} weights for a clip [{}]", gamma.numel(),
             fmt::join(x.sizes(), ", "));
    const OperatorScope scope("channel_rms_norm");
    const at::Tensor in = x.contiguous(at::MemoryFormat::ChannelsLast3d);
    at::Tensor out = at::empty_like(in);
    // [pixels, C] views of both
    const at::Tensor in_rows = in.permute({0, 2, 3, 4, 1}).reshape({-1, channels});
    const at::Tensor out_rows = out.permute({0, 2, 3, 4, 1}).view({-1, channels});
    const at::Tensor scale =
        gamma.to(at::kFloat).reshape({channels}).mul(std::sqrt(static_cast<double>(channels)));
    const std::int64_t rows = in_rows.size(0);
    const std::int64_t block = std::max<std::int64_t>(1, kNormBlockElements / channels);
    for (std::int64_t first = 0; first < rows; first += block) {
        const std::int64_t count = std::min(block, rows - first);
        const at::Tensor values = in_rows.narrow(0, first, count).to(at::kFloat);
        const at::Tensor norm =
            at::linalg_vector_norm(values, 2, at::IntArrayRef{1}, /*keepdim=*/true);
        at::Tensor normed = values.div(norm.clamp_min_(kNormEps)).mul_(scale);
        if (silu) at::silu_(normed);
        out_rows.narrow(0, first, count).copy_(normed);
    }
    return out;
}

std::int64_t channel_rms_norm_workspace(std::int64_t channels) {
    // Values and normed values in float32, and one norm per row.
    const std::int64_t block = std::max<std::int64_t>(1, kNormBlockElements / channels);
    return block * (2 * channels + 1) * 4;
}

}  // namespace zoetrope::ops
