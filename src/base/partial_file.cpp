#include "base/partial_file.h"

#include "base/error.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxStem = 180;  // bytes of the name that are kept: file systems allow 255

fs::path folder_of(const fs::path& file) {
    return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

// A name in the target's folder that no file has; make(): creates it, false with errno where it
// cannot.
template <typename Make>
fs::path make_hidden(const fs::path& target, const Make& make) {
    const std::string stem = target.filename().string().substr(0, kMaxStem);
    for (int n = 0;; ++n) {
        fs::path path = folder_of(target) / fmt::format(".{}.partial-{}-{}", stem, ::getpid(), n);
        if (make(path)) return path;
        ZT_CHECK(errno == EEXIST, io, "cannot write '{}': {}", target.string(),
                 std::strerror(errno));
    }
}

void rename_to(const fs::path& from, const fs::path& to) {
    ZT_CHECK(::rename(from.c_str(), to.c_str()) == 0, io, "cannot write '{}': {}", to.string(),
             std::strerror(errno));
}

// Opens, calls fsync, closes. Some file systems cannot sync a folder and say EINVAL.
void sync(const fs::path& path, int flags) {
    const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC);
    ZT_CHECK(descriptor >= 0, io, "cannot open '{}': {}", path.string(), std::strerror(errno));
    const int result = ::fsync(descriptor);
    const int reason = errno;
    ::close(descriptor);
    ZT_CHECK(result == 0 || reason == EINVAL, io, "cannot write '{}' to the disk: {}",
             path.string(), std::strerror(reason));
}

}  // namespace

ParentFolders::ParentFolders(const fs::path& file) {
    std::error_code error;
    fs::path folder = folder_of(fs::absolute(file));
    std::vector<fs::path> missing;  // innermost first
    while (!fs::exists(folder, error) && folder.has_relative_path()) {
        missing.push_back(folder);
        folder = folder.parent_path();
    }
    for (auto next = missing.rbegin(); next != missing.rend(); ++next) {
        if (next->filename().empty()) continue;  // a doubled or trailing slash
        const bool made = fs::create_directory(*next, error);
        if (error) {
            const std::string reason = error.message();
            remove_empty();
            fail(ErrorKind::io, "cannot create the folder '{}': {}", next->string(), reason);
        }
        if (made) created_.push_back(*next);
    }
}

void ParentFolders::remove_empty() {
    for (auto folder = created_.rbegin(); folder != created_.rend(); ++folder) {
        std::error_code error;
        fs::remove(*folder, error);  // fails where it is not empty, which is as wanted
    }
}

PartialFile::PartialFile(fs::path target) {
    rename_target(std::move(target));
    path_ = make_hidden(target_, [](const fs::path& path) {
        const int descriptor = ::open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
        if (descriptor >= 0) ::close(descriptor);
        return descriptor >= 0;
    });
}

PartialFile::~PartialFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
}

void PartialFile::rename_target(fs::path target) {
    std::error_code error;
    ZT_CHECK(!fs::is_directory(target, error), io, "cannot write '{}': it is a folder",
             target.string());
    target_ = std::move(target);
}

void PartialFile::publish() {
    sync(path_, O_RDONLY);
    rename_to(path_, target_);
    path_.clear();
}

PartialFolder::PartialFolder(fs::path target) : target_(std::move(target)) {
    if (!target_.has_filename()) target_ = target_.parent_path();  // a trailing slash
    path_ =
        make_hidden(target_, [](const fs::path& path) { return ::mkdir(path.c_str(), 0777) == 0; });
}

PartialFolder::~PartialFolder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
}

void PartialFolder::publish() {
    for (const auto& entry : fs::recursive_directory_iterator(path_))
        sync(entry.path(), entry.is_directory() ? O_RDONLY | O_DIRECTORY : O_RDONLY);
    sync(path_, O_RDONLY | O_DIRECTORY);
    rename_to(path_, target_);
    path_.clear();
    sync_folder_of(target_);
}

void sync_folder_of(const fs::path& file) { sync(folder_of(file), O_RDONLY | O_DIRECTORY); }

}  // namespace zoetrope
