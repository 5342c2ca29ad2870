// A pickle of tensors, as torch.save writes it, read without running anything.
//
// A pickle is a program for a stack machine that may call any Python function. This reader knows
// the few operations that build numbers, texts, lists and dicts, and the few functions of PyTorch
// that describe a tensor, which it reads as descriptions. Any other operation or name ends the
// reading with an error, before anything is done with it. There is no recursion, and memory is
// bounded by the pickle's size. Knows no tensors. Pure function, any thread.
#pragma once

#include "weights/safetensors_header.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace zoetrope::pickle {

using safetensors::Dtype;

// Numbers beside the pickle, under a key; tensors are views into them. Texts lie in the pickle.
struct Storage {
    std::string_view key;
    Dtype dtype = Dtype::u8;
    std::int64_t elements = 0;
};

struct Tensor {
    std::string_view name;
    Storage storage;
    Dtype dtype = Dtype::f32;
    std::int64_t offset = 0;  // in elements of dtype
    std::vector<std::int64_t> shape;
    std::vector<std::int64_t> strides;  // as many as dimensions; nothing else is checked here
};

// The tensors of a dict of tensors, in its order; also of a dict inside of it under "state_dict",
// "model" and the like (training programs wrap it so). What else these dicts hold is left out.
// Errors: io for a pickle that is broken; unsupported for an operation or a name that is not known
// here, for dtypes that we do not read, and where there are no tensors.
std::vector<Tensor> parse(std::span<const std::byte> bytes, std::string_view source);

}  // namespace zoetrope::pickle
