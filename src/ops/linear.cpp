#include "ops/linear.h"

#include "base/error.h"
#include "ops/linear_cpu.h"
#include "ops/stats.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/silu.h>

namespace zoetrope::ops {
namespace {

// Elements of a weight that linear_fp32 widens at a time: 16 MiB in float32.
constexpr std::int64_t kWidenedElements = std::int64_t{1} << 22;

}  // namespace

at::Tensor linear(const LinearArgs& args) {
    const double rows = static_cast<double>(args.x.numel()) / static_cast<double>(args.x.size(-1));
    ZT_CHECK(args.x.size(-1) == args.weight.in_features(), internal,
             "linear: {} channels by a weight of [{}, {}]", args.x.size(-1),
             args.weight.out_features(), args.weight.in_features());
    const bool int8 = args.weight.layout == MatrixLayout::int8;
    const OperatorScope scope(int8 ? "linear_int8" : "linear",
                              2.0 * rows * static_cast<double>(args.weight.out_features()) *
                                  static_cast<double>(args.weight.in_features()));
    const kernels::Isa isa = int8 ? kernels::isa() : linear_cpu_isa();
    if (linear_cpu_takes(args, isa)) return linear_cpu(args, isa);
    ZT_CHECK(!int8, internal, "linear on {}: the weight is packed for another operator",
             args.x.device().str());
    const at::Tensor& weight = args.weight.data;
    at::Tensor out =
        args.bias.defined() ? at::linear(args.x, weight, args.bias) : at::linear(args.x, weight);
    switch (args.epilogue) {
        case Epilogue::none: return out;
        case Epilogue::gelu_tanh: return at::gelu_(out, "tanh");
        case Epilogue::gelu_erf: return at::gelu_(out, "none");
        case Epilogue::silu: return at::silu_(out);
    }
    return out;
}

at::Tensor linear_fp32(const at::Tensor& x, const Matrix& weight, const at::Tensor& bias) {
    ZT_CHECK(weight.layout == MatrixLayout::plain, internal, "linear_fp32: the weight is packed");
    const at::Tensor wide_bias = bias.to(at::kFloat);
    if (weight.data.scalar_type() == at::kFloat) return at::linear(x, weight.data, wide_bias);
    const OperatorScope scope("linear_fp32");
    const std::int64_t rows = weight.data.size(0);
    const std::int64_t step = std::max<std::int64_t>(1, kWidenedElements / weight.data.size(1));
    std::vector<at::Tensor> parts;
    for (std::int64_t first = 0; first < rows; first += step) {
        const std::int64_t count = std::min(step, rows - first);
        parts.push_back(at::linear(x, weight.data.narrow(0, first, count).to(at::kFloat),
                                   wide_bias.narrow(0, first, count)));
    }
    return parts.size() == 1 ? parts[0] : at::cat(parts, -1);
}

}  // namespace zoetrope::ops
