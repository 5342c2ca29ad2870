// Videos side by side in one picture, to be looked at: a row for each, frames from left to right.
//
// Reads files, in memory that does not grow with their length; writes one PNG, complete or absent.
// Any thread. Errors: those of VideoReader and VideoWriter; bad_request for sizes that make no
// picture.
#pragma once

#include <filesystem>
#include <span>

namespace zoetrope {

struct ContactSheetOptions {
    int columns = 8;   // frames of each video, evenly spread from the first to the last
    int height = 128;  // of a frame, pixels; the width follows, that of the widest row
};

void write_contact_sheet(std::span<const std::filesystem::path> videos,
                         const std::filesystem::path& output, const ContactSheetOptions& options);

}  // namespace zoetrope
