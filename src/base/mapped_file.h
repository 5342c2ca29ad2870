// A file mapped read-only into memory. Pages come from the page cache as they are touched; nothing
// is copied.
//
// Owns the mapping; shared by the tensors that point into it (std::shared_ptr). Immutable, so any
// thread may read.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

namespace zoetrope {

class MappedFile {
public:
    // Errors: not_found where there is no such file, io where it cannot be opened or mapped (a
    // folder, say). An empty file gives an empty span.
    static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);

    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    ~MappedFile();

    std::span<const std::byte> bytes() const { return {data_, size_}; }
    const std::filesystem::path& path() const { return path_; }

    // Tells the kernel that [offset, offset + length) will be read soon, or is not needed any more.
    void will_need(std::size_t offset, std::size_t length) const;
    void dont_need(std::size_t offset, std::size_t length) const;

private:
    MappedFile(std::filesystem::path path, const std::byte* data, std::size_t size);

    std::filesystem::path path_;
    const std::byte* data_;
    std::size_t size_;
};

}  // namespace zoetrope
