// Fuzz target: whatever the bytes of a video file are, it is refused with an Error, or gives frames
// of the size that it says, and a sentence where it ends early.
#include "media/reader.h"
#include "promises.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <string>

namespace {

constexpr int kFrames = 8;  // of a file, at most: what comes behind is alike

// The bytes as a file in memory.
class MemoryFile {
public:
    MemoryFile(const std::uint8_t* data, std::size_t size)
        : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
        zoetrope::require(descriptor_ >= 0);
        while (size > 0) {
            const ssize_t written = ::write(descriptor_, data, size);
            zoetrope::require(written > 0);
            data += written;
            size -= static_cast<std::size_t>(written);
        }
    }
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;
    ~MemoryFile() { ::close(descriptor_); }

    std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

private:
    int descriptor_;
};

void check(zoetrope::VideoReader& reader) {
    using zoetrope::require;
    const zoetrope::MediaInfo& info = reader.info();
    require(info.width > 0 && info.height > 0);
    require(std::isfinite(info.fps) && info.fps >= 0);
    require(std::isfinite(info.seconds) && std::isfinite(info.pixel_aspect));
    for (int i = 0; i < kFrames; ++i) {
        const auto next = reader.read();
        if (!next) {
            require(reader.damage().size() < 4096);
            return;
        }
        require(next->frame.width == info.width && next->frame.height == info.height);
        require(next->frame.rgb.size() ==
                3 * static_cast<std::size_t>(info.width) * static_cast<std::size_t>(info.height));
        require(std::isfinite(next->seconds));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const MemoryFile file(data, size);
    try {
        zoetrope::VideoReader reader(file.path());
        check(reader);
    } catch (const zoetrope::Error& error) {
        zoetrope::check_message(error);
        zoetrope::require(error.kind() != zoetrope::ErrorKind::internal);
    }
    return 0;
}
