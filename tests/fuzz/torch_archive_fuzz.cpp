// Fuzz target: whatever the bytes of a .pth file are, it is refused with an Error or read into
// entries that keep the promises of weights/torch_archive.h.
#include "torch_archive_checks.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    zoetrope::check_archive(std::as_bytes(std::span(data, size)));
    return 0;
}
