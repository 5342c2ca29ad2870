// The promises of weights/torch_archive.h, for its two fuzz targets.
#pragma once

#include "promises.h"
#include "weights/torch_archive.h"

#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>

namespace zoetrope {

inline void check_archive(std::span<const std::byte> file) {
    try {
        std::set<std::string> names;
        for (const auto& entry : torch_archive::parse(file, "fuzz")) {
            require(names.insert(entry.name).second);
            require(entry.shape.size() == entry.strides.size());
            std::int64_t bytes = safetensors::bytes_of(entry.dtype);
            std::int64_t last = 0;
            bool empty = false;
            for (std::size_t i = 0; i < entry.shape.size(); ++i) {
                require(entry.shape[i] >= 0 && entry.strides[i] >= 0);
                empty = empty || entry.shape[i] == 0;
            }
            if (empty) continue;
            for (std::size_t i = 0; i < entry.shape.size(); ++i) {
                std::int64_t step = 0;
                // The stride of a single element is never used.
                if (entry.shape[i] > 1) {
                    require(!__builtin_mul_overflow(entry.shape[i] - 1, entry.strides[i], &step));
                }
                require(!__builtin_add_overflow(last, step, &last));
                require(!__builtin_mul_overflow(bytes, entry.shape[i], &bytes));
            }
            const auto size = static_cast<std::int64_t>(file.size());
            const std::int64_t width = safetensors::bytes_of(entry.dtype);
            require(bytes <= size && last < size);
            require(static_cast<std::int64_t>(entry.begin) <= size - (last + 1) * width);
        }
    } catch (const Error& error) {
        check_message(error);
    }
}

}  // namespace zoetrope
