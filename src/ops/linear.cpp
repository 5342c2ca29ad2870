#include "ops/linear.h"

#include "base/error.h"
#include "ops/linear_cpu.h"
#include "ops/norm.h"
#include "ops/stats.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>

namespace zoetrope::ops {
namespace {

// Elements of a weight that are widened at a time: 16 MiB in float32.
constexpr std::int64_t kWidenedElements = std::int64_t{1} << 22;

// A linear layer in `dtype` over weights of a lower precision, widened part by part.
at::Tensor linear_by_parts(const at::Tensor& x, const Matrix& weight, const at::Tensor& bias,
                           at::ScalarType dtype) {
    const std::int64_t rows = weight.data.size(0);
    const std::int64_t step = std::max<std::int64_t>(1, kWidenedElements / weight.data.size(1));
    std::vector<at::Tensor> parts;
    for (std::int64_t first = 0; first < rows; first += step) {
        const std::int64_t count = std::min(step, rows - first);
        at::Tensor part = weight.data.narrow(0, first, count);
        part = weight.factors.defined()
                   ? (part.to(at::kFloat) * weight.factors.narrow(0, first, count).unsqueeze(1))
                         .to(dtype)
                   : part.to(dtype);
        parts.push_back(bias.defined() ? at::linear(x, part, bias.narrow(0, first, count))
                                       : at::linear(x, part));
    }
    return parts.size() == 1 ? parts[0] : at::cat(parts, -1);
}

void apply_epilogue(Epilogue epilogue, at::Tensor& out) {
    switch (epilogue) {
        case Epilogue::none: break;
        case Epilogue::gelu_tanh: activate(out, kernels::Activation::gelu_tanh, out); break;
        case Epilogue::gelu_erf: at::gelu_(out, "none"); break;
        case Epilogue::silu: activate(out, kernels::Activation::silu, out); break;
    }
}

// Whether LibTorch's own product is as good as ours: with AMX, that of a plain matrix.
bool left_to_onednn(const Matrix& weight, kernels::Isa isa) {
    return isa == kernels::Isa::amx && weight.layout == MatrixLayout::plain &&
           !weight.low_rank.defined();
}

// The matrix alone, then (x down^T) up^T added to it in place, then the epilogue.
at::Tensor linear_then_low_rank(const LinearArgs& args) {
    const LowRank& low = args.weight.low_rank;
    LinearArgs base = args;
    base.weight.low_rank = {};
    base.epilogue = Epilogue::none;
    at::Tensor out = linear(base);
    const at::Tensor hidden = linear({.x = args.x, .weight = {low.down}});
    const OperatorScope scope("linear_low_rank", 2.0 * static_cast<double>(out.numel()) *
                                                     static_cast<double>(low.up.size(1)));
    out.view({-1, out.size(-1)}).addmm_(hidden.view({-1, low.up.size(1)}), low.up.t());
    apply_epilogue(args.epilogue, out);
    return out;
}

}  // namespace

at::Tensor linear(const LinearArgs& args) {
    ZT_CHECK(!args.out.defined() || args.out.is_contiguous(), internal, "linear: out has gaps");
    const double rows = static_cast<double>(args.x.numel()) / static_cast<double>(args.x.size(-1));
    ZT_CHECK(args.x.size(-1) == args.weight.in_features(), internal,
             "linear: {} channels by a weight of [{}, {}]", args.x.size(-1),
             args.weight.out_features(), args.weight.in_features());
    const bool int8 = args.weight.layout == MatrixLayout::int8;
    const kernels::Isa isa = linear_cpu_isa(args.weight);
    const bool own = !left_to_onednn(args.weight, isa) && linear_cpu_takes(args, isa);
    if (args.weight.low_rank.defined() && !own) return linear_then_low_rank(args);
    const OperatorScope scope(int8 ? "linear_int8" : "linear",
                              2.0 * rows * static_cast<double>(args.weight.out_features()) *
                                  static_cast<double>(args.weight.in_features()));
    if (own) return linear_cpu(args, isa);
    ZT_CHECK(!int8, internal, "linear on {}: the weight is packed for another operator",
             args.x.device().str());
    const bool narrow = args.weight.layout == MatrixLayout::int8_rows;
    at::Tensor out = narrow ? linear_by_parts(args.x, args.weight, args.bias, args.x.scalar_type())
                     : args.bias.defined() ? at::linear(args.x, args.weight.data, args.bias)
                                           : at::linear(args.x, args.weight.data);
    apply_epilogue(args.epilogue, out);
    return args.out.defined() ? args.out.copy_(out.view(args.out.sizes())) : out;
}

at::Tensor linear_fp32(const at::Tensor& x, const Matrix& weight, const at::Tensor& bias) {
    ZT_CHECK(weight.layout == MatrixLayout::plain && !weight.low_rank.defined(), internal,
             "linear_fp32: the weight is packed, or has an addition");
    const at::Tensor wide_bias = bias.to(at::kFloat);
    if (weight.data.scalar_type() == at::kFloat) return at::linear(x, weight.data, wide_bias);
    const OperatorScope scope("linear_fp32");
    return linear_by_parts(x, weight, wide_bias, at::kFloat);
}

std::int64_t Matrix::bytes() const {
    std::int64_t sum = 0;
    for (const at::Tensor& part : {data, factors, sums}) {
        if (part.defined()) sum += static_cast<std::int64_t>(part.nbytes());
    }
    return sum;
}

}  // namespace zoetrope::ops
