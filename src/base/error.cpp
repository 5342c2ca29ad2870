#include "base/error.h"

namespace zoetrope {

std::string_view name_of(ErrorKind kind) {
    switch (kind) {
        case ErrorKind::bad_request: return "bad_request";
        case ErrorKind::not_found: return "not_found";
        case ErrorKind::unsupported: return "unsupported";
        case ErrorKind::io: return "io";
        case ErrorKind::out_of_memory: return "out_of_memory";
        case ErrorKind::cancelled: return "cancelled";
        case ErrorKind::internal: return "internal";
    }
    return "unknown";
}

}  // namespace zoetrope
