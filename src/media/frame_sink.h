// Where a VideoWriter sends its frames: a container file or PNG files. Inside media only.
//
// A sink owns its hidden files and removes them unless finish() published them. One thread.
#pragma once

#include "base/frames.h"
#include "media/formats.h"
#include "media/writer.h"

#include <filesystem>
#include <memory>
#include <vector>

namespace zoetrope {

class FrameSink {
public:
    virtual ~FrameSink() = default;
    virtual void write(const Frame& frame) = 0;  // sizes are checked by the caller
    virtual std::vector<std::filesystem::path> finish() = 0;
};

std::unique_ptr<FrameSink> make_container_sink(const std::filesystem::path& path,
                                               const VideoFormat& format,
                                               const WriteOptions& options);

std::unique_ptr<FrameSink> make_png_sink(const std::filesystem::path& path,
                                         const WriteOptions& options);

}  // namespace zoetrope
