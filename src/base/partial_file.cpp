#include "base/partial_file.h"

#include "base/error.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <optional>
#include <utility>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxStem = 180;  // bytes of the name that are kept: file systems allow 255

fs::path folder_of(const fs::path& file) {
    return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

constexpr std::string_view kMark = ".partial-";

// This process among those that may write into the same folder: the machine and its table of
// processes (a container has its own) in eight digits, and the number there.
const std::string& machine_tag() {
    static const std::string tag = [] {
        std::array<char, 256> host{};
        if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
        std::error_code error;
        const std::string place =
            std::string(host.data()) + fs::read_symlink("/proc/self/ns/pid", error).string();
        std::uint32_t hash = 2166136261U;  // FNV-1a
        for (const char c : place) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
        return fmt::format("{:08x}", hash);
    }();
    return tag;
}

// A name in the target's folder that no file has. make(path): creates it; false with errno where it
// cannot.
template <typename Make>
fs::path make_hidden(const fs::path& target, const Make& make) {
    const std::string stem = target.filename().string().substr(0, kMaxStem);
    for (int n = 0;; ++n) {
        fs::path path = folder_of(target) /
                        fmt::format(".{}{}{}-{}-{}", stem, kMark, machine_tag(), ::getpid(), n);
        if (make(path)) return path;
        ZT_CHECK(errno == EEXIST, io, "cannot write '{}': {}", target.string(),
                 std::strerror(errno));
    }
}

void rename_to(const fs::path& from, const fs::path& to) {
    ZT_CHECK(::rename(from.c_str(), to.c_str()) == 0, io, "cannot write '{}': {}", to.string(),
             std::strerror(errno));
}

// /dev/stdout, a named pipe: what a rename would take away.
bool is_device(const fs::path& path) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    return fs::exists(status) && !fs::is_regular_file(status) && !fs::is_directory(status);
}

bool all_digits(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(),
                                        [](unsigned char c) { return std::isdigit(c) != 0; });
}

// Whether `name` is that of a hidden file of the target, or of "<stem>_00012<ending>" for it, whose
// process is no more.
bool is_stale(std::string_view name, const fs::path& target) {
    const std::string& tag = machine_tag();
    const std::size_t mark = name.rfind(kMark);
    if (!is_partial(name)) return false;
    const std::string_view of = name.substr(1, mark - 1);
    const std::string whole = target.filename().string().substr(0, kMaxStem);
    const std::string stem = target.stem().string() + "_", ending = target.extension().string();
    const bool numbered =
        of.size() > stem.size() + ending.size() && of.starts_with(stem) && of.ends_with(ending) &&
        all_digits(of.substr(stem.size(), of.size() - stem.size() - ending.size()));
    if (of != whole && !numbered) return false;
    std::string_view owner = name.substr(mark + kMark.size());  // <tag>-<process>-<n>
    if (!owner.starts_with(tag) || owner.size() <= tag.size() + 1) return false;
    owner.remove_prefix(tag.size() + 1);
    const std::size_t dash = owner.find('-');
    if (dash == std::string_view::npos || !all_digits(owner.substr(dash + 1))) return false;
    ::pid_t process = 0;
    const auto [end, error] = std::from_chars(owner.data(), owner.data() + dash, process);
    if (error != std::errc() || end != owner.data() + dash || process <= 0) return false;
    return ::kill(process, 0) != 0 && errno == ESRCH;
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

bool is_partial(std::string_view name) {
    const std::size_t mark = name.rfind(kMark);
    return name.starts_with('.') && mark != std::string_view::npos && mark > 0;
}

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
    ZT_CHECK(!is_device(target), io,
             "cannot write '{}': it is a device or a pipe, and a file is wanted", target.string());
    target_ = std::move(target);
}

void PartialFile::publish() {
    sync(path_, O_RDONLY);
    rename_to(path_, target_);
    path_.clear();
}

void write_whole_file(const fs::path& path, std::string_view text) {
    std::optional<PartialFile> file;
    if (!is_device(path)) file.emplace(path);
    errno = 0;
    std::ofstream out(file ? file->path() : path, std::ios::binary);
    out << text;
    out.close();
    ZT_CHECK(out.good(), io, "cannot write '{}': {}", path.string(), std::strerror(errno));
    if (file) file->publish();
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

void remove_stale(const fs::path& target) {
    std::error_code error;
    std::vector<fs::path> stale;
    for (fs::directory_iterator entry(folder_of(target), error), end; !error && entry != end;
         entry.increment(error)) {
        struct ::stat status {};
        if (is_stale(entry->path().filename().string(), target) &&
            ::lstat(entry->path().c_str(), &status) == 0 && status.st_uid == ::geteuid())
            stale.push_back(entry->path());
    }
    for (const fs::path& path : stale) fs::remove_all(path, error);
}

void sync_folder_of(const fs::path& file) { sync(folder_of(file), O_RDONLY | O_DIRECTORY); }

}  // namespace zoetrope
