// A file's bytes for FFmpeg, which never sees a file name: neither an ending nor a protocol in the
// name means anything, and playlists and references reach no other file. Inside media only.
//
// Owns the open file. One thread. Errors: not_found, io, out_of_memory.
#pragma once

#include "media/ffmpeg.h"

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>

namespace zoetrope::ffmpeg {

class InputBytes {
public:
    explicit InputBytes(const std::filesystem::path& path);
    ~InputBytes();
    InputBytes(const InputBytes&) = delete;
    InputBytes& operator=(const InputBytes&) = delete;

    AVIOContext* context() { return context_; }

    // The last one that is not padding with zeros; 0 where there is none.
    int last_byte() const;

private:
    static int read(void* self, std::uint8_t* buffer, int size);
    static std::int64_t seek(void* self, std::int64_t offset, int whence);

    std::FILE* file_;
    std::int64_t size_ = 0;
    AVIOContext* context_ = nullptr;
};

// Opens the container in those bytes, which must outlive it. doing: the beginning of a message.
InputContext open_input(InputBytes& bytes, const std::string& doing);

}  // namespace zoetrope::ffmpeg
