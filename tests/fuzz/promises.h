// What fuzz targets share: a promise that is broken ends the program, an Error is one line.
#pragma once

#include "base/error.h"

#include <cstdlib>
#include <cstring>

namespace zoetrope {

inline void require(bool promise) {
    if (!promise) std::abort();
}

// Of bounded length, whatever the file's names hold.
inline void check_message(const Error& error) {
    require(std::strlen(error.what()) < 4096);
    require(std::strchr(error.what(), '\n') == nullptr);
}

}  // namespace zoetrope
