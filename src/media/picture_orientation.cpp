// How a camera says which side of a picture is up: EXIF's tag 274, or its copy in XMP.
#include "media/picture_codecs.h"

#include <cstddef>
#include <optional>

namespace zoetrope::picture {
namespace {

using Bytes = std::span<const std::uint8_t>;

constexpr std::uint32_t kOrientationTag = 274;

// A TIFF stream's integers, within its bounds.
class Tiff {
public:
    explicit Tiff(Bytes bytes) : bytes_(bytes), little_(!bytes.empty() && bytes[0] == 'I') {}

    std::optional<std::uint32_t> number(std::size_t at, std::size_t size) const {
        if (at > bytes_.size() || size > bytes_.size() - at) return std::nullopt;
        std::uint32_t value = 0;
        for (std::size_t i = 0; i < size; ++i) {
            value = value << 8 | bytes_[little_ ? at + size - 1 - i : at + i];
        }
        return value;
    }

private:
    Bytes bytes_;
    bool little_;
};

bool is_tiff(Bytes bytes) {
    if (bytes.size() < 8) return false;
    const bool order = (bytes[0] == 'I' || bytes[0] == 'M') && bytes[1] == bytes[0];
    return order && bytes[2] + bytes[3] == 42 && (bytes[2] == 0 || bytes[3] == 0);
}

// The last entry of the tag in the first directory; nothing where it is not there or no integer.
std::optional<int> exif_orientation(Bytes exif) {
    constexpr std::string_view kPrefix("Exif\0\0", 6);
    constexpr std::size_t kEntryBytes = 12;
    for (int i = 0; i < 2; ++i) {
        const std::string_view text(reinterpret_cast<const char*>(exif.data()), exif.size());
        if (text.starts_with(kPrefix)) exif = exif.subspan(kPrefix.size());
    }
    if (!is_tiff(exif)) return std::nullopt;
    const Tiff tiff(exif);
    const std::size_t directory = tiff.number(4, 4).value_or(0);
    const std::size_t entries = tiff.number(directory, 2).value_or(0);
    std::optional<int> orientation;
    for (std::size_t i = 0; i < entries; ++i) {
        const std::size_t entry = directory + 2 + i * kEntryBytes;
        if (tiff.number(entry, 2) != kOrientationTag || !tiff.number(entry + 8, 4)) continue;
        const std::uint32_t type = tiff.number(entry + 2, 2).value_or(0);
        const std::uint32_t count = tiff.number(entry + 4, 4).value_or(0);
        const bool is_short = type == 3 || type == 8, is_long = type == 4 || type == 9;
        if (count == 0 || !(is_short || is_long)) continue;
        const std::uint32_t in_entry = is_short ? 2 : 1;  // that many fit into its last four bytes
        const std::size_t at = count > in_entry ? tiff.number(entry + 8, 4).value_or(0) : entry + 8;
        if (const auto value = tiff.number(at, is_short ? 2 : 4)) {
            orientation = *value <= 8 ? static_cast<int>(*value) : 1;
        }
    }
    return orientation;
}

std::optional<int> xmp_orientation(std::string_view xmp) {
    constexpr std::string_view kName = "tiff:Orientation";
    for (std::size_t at = xmp.find(kName); at != xmp.npos; at = xmp.find(kName, at + 1)) {
        std::string_view rest = xmp.substr(at + kName.size());
        if (rest.starts_with("=\"")) {
            rest.remove_prefix(2);
        } else if (rest.starts_with('>')) {
            rest.remove_prefix(1);
        } else {
            continue;
        }
        if (!rest.empty() && rest[0] >= '0' && rest[0] <= '9') return rest[0] - '0';
    }
    return std::nullopt;
}

}  // namespace

int orientation_of(std::span<const std::uint8_t> exif, std::string_view xmp) {
    if (const auto orientation = exif_orientation(exif)) return *orientation;
    return xmp_orientation(xmp).value_or(1);
}

}  // namespace zoetrope::picture
