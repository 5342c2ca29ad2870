// Convolutions causal in time on the CPU by our own product kernels, frame by frame.
//
// A frame of its input is packed into words with
// zeros around it once, in the pass that norms it, and a stream keeps the packed frames that later
// ones look back at: nothing is padded, copied or unfolded. Sums are float32 (fp16 kernels: of
// fp16 sums of at most kGemmFp16Chunk steps) in a fixed order, whatever the number of threads.
// A PackedConv is immutable and may be shared; history and pool belong to one stream.
#pragma once

#include "kernels/conv.h"
#include "kernels/cpu.h"
#include "kernels/gemm.h"
#include "ops/conv.h"

#include <span>
#include <vector>

namespace zoetrope::ops {

// Up to which instruction set kernels are to be used: fastest_bf16_products() where bf16 is
// accurate enough, else those of float32. ref: no kernel, the convolutions are ATen's.
kernels::Isa conv_cpu_isa(bool bf16_products);

// The words of one frame, and zeros around it.
struct ConvFrame {
    at::Tensor words;  // int32 [B, top + H + bottom, left + W + right, words of C numbers]
    float scale = 1;   // its numbers were divided by this power of two
};

// Memory of frames that are no longer needed, to be used again.
class ConvPool {
public:
    at::Tensor take(at::IntArrayRef shape);  // int32
    void give(at::Tensor words);

private:
    std::vector<at::Tensor> spare_;
};

struct ConvSpec {
    std::array<std::int64_t, 5> weight{};  // [O, C, kt, kh, kw]
    ConvOptions options;
    // 2: the halves of the result's channels are frames that follow each other.
    std::int64_t frames_per_step = 1;
    // For results of so few channels that those of all taps of a frame fill far fewer panels side
    // by side than one by one (else nothing changes): taps are columns, whose products are added up
    // afterwards. Without residual, the last in a row.
    bool spread_taps = false;
};

// Numbers under a filter that lie side by side in a frame: one product.
struct ConvStrip {
    std::int64_t frame = 0, line = 0, pixel = 0;  // the first, from the filter's corner
    std::int64_t pixels = 1;
};

// Results of one product each: all of them, one pixel of four (before which pixels are doubled), or
// the channels that are one frame.
struct ConvPhase {
    std::int64_t first_channel = 0, frame = 0, line = 0, pixel = 0;  // of the result
    std::vector<ConvStrip> strips;
    std::int64_t first_byte = 0, first_factor = 0;
};

// A weight in a kernel's order.
struct PackedConv {
    kernels::GemmKernel gemm;
    kernels::ConvKernel conv;
    ConvSpec spec;
    bool spread = false;        // spread_taps, and it pays
    std::int64_t channels = 0;  // of each phase
    std::int64_t words = 0;     // per pixel of the input
    std::int64_t panels = 0;    // of each phase
    std::vector<ConvPhase> phases;
    at::Tensor data;             // bytes: [phase][panel][strip] of gemm.h's panels
    std::vector<float> factors;  // [phase][panel][strip]
    std::int64_t bytes = 0;      // of them
    at::Tensor bias;             // [O] fp32, undefined: none
};

// weight, bias: [O, C, kt, kh, kw], [O] or undefined; fp32. isa: that of a kernel (conv_cpu_isa(),
// or ref for tests). Errors: internal for upsampling but in front of a convolution of 1x3x3 with
// one zero around.
PackedConv pack_conv(const at::Tensor& weight, const at::Tensor& bias, const ConvSpec& spec,
                     kernels::Isa isa);

// What a stream keeps of a convolution's input: the frames that the next result looks back at.
struct ConvHistory {
    std::vector<ConvFrame> frames;
    std::int64_t alike = 0;  // the last so many frames of the stream equal each other
    at::Tensor residual;     // [B, O, 1, H, W]: the last one, where Repeats want it
};

// Frames of a clip that equal the one before them bit by bit. They are not in its tensor, which may
// be left without frames, and a result that sees only such frames is not computed: it repeats the
// one before, bit by bit what would have been computed.
struct Repeats {
    std::vector<bool> frames;  // by frame of the clip; empty: none
    bool go_on = false;        // the next clip may begin with one
};

struct ConvStage {
    const PackedConv& conv;
    at::Tensor gamma;  // [C] fp32: the input is normed (channel_rms_norm); undefined: it is not
    bool silu = false;
    ConvHistory* history = nullptr;  // null only where kt is 1
};

struct ConvCall {
    at::Tensor x;         // [B, C, T, H, W] fp32, channels last
    at::Tensor residual;  // as the result, added to it; undefined: none
    at::Tensor out;       // where the result goes, may be x or residual; undefined: a new tensor
    ConvPool* pool = nullptr;
    // x's, and afterwards the result's; the residual's are those of x. null: none. With repeats in
    // x, `out` is not used; they need history for every convolution with kt above 1.
    Repeats* repeats = nullptr;
};

// One convolution, or two in a row, frame by frame, so that what lies between them is never in
// memory but as the words of one frame. -> [B, O, T', H', W'] fp32, channels last. Two in a row
// must keep the number of frames and, the first one, the size.
at::Tensor causal_conv3d_cpu(std::span<const ConvStage> stages, const ConvCall& call);

// Keeps x's frames as history without computing anything.
void carry_cpu(const ConvStage& stage, const ConvCall& call);

// What causal_conv3d_cpu holds, from sizes alone.
struct ConvCpuBytes {
    std::int64_t weight = 0;    // packed
    std::int64_t frame = 0;     // of the words of one frame of x
    std::int64_t products = 0;  // of a frame with all taps, where they are spread
};
ConvCpuBytes conv_cpu_bytes(const ClipShape& x, const ConvSpec& spec, kernels::Isa isa);

}  // namespace zoetrope::ops
