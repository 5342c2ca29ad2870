// Fuzz target: whatever the bytes of a picture are, they are refused with an Error or give as many
// pixels as the frame says.
#include "base/error.h"
#include "media/picture.h"

#include <cstdlib>
#include <cstring>

namespace {

void require(bool promise) {
    if (!promise) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    constexpr zoetrope::PictureLimits kLimits{.pixels = 1 << 16};
    try {
        if (const auto frame = zoetrope::decode_picture({data, size}, "fuzz", kLimits)) {
            require(frame->width > 0 && frame->height > 0);
            require(frame->rgb.size() == 3 * static_cast<std::size_t>(frame->width) *
                                             static_cast<std::size_t>(frame->height));
        }
    } catch (const zoetrope::Error& error) {
        require(std::strlen(error.what()) < 4096);
        require(std::strchr(error.what(), '\n') == nullptr);
        require(error.kind() != zoetrope::ErrorKind::internal);
    }
    return 0;
}
