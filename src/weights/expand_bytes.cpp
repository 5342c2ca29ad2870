#include "weights/expand_bytes.h"

#include "base/error.h"
#include "ops/share_out.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cstdint>

namespace zoetrope {
namespace {

using Values = std::array<float, 256>;  // of all bytes

constexpr std::int64_t kPiece = std::int64_t{1} << 18;  // elements, where one scale is for all

Values values_of(at::ScalarType dtype) {
    const at::Tensor bytes = at::arange(256, at::kByte).view(dtype).to(at::kFloat);
    Values values;
    std::copy_n(bytes.const_data_ptr<float>(), values.size(), values.begin());
    return values;
}

template <typename T>
std::array<T, 256> table_of(const Values& values, float scale) {
    std::array<T, 256> table;
    for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<T>(values[i] * scale);
    return table;
}

template <typename T>
void look_up(const std::uint8_t* bytes, std::int64_t count, const std::array<T, 256>& table,
             T* out) {
    for (std::int64_t i = 0; i < count; ++i) out[i] = table[bytes[i]];
}

template <typename T>
void expand(const at::Tensor& tensor, const at::Tensor& scale, at::Tensor& out) {
    const Values values = values_of(tensor.scalar_type());
    const auto* bytes = static_cast<const std::uint8_t*>(tensor.const_data_ptr());
    T* expanded = out.mutable_data_ptr<T>();
    if (!scale.defined() || scale.numel() == 1) {
        const auto table = table_of<T>(values, scale.defined() ? scale.item<float>() : 1.0F);
        ops::parallel_for(0, tensor.numel(), kPiece, [&](std::int64_t begin, std::int64_t end) {
            look_up(bytes + begin, end - begin, table, expanded + begin);
        });
        return;
    }
    const std::int64_t rows = tensor.size(0);
    const std::int64_t columns = rows == 0 ? 0 : tensor.numel() / rows;
    const float* scales = scale.const_data_ptr<float>();
    const std::int64_t grain =
        std::max<std::int64_t>(1, kPiece / std::max<std::int64_t>(columns, 1));
    ops::parallel_for(0, rows, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
            look_up(bytes + row * columns, columns, table_of<T>(values, scales[row]),
                    expanded + row * columns);
        }
    });
}

}  // namespace

at::Tensor expand_bytes(const at::Tensor& tensor, const at::Tensor& scale, at::ScalarType dtype) {
    const bool fits = !scale.defined() || scale.numel() == 1 ||
                      (tensor.dim() > 0 && scale.numel() == tensor.size(0));
    ZT_CHECK(tensor.element_size() == 1 && tensor.is_contiguous() && fits, internal,
             "expand_bytes() takes contiguous 8-bit numbers and a scale for all or for each row");
    at::Tensor out = at::empty(tensor.sizes(), dtype);
    switch (dtype) {
        case at::kFloat: expand<float>(tensor, scale, out); break;
        case at::kBFloat16: expand<at::BFloat16>(tensor, scale, out); break;
        case at::kHalf: expand<at::Half>(tensor, scale, out); break;
        case at::kDouble: expand<double>(tensor, scale, out); break;
        default:
            fail(ErrorKind::internal, "8-bit numbers are not expanded to {}", c10::toString(dtype));
    }
    return out;
}

}  // namespace zoetrope
