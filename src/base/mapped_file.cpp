#include "base/mapped_file.h"

#include "base/error.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace zoetrope {
namespace {

// Closes the descriptor at the end of the scope; the mapping outlives it.
struct Descriptor {
    int fd;
    ~Descriptor() {
        if (fd >= 0) ::close(fd);
    }
};

void advise(const std::byte* data, std::size_t size, std::size_t offset, std::size_t length,
            int advice) {
    if (offset >= size) return;
    const std::size_t page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const std::size_t begin = offset / page * page;
    const std::size_t end = std::min(size, offset + length);
    ::madvise(const_cast<std::byte*>(data) + begin, end - begin, advice);
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
    const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (file.fd < 0) {
        const int error = errno;
        fail(error == ENOENT ? ErrorKind::not_found : ErrorKind::io, "cannot open {}: {}",
             path.string(), std::strerror(error));
    }
    struct stat status {};
    ZT_CHECK(::fstat(file.fd, &status) == 0, io, "cannot read the size of {}: {}", path.string(),
             std::strerror(errno));
    ZT_CHECK(S_ISREG(status.st_mode), io, "{} is not a regular file", path.string());
    const auto size = static_cast<std::size_t>(status.st_size);
    const std::byte* data = nullptr;
    if (size > 0) {
        void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd, 0);
        ZT_CHECK(mapping != MAP_FAILED, io, "cannot map {}: {}", path.string(),
                 std::strerror(errno));
        data = static_cast<const std::byte*>(mapping);
    }
    return std::shared_ptr<const MappedFile>(new MappedFile(path, data, size));
}

MappedFile::MappedFile(std::filesystem::path path, const std::byte* data, std::size_t size)
    : path_(std::move(path)), data_(data), size_(size) {}

MappedFile::~MappedFile() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::will_need(std::size_t offset, std::size_t length) const {
    advise(data_, size_, offset, length, MADV_WILLNEED);
}

void MappedFile::dont_need(std::size_t offset, std::size_t length) const {
    advise(data_, size_, offset, length, MADV_DONTNEED);
}

}  // namespace zoetrope
