// A file that torch.save wrote (.pth, .pt, .bin): which tensors it holds and where their numbers
// lie. Knows bytes, no tensors.
//
// Such a file is a zip file without compression: NAME/data.pkl describes the tensors (read by
// pickle.h, which runs nothing), NAME/data/KEY holds the numbers of one storage. Whatever the bytes
// are, parse() either throws Error or gives entries all of whose elements lie inside the file. Pure
// functions, any thread.
#pragma once

#include "weights/safetensors_header.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope::torch_archive {

struct Entry {
    std::string name;
    safetensors::Dtype dtype = safetensors::Dtype::f32;
    std::vector<std::int64_t> shape;
    std::vector<std::int64_t> strides;  // in elements, at least 0
    std::uint64_t begin =
        0;  // of the first element, from the start of the file; 0 without elements
};

// Whether a file that begins like this is one that parse() is for.
bool is_archive(std::span<const std::byte> file);
// Whether it is a pickle without an archive: what torch.save wrote before PyTorch 1.6.
bool is_bare_pickle(std::span<const std::byte> file);

// `file`: the whole file; `source`: its name for messages. Errors: io for everything that is broken
// (naming the tensor where there is one); unsupported for a pickle that asks for more than tensors
// and for big-endian files.
std::vector<Entry> parse(std::span<const std::byte> file, std::string_view source);

// Elements of a shape, and whether strides are those of a row-major tensor.
std::int64_t elements_of(std::span<const std::int64_t> shape);
bool is_contiguous(const Entry& entry);

}  // namespace zoetrope::torch_archive
