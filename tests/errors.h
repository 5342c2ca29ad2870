// What a call throws, for tests of messages and kinds.
#pragma once

#include "base/error.h"

#include <string>
#include <utility>

namespace zoetrope {

// Kind and message of the Error that the call throws; internal and "nothing was thrown" without
// one.
template <typename Call>
std::pair<ErrorKind, std::string> error_of(const Call& call) {
    try {
        call();
    } catch (const Error& error) {
        return {error.kind(), error.what()};
    }
    return {ErrorKind::internal, "nothing was thrown"};
}

}  // namespace zoetrope
