// A .safetensors file, written tensor by tensor: only the one that is being written is in memory.
//
// Names, shapes and dtypes are known before, so the header comes first and every tensor has its
// place: they may be written in any order. The file's whole room is taken at the start, so that a
// disk that is too full says so before any work. The file is complete or absent: it is written
// under a hidden name, brought to the disk and renamed. Owns the hidden file. One thread. Errors:
// io with the path and the system's reason.
#pragma once

#include "base/partial_file.h"
#include "weights/source.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace zoetrope {

class SafetensorsWriter {
public:
    // The folder must exist. Of `tensors`, name, shape and dtype are taken. Errors: io for a name
    // that is reserved, not UTF-8 or comes twice; unsupported for a dtype that the format has not.
    SafetensorsWriter(const std::filesystem::path& file, std::span<const TensorInfo> tensors,
                      std::span<const std::pair<std::string, std::string>> metadata = {});
    ~SafetensorsWriter();
    SafetensorsWriter(const SafetensorsWriter&) = delete;
    SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

    // The tensor at that position of `tensors`, once; any device. Errors: internal for another
    // shape or dtype than was announced.
    void write(std::size_t index, const at::Tensor& tensor);
    // The next values of that tensor in the order of memory, of any shape, so that it need not be
    // held. Errors: internal for another dtype, or more values than were announced.
    void append(std::size_t index, const at::Tensor& values);

    // All tensors are written: the file gets its name. Errors: internal where one is missing.
    void finish();

    // Of the whole file.
    std::int64_t bytes() const { return bytes_; }

private:
    struct Place {
        TensorInfo info;
        std::int64_t begin = 0;    // from the start of the file
        std::int64_t written = 0;  // elements
    };

    void open_file();
    void write_at(std::int64_t begin, const void* data, std::size_t size) const;

    std::vector<Place> places_;
    std::int64_t bytes_ = 0;
    PartialFile file_;
    int descriptor_ = -1;
};

}  // namespace zoetrope
