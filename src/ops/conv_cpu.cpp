#include "ops/conv_cpu.h"

#include "base/error.h"
#include "ops/device.h"
#include "ops/share_out.h"
#include "ops/stats.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/max.h>

#include <cmath>
#include <cstring>
#include <optional>

namespace zoetrope::ops {
namespace {

// Pixels that a strip of a panel (at most some 220 KiB for 384 channels) is read for; their sums
// take up to 384 x 96 x 4 bytes beside it.
constexpr std::int64_t kBlockPixels = 384;
constexpr std::int64_t kLeastPixels = 96;
// Bytes of the sums of all panels, where a block's results become words.
constexpr std::int64_t kSumsBytes = 384 << 10;
// Numbers that a thread packs or measures at a time.
constexpr std::int64_t kPieceNumbers = 1 << 16;

std::uint32_t* words_of(const ConvFrame& frame) {
    return static_cast<std::uint32_t*>(frame.words.mutable_data_ptr());
}

// The power of two above `largest`, so that numbers divided by it are at most 1.
float scale_above(float largest) {
    if (!(largest > 0) || !std::isfinite(largest)) return 1;
    int exponent = 0;
    std::frexp(largest, &exponent);
    return std::ldexp(1.0F, std::clamp(exponent, -100, 100));
}

}  // namespace

at::Tensor ConvPool::take(at::IntArrayRef shape) {
    const std::int64_t numbers = c10::multiply_integers(shape);
    for (auto it = spare_.begin(); it != spare_.end(); ++it) {
        if (it->numel() != numbers) continue;
        at::Tensor words = it->view(shape);
        spare_.erase(it);
        return words;
    }
    return at::empty(shape, at::kInt);
}

void ConvPool::give(at::Tensor words) { spare_.push_back(std::move(words)); }

namespace {

// One frame's worth of results (a step) of one convolution.
class FrameConv {
public:
    // window: [kt], null for a frame of zeros.
    FrameConv(const PackedConv& conv, std::vector<const ConvFrame*> window)
        : conv_(conv), window_(std::move(window)), columns_(conv.gemm.layout.columns) {
        const at::Tensor& words = window_.back()->words;
        batch_ = words.size(0), lines_ = words.size(1), pixels_ = words.size(2);
        const auto [out, in, kt, kh, kw] = conv.spec.weight;
        const auto& stride = conv.spec.options.stride;
        height_ = (lines_ - kh) / stride[1] + 1;
        width_ = (pixels_ - kw) / stride[2] + 1;
        if (conv.spread) height_ = lines_, width_ = pixels_;
        scale_ = conv.spec.options.upsample ? 2 : 1;
        double taps = 0;
        for (const ConvFrame* frame : window_) taps += frame != nullptr ? kh * kw : 0;
        const std::int64_t results = conv.spread ? (lines_ - kh + 1) * (pixels_ - kw + 1)
                                                 : height_ * width_ * scale_ * scale_;
        flop_ = 2.0 * static_cast<double>(batch_ * out * in * results) * taps;
    }

    // Into frames [frame, frame + frames_per_step) of a clip, with those of the residual from
    // residual_frame on added.
    void to_clip(const at::Tensor& out, std::int64_t frame, const at::Tensor& residual,
                 std::int64_t residual_frame, ConvPool& pool) {
        const OperatorScope scope("conv3d", flop_);
        if (conv_.spread) return gather(out, frame, pool);
        const auto place = [&](const at::Tensor& clip, std::int64_t b, std::int64_t f) {
            return clip.mutable_data_ptr<float>() + b * clip.stride(0) + f * clip.stride(2);
        };
        const auto target = [&](const at::Tensor& clip, std::int64_t first, const Item& item,
                                std::int64_t line) {
            const ConvPhase& phase = *item.phase;
            const std::int64_t y = (item.line + line) * scale_ + phase.line;
            const std::int64_t x = item.pixel * scale_ + phase.pixel;
            return place(clip, item.batch, first + phase.frame) +
                   (y * width_ * scale_ + x) * conv_.channels + item.panel * columns_;
        };
        run(false, [&](const Item& item, std::int64_t line, float* sums) {
            conv_.conv.finish(
                {.sums = sums,
                 .sums_stride = columns_,
                 .count = item.pixels,
                 .channels =
                     static_cast<int>(std::min(columns_, conv_.channels - item.panel * columns_)),
                 .bias = bias(item.phase->first_channel + item.panel * columns_),
                 .residual =
                     residual.defined() ? target(residual, residual_frame, item, line) : nullptr,
                 .out = target(out, frame, item, line),
                 .out_stride = scale_ * conv_.channels});
        });
    }

    // Normed, into the words of a frame of the next convolution's input.
    void to_words(const PackedConv& next, const kernels::ConvPack& norm, const ConvFrame& frame) {
        const OperatorScope scope("conv3d", flop_);
        const std::int64_t stride = conv_.panels * columns_;
        const auto& padding = next.spec.options.padding;
        run(true, [&](const Item& item, std::int64_t line, float* sums) {
            conv_.conv.finish({.sums = sums,
                               .sums_stride = stride,
                               .count = item.pixels,
                               .channels = static_cast<int>(conv_.channels),
                               .bias = bias(0),
                               .out = sums,
                               .out_stride = stride});
            kernels::ConvPack pack = norm;
            pack.pixels = sums;
            pack.stride = stride;
            pack.count = item.pixels;
            const std::int64_t y = item.line + line + padding[2], x = item.pixel + padding[0];
            pack.words =
                words_of(frame) +
                ((item.batch * frame.words.size(1) + y) * frame.words.size(2) + x) * next.words;
            next.conv.pack(pack);
        });
    }

private:
    struct Item {
        std::int64_t batch, line, lines, pixel, pixels, panel;  // panel: the first one
        const ConvPhase* phase;
    };

    const float* bias(std::int64_t channel) const {
        return conv_.bias.defined() ? conv_.bias.const_data_ptr<float>() + channel : nullptr;
    }

    // Computes the sums of all results in blocks, those of one panel at a time or of all panels
    // beside each other, and calls finish(item, line of the block, sums).
    template <class Finish>
    void run(bool all_panels, const Finish& finish) const {
        const int workers = threads();
        const std::int64_t panels = all_panels ? conv_.panels : 1;  // in an item
        const std::int64_t stride = panels * columns_;
        const std::int64_t splits = conv_.panels / panels;
        const auto phases = static_cast<std::int64_t>(conv_.phases.size());
        // Small pictures in smaller blocks, so that all threads have some.
        const std::int64_t most =
            std::clamp(kSumsBytes / (4 * stride) / 8 * 8, kLeastPixels, kBlockPixels);
        const std::int64_t share =
            batch_ * height_ * width_ * phases * splits / (4 * static_cast<std::int64_t>(workers));
        const std::int64_t block = std::clamp(share / 8 * 8, kLeastPixels, most);
        const std::int64_t pieces = ceil_div(width_, block);
        const std::int64_t pixels =
            pieces == 1 ? width_ : ceil_div(ceil_div(width_, pieces), 8) * 8;
        const std::int64_t lines = std::clamp<std::int64_t>(block / pixels, 1, height_);
        const std::int64_t across = ceil_div(width_, pixels), down = ceil_div(height_, lines);
        const std::int64_t sums_size = lines * pixels * stride;
        const at::Tensor sums = at::empty({workers, sums_size}, at::kFloat);
        auto* sums_data = sums.mutable_data_ptr<float>();
        share_out(batch_ * down * across * phases * splits, workers,
                  [&](std::int64_t index, std::int64_t worker) {
                      Item item{};
                      item.panel = index % splits;
                      index /= splits;
                      item.phase = &conv_.phases[static_cast<std::size_t>(index % phases)];
                      index /= phases;
                      item.pixel = index % across * pixels;
                      item.pixels = std::min(pixels, width_ - item.pixel);
                      index /= across;
                      item.line = index % down * lines;
                      item.lines = std::min(lines, height_ - item.line);
                      item.batch = index / down;
                      float* own = sums_data + worker * sums_size;
                      for (std::int64_t panel = 0; panel < panels; ++panel)
                          multiply(item, item.panel + panel, own + panel * columns_, stride);
                      if (conv_.gemm.release != nullptr) conv_.gemm.release();
                      for (std::int64_t line = 0; line < item.lines; ++line)
                          finish(item, line, own + line * item.pixels * stride);
                  });
    }

    void multiply(const Item& item, std::int64_t panel, float* sums, std::int64_t stride) const {
        const ConvPhase& phase = *item.phase;
        const auto strips = static_cast<std::int64_t>(phase.strips.size());
        const std::int64_t depth = phase.strips[0].pixels * conv_.words;
        const std::int64_t bytes = gemm_panel_bytes(conv_.gemm.layout, depth);
        const auto& step = conv_.spec.options.stride;
        bool add = false;
        for (std::int64_t i = 0; i < strips; ++i) {
            const ConvStrip& strip = phase.strips[static_cast<std::size_t>(i)];
            const ConvFrame* frame = window_[static_cast<std::size_t>(strip.frame)];
            if (frame == nullptr) continue;
            const std::int64_t at = panel * strips + i;
            for (std::int64_t line = 0; line < item.lines; ++line) {
                const std::int64_t y = (item.line + line) * step[1] + strip.line;
                const std::int64_t x = item.pixel * step[2] + strip.pixel;
                const std::uint32_t* rows =
                    words_of(*frame) + ((item.batch * lines_ + y) * pixels_ + x) * conv_.words;
                conv_.gemm.multiply(
                    {.rows = &rows,
                     .row_stride = step[2] * conv_.words,
                     .panel = static_cast<const std::uint8_t*>(conv_.data.const_data_ptr()) +
                              phase.first_byte + at * bytes,
                     .depth = static_cast<int>(depth),
                     .count = static_cast<int>(item.pixels),
                     .sums = sums + line * item.pixels * stride,
                     .sums_stride = stride,
                     .add = add,
                     .factor = conv_.factors[static_cast<std::size_t>(phase.first_factor + at)] *
                               frame->scale});
            }
            add = true;
        }
    }

    // The products of every pixel with all taps, then for each result the sum of its taps'.
    void gather(const at::Tensor& out, std::int64_t frame, ConvPool& pool) {
        const auto& shape = conv_.spec.weight;  // clang 14's lambdas take no structured bindings
        const std::int64_t channels = shape[0], kh = shape[3], kw = shape[4];
        at::Tensor products = pool.take({batch_, lines_, pixels_, conv_.channels});
        auto* data = static_cast<float*>(products.mutable_data_ptr());
        run(false, [&](const Item& item, std::int64_t line, float* sums) {
            conv_.conv.finish(
                {.sums = sums,
                 .sums_stride = columns_,
                 .count = item.pixels,
                 .channels =
                     static_cast<int>(std::min(columns_, conv_.channels - item.panel * columns_)),
                 .out = data +
                        ((item.batch * lines_ + item.line + line) * pixels_ + item.pixel) *
                            conv_.channels +
                        item.panel * columns_,
                 .out_stride = conv_.channels});
        });
        const std::int64_t height = lines_ - kh + 1, width = pixels_ - kw + 1;
        share_out(batch_ * height, threads(), [&](std::int64_t index, auto) {
            const std::int64_t b = index / height, y = index % height;
            float* to = out.mutable_data_ptr<float>() + b * out.stride(0) + frame * out.stride(2) +
                        y * width * channels;
            for (std::int64_t i = 0; i < width * channels; ++i)
                to[i] = conv_.bias.defined() ? *bias(i % channels) : 0;
            for (std::int64_t tap = 0; tap < kh * kw; ++tap) {
                const float* from =
                    data + ((b * lines_ + y + tap / kw) * pixels_ + tap % kw) * conv_.channels +
                    tap * channels;
                for (std::int64_t x = 0; x < width; ++x) {
                    for (std::int64_t c = 0; c < channels; ++c)
                        to[x * channels + c] += from[x * conv_.channels + c];
                }
            }
        });
        pool.give(std::move(products));
    }

    const PackedConv& conv_;
    const std::vector<const ConvFrame*> window_;
    const std::int64_t columns_;
    std::int64_t batch_, lines_, pixels_;  // of the frames with the zeros around them
    std::int64_t height_, width_;          // of what the products are computed for
    std::int64_t scale_;                   // results per product in height and width
    double flop_;
};

// A convolution while a clip runs through it: takes frames and says when a result is due.
class StageRun {
public:
    StageRun(const ConvStage& stage, const at::Tensor& x, ConvPool& pool)
        : stage_(stage),
          pool_(pool),
          batch_(x.size(0)),
          height_(x.size(3)),
          width_(x.size(4)),
          channels_(stage.conv.spec.weight[1]),
          kernel_(stage.conv.spec.weight[2]),
          stride_(stage.conv.spec.options.stride[0]) {
        if (stage.history != nullptr) {
            frames_ = std::move(stage.history->frames);
            alike_ = stage.history->alike;
        }
        position_ = std::max(stage.conv.spec.options.time_padding, count());
        norm_.channels = static_cast<int>(channels_);
        norm_.silu = stage.silu;
        if (!stage.gamma.defined()) return;
        const double root = std::sqrt(static_cast<double>(channels_));
        gamma_ = stage.gamma.to(at::kFloat).reshape({channels_}).mul(root).contiguous();
        norm_.gamma = gamma_.const_data_ptr<float>();
        // A normed number is at most 1, and SiLU only makes it smaller.
        if (stage.conv.conv.largest != nullptr)
            scale_ = scale_above(at::max(at::abs(gamma_)).item<float>());
        norm_.factor = 1 / scale_;
    }

    // Results of a clip of so many frames.
    std::int64_t steps(std::int64_t frames) const {
        return (position_ + frames - kernel_) / stride_ + 1;
    }
    bool due() const { return position_ >= kernel_ && (position_ - kernel_) % stride_ == 0; }
    // Whether the result that is due repeats the one before: both see the same frames.
    bool unchanged() const { return alike_ >= kernel_ + stride_; }
    const kernels::ConvPack& norm() const { return norm_; }

    // The next frame, with zeros around what is to be written.
    const ConvFrame& add_frame() {
        const auto [left, right, top, bottom] = stage_.conv.spec.options.padding;
        const std::int64_t words = stage_.conv.words;
        const std::int64_t lines = top + height_ + bottom, pixels = left + width_ + right;
        frames_.push_back({pool_.take({batch_, lines, pixels, words}), scale_});
        position_ += 1;
        alike_ = 1;
        const ConvFrame& frame = frames_.back();
        const auto clear = [&](std::int64_t b, std::int64_t line, std::int64_t first,
                               std::int64_t count) {
            std::memset(words_of(frame) + ((b * lines + line) * pixels + first) * words, 0,
                        static_cast<std::size_t>(4 * count * words));
        };
        for (std::int64_t b = 0; b < batch_; ++b) {
            for (std::int64_t y = 0; y < lines; ++y) {
                const bool outside = y < top || y >= top + height_;
                clear(b, y, 0, outside ? pixels : left);
                if (!outside) clear(b, y, left + width_, right);
            }
        }
        return frame;
    }

    // The frame before once more.
    void repeat() {
        if (!frames_.empty()) frames_.push_back(ConvFrame(frames_.back()));
        position_ += 1;
        alike_ += 1;
    }

    // Adds a frame of x.
    void pack(const at::Tensor& x, std::int64_t t) {
        const OperatorScope scope(norm_.gamma != nullptr ? "channel_rms_norm" : "conv3d_pack");
        const auto pixels_of = [&](std::int64_t b) {
            return x.const_data_ptr<float>() + b * x.stride(0) + t * x.stride(2);
        };
        if (norm_.gamma == nullptr && stage_.conv.conv.largest != nullptr) {
            scale_ = scale_above(largest(pixels_of));
            norm_.factor = 1 / scale_;
        }
        const ConvFrame& frame = add_frame();
        const auto& padding = stage_.conv.spec.options.padding;
        const std::int64_t lines =
            std::clamp<std::int64_t>(kPieceNumbers / (width_ * channels_), 1, height_);
        const std::int64_t pieces = ceil_div(height_, lines);
        share_out(batch_ * pieces, threads(), [&](std::int64_t index, auto) {
            const std::int64_t b = index / pieces, first = index % pieces * lines;
            for (std::int64_t y = first; y < std::min(first + lines, height_); ++y) {
                kernels::ConvPack call = norm_;
                call.pixels = pixels_of(b) + y * width_ * channels_;
                call.stride = channels_;
                call.count = width_;
                call.words = words_of(frame) +
                             ((b * frame.words.size(1) + y + padding[2]) * frame.words.size(2) +
                              padding[0]) *
                                 stage_.conv.words;
                stage_.conv.conv.pack(call);
            }
        });
    }

    FrameConv conv() const {
        std::vector<const ConvFrame*> window(static_cast<std::size_t>(kernel_), nullptr);
        const std::int64_t seen = std::min(count(), kernel_);
        for (std::int64_t i = 1; i <= seen; ++i)
            window[static_cast<std::size_t>(kernel_ - i)] =
                &frames_[static_cast<std::size_t>(count() - i)];
        return FrameConv(stage_.conv, std::move(window));
    }

    // Lets go what no later result looks back at.
    void trim() { trim_to(kernel_ - 1); }

    void end() {
        trim_to(kernel_ - stride_);
        if (stage_.history == nullptr) return;
        stage_.history->frames = std::move(frames_);
        stage_.history->alike = alike_;
    }

private:
    std::int64_t count() const { return static_cast<std::int64_t>(frames_.size()); }

    void trim_to(std::int64_t kept) {
        while (count() > kept) {
            const bool repeated = count() > 1 && frames_[1].words.is_same(frames_[0].words);
            if (!repeated) pool_.give(std::move(frames_.front().words));
            frames_.erase(frames_.begin());
        }
    }

    template <class PixelsOf>
    float largest(const PixelsOf& pixels_of) const {
        const std::int64_t numbers = height_ * width_ * channels_;
        const std::int64_t pieces = ceil_div(numbers, kPieceNumbers);
        std::vector<float> found(static_cast<std::size_t>(batch_ * pieces));
        share_out(batch_ * pieces, threads(), [&](std::int64_t index, auto) {
            const std::int64_t first = index % pieces * kPieceNumbers;
            found[static_cast<std::size_t>(index)] = stage_.conv.conv.largest(
                pixels_of(index / pieces) + first, std::min(kPieceNumbers, numbers - first));
        });
        return *std::max_element(found.begin(), found.end());
    }

    const ConvStage& stage_;
    ConvPool& pool_;
    const std::int64_t batch_, height_, width_, channels_;
    const std::int64_t kernel_, stride_;  // in time
    std::vector<ConvFrame> frames_;
    std::int64_t position_;  // frames so far, and those of zeros in front
    // The last so many frames equal each other. A kernel of one frame looks at the frame before
    // without having kept it.
    std::int64_t alike_ = 1;
    at::Tensor gamma_;
    kernels::ConvPack norm_;  // what frames are packed with
    float scale_ = 1;
};

// frames: of x, those that are not in its tensor as well
at::Tensor result_of(const ConvStage& stage, const StageRun& run, const at::Tensor& x,
                     std::int64_t frames) {
    const auto [out, in, kt, kh, kw] = stage.conv.spec.weight;
    const auto& [left, right, top, bottom] = stage.conv.spec.options.padding;
    const auto& stride = stage.conv.spec.options.stride;
    const std::int64_t scale = stage.conv.spec.options.upsample ? 2 : 1;
    const std::int64_t parts = stage.conv.spec.frames_per_step;
    return at::empty({x.size(0), out / parts, run.steps(frames) * parts,
                      (x.size(3) * scale + top + bottom - kh) / stride[1] + 1,
                      (x.size(4) * scale + left + right - kw) / stride[2] + 1},
                     x.options(), at::MemoryFormat::ChannelsLast3d);
}

// The residual's last frame is set aside where the next clip may begin with a repeat of it, before
// results are written over it. -> that of the clip before
at::Tensor swap_residual(const ConvCall& call, ConvHistory& history) {
    at::Tensor before = std::move(history.residual);
    history.residual = at::Tensor();
    if (!call.repeats->go_on || !call.residual.defined()) return before;
    const std::int64_t frames = call.residual.size(2);
    history.residual =
        frames == 0
            ? before
            : call.residual.narrow(2, frames - 1, 1).clone(at::MemoryFormat::ChannelsLast3d);
    return before;
}

}  // namespace

at::Tensor causal_conv3d_cpu(std::span<const ConvStage> stages, const ConvCall& call) {
    const at::Tensor x = call.x.contiguous(at::MemoryFormat::ChannelsLast3d);
    ZT_CHECK(x.dim() == 5 && x.size(1) == stages.front().conv.spec.weight[1] &&
                 x.scalar_type() == at::kFloat,
             internal, "causal_conv3d_cpu: a clip [{}] of {} for a weight of [{}]",
             fmt::join(x.sizes(), ", "), c10::toString(x.scalar_type()),
             fmt::join(stages.front().conv.spec.weight, ", "));
    ZT_CHECK(stages.size() <= 2 && !(stages.front().conv.spread && stages.size() == 2) &&
                 !(stages.back().conv.spread && call.residual.defined()),
             internal, "causal_conv3d_cpu: these stages do not go together");
    ConvPool own;
    ConvPool& pool = call.pool != nullptr ? *call.pool : own;
    ConvHistory* const history = stages.back().history;
    std::vector<bool> repeats;
    at::Tensor residual_before;
    if (call.repeats != nullptr) {
        repeats = std::exchange(call.repeats->frames, {});
        if (history != nullptr) residual_before = swap_residual(call, *history);
    }
    const auto frames = repeats.empty() ? x.size(2) : static_cast<std::int64_t>(repeats.size());
    StageRun first(stages.front(), x, pool);
    std::optional<StageRun> second;
    if (stages.size() > 1) second.emplace(stages.back(), x, pool);
    StageRun& last = second ? *second : first;
    const std::int64_t parts = stages.back().conv.spec.frames_per_step;
    at::Tensor out = call.out;
    if (!out.defined() || out.size(2) != last.steps(frames) * parts)
        out = result_of(stages.back(), last, x, frames);
    std::int64_t taken = 0, step = 0;
    for (std::int64_t t = 0; t < frames; ++t) {
        if (!repeats.empty() && repeats[static_cast<std::size_t>(t)]) {
            first.repeat();
        } else {
            first.pack(x, taken++);
        }
        if (!first.due()) {
            first.trim();
            continue;
        }
        if (second) {
            if (first.unchanged()) {
                second->repeat();
            } else {
                first.conv().to_words(stages.back().conv, second->norm(), second->add_frame());
            }
            first.trim();
        }
        if (!repeats.empty()) call.repeats->frames.push_back(last.unchanged());
        if (!last.unchanged()) {
            const bool earlier = taken == 0;  // the residual repeats one of the clip before
            last.conv().to_clip(out, step * parts, earlier ? residual_before : call.residual,
                                earlier ? 0 : (taken - 1) * parts, pool);
            step += 1;
        }
        last.trim();
    }
    const bool settled = last.unchanged();
    first.end();
    if (second) second->end();
    if (history != nullptr && settled) history->residual = at::Tensor();
    return step * parts == out.size(2) ? out : out.narrow(2, 0, step * parts);
}

void carry_cpu(const ConvStage& stage, const ConvCall& call) {
    const at::Tensor x = call.x.contiguous(at::MemoryFormat::ChannelsLast3d);
    StageRun run(stage, x, *call.pool);
    for (std::int64_t t = 0; t < x.size(2); ++t) run.pack(x, t);
    run.end();
}

}  // namespace zoetrope::ops
