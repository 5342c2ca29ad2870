#include "media/picture.h"

#include "base/mapped_file.h"
#include "media/reader.h"

#include <utility>

namespace zoetrope {

Frame load_picture(const std::filesystem::path& path, const PictureLimits& limits) {
    const auto file = MappedFile::open(path);
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(file->bytes().data());
    std::optional<Frame> picture =
        decode_picture({bytes, file->bytes().size()}, path.string(), limits);
    return picture ? std::move(*picture) : read_picture(path);
}

}  // namespace zoetrope
