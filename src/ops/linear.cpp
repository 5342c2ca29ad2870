#include "ops/linear.h"

#include "base/error.h"
#include "ops/stats.h"

#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/silu.h>

namespace zoetrope::ops {

at::Tensor linear(const LinearArgs& args) {
    ZT_CHECK(args.weight.layout == MatrixLayout::plain, internal,
             "linear on {}: the weight is packed for another operator", args.x.device().str());
    const at::Tensor& weight = args.weight.data;
    const double rows = static_cast<double>(args.x.numel()) / static_cast<double>(args.x.size(-1));
    const OperatorScope scope("linear", 2.0 * rows * static_cast<double>(weight.numel()));
    at::Tensor out =
        args.bias.defined() ? at::linear(args.x, weight, args.bias) : at::linear(args.x, weight);
    switch (args.epilogue) {
        case Epilogue::none: return out;
        case Epilogue::gelu_tanh: return at::gelu(out, "tanh");
        case Epilogue::gelu_erf: return at::gelu(out, "none");
        case Epilogue::silu: return at::silu(out);
    }
    return out;
}

Matrix pack(const at::Tensor& weight) { return {weight, MatrixLayout::plain}; }

}  // namespace zoetrope::ops
