// Inside of denoise/: what the DiT's sources share.
#pragma once

#include "ops/linear.h"
#include "weights/params.h"

namespace zoetrope {

// Rows of a block's modulation table: shift, scale and gate of self-attention, then of the
// feed-forward part.
enum Modulation { kShift, kScale, kGate, kFfnShift, kFfnScale, kFfnGate, kModulationRows };

// x: [..., in] in the compute dtype -> [..., out]
inline at::Tensor apply_linear(const at::Tensor& x, const Param& weight, const Param& bias,
                               const Lease& lease, ops::Epilogue epilogue = ops::Epilogue::none) {
    return ops::linear(
        {.x = x, .weight = lease.matrix(weight), .bias = lease[bias], .epilogue = epilogue});
}

}  // namespace zoetrope
