#include "net/pull.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstring>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "base/sizes.h"
#include "net/content_hash.h"
#include "net/hub.h"
#include "net/hub_cache.h"

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMebibyte = 1 << 20;

// A file descriptor that is closed at the end.
class Descriptor {
public:
    Descriptor(const fs::path& path, int flags)
        : number_(::open(path.c_str(), flags | O_CLOEXEC, 0666)), path_(path) {
        ZT_CHECK(number_ >= 0, io, "cannot open '{}': {}", path.string(), std::strerror(errno));
    }
    ~Descriptor() { ::close(number_); }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;

    int number() const { return number_; }
    std::int64_t size() const { return ::lseek(number_, 0, SEEK_END); }
    void cut(std::int64_t size) const { check(::ftruncate(number_, size) == 0); }
    void sync() const { check(::fsync(number_) == 0 || errno == EINVAL); }

    void append(std::string_view bytes) const {
        ::lseek(number_, 0, SEEK_END);
        while (!bytes.empty()) {
            const ssize_t written = ::write(number_, bytes.data(), bytes.size());
            if (written < 0 && errno == EINTR) continue;
            check(written > 0);
            bytes.remove_prefix(static_cast<std::size_t>(written));
        }
    }
    // Calls `piece` with everything from the beginning.
    template <typename Piece>
    void read_all(Piece&& piece) const {
        std::vector<char> buffer(kMebibyte);
        ::lseek(number_, 0, SEEK_SET);
        while (true) {
            const ssize_t count = ::read(number_, buffer.data(), buffer.size());
            if (count < 0 && errno == EINTR) continue;
            check(count >= 0);
            if (count == 0) return;
            piece(std::string_view(buffer.data(), static_cast<std::size_t>(count)));
        }
    }

private:
    void check(bool well) const {
        ZT_CHECK(well, io, "cannot write '{}': {}", path_.string(), std::strerror(errno));
    }
    int number_;
    fs::path path_;
};

void make_folder(const fs::path& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    ZT_CHECK(!error, io, "cannot create the folder '{}': {}", folder.string(), error.message());
}

// A name beside `path` that no other process uses.
fs::path beside(const fs::path& path) {
    return path.parent_path() / fmt::format(".{}.{}", path.filename().string(), ::getpid());
}

// huggingface_hub's own locks: flock on .locks/<repository>/<digest>.lock.
class BlobLock {
public:
    BlobLock(const fs::path& repository, const std::string& digest, const RunControl& control)
        : file_(open_lock(repository, digest)) {
        bool told = false;
        while (::flock(file_.number(), LOCK_EX | LOCK_NB) != 0) {
            if (errno != EWOULDBLOCK && errno != EINTR) return;  // a file system without locks
            if (!told) log::info("waiting for another program that downloads the same file");
            told = true;
            control.throw_if_stopped();
            std::this_thread::sleep_for(std::chrono::milliseconds(200));
        }
    }

private:
    static Descriptor open_lock(const fs::path& repository, const std::string& digest) {
        const fs::path folder = repository.parent_path() / ".locks" / repository.filename();
        make_folder(folder);
        return {folder / (digest + ".lock"), O_RDWR | O_CREAT};
    }
    Descriptor file_;
};

bool matches(const std::vector<std::string>& patterns, const std::string& path) {
    return std::ranges::any_of(patterns, [&path](const std::string& pattern) {
        const std::string whole = pattern.ends_with('/') ? pattern + "*" : pattern;
        return ::fnmatch(whole.c_str(), path.c_str(), 0) == 0;
    });
}

// Progress in bytes, told in MiB a few times a second.
class Meter {
public:
    Meter(const RunControl& control, std::int64_t bytes) : control_(control), bytes_(bytes) {
        tell(true);
    }
    // over_network: whether they count for the pace
    void add(std::int64_t bytes, bool over_network) {
        done_ += bytes;
        if (over_network) downloaded_ += bytes;
        tell(false);
    }
    void finish() { tell(true); }
    std::int64_t downloaded() const { return downloaded_; }

private:
    using Clock = std::chrono::steady_clock;
    static int mebibytes(std::int64_t bytes) {
        return static_cast<int>(
            std::min<std::int64_t>((bytes + kMebibyte - 1) / kMebibyte, INT_MAX));
    }
    void tell(bool always) {
        const auto now = Clock::now();
        if (!always && now - told_ < std::chrono::milliseconds(100)) return;
        told_ = now;
        Progress progress{.stage = Stage::download,
                          .step = static_cast<int>(done_ / kMebibyte),
                          .steps = std::max(mebibytes(bytes_), 1)};
        if (done_ >= bytes_) progress.step = progress.steps;
        if (progress.step == progress.steps && !always) return;  // told once, at the end
        progress.seconds = std::chrono::duration<double>(now - start_).count();
        if (downloaded_ > 0) {
            progress.predicted_seconds_left = progress.seconds / static_cast<double>(downloaded_) *
                                              static_cast<double>(bytes_ - done_);
        }
        control_.report(progress);
    }

    const RunControl& control_;
    std::int64_t bytes_, done_ = 0, downloaded_ = 0;
    Clock::time_point start_ = Clock::now(), told_{};
};

class Download {
public:
    Download(const PullOptions& options, const RunControl& control)
        : options_(options),
          control_(control),
          hub_(hub_settings(), options.retries, control.stop),
          repository_(repository_folder(options.repository)),
          blobs_(repository_ / "blobs") {}

    PullResult run();

private:
    fs::path blob_of(const HubFile& file) const { return blobs_ / file.digest; }
    fs::path partial_of(const HubFile& file) const {
        return blobs_ / (file.digest + ".incomplete");
    }
    bool is_here(const HubFile& file) const;
    std::vector<HubFile> choose(const HubRevision& found) const;
    // Those that are not here, each content once.
    std::vector<HubFile> missing_of(const std::vector<HubFile>& files) const;
    void check_space(const std::vector<HubFile>& missing) const;
    void bring(const HubFile& file, const std::string& commit, Meter& meter);
    // Appends to the partial file until all of it is there -> its digest.
    std::string complete(const HubFile& file, const std::string& commit, Meter& meter);
    void link(const HubFile& file, const fs::path& snapshot) const;
    void write_ref(const std::string& commit) const;

    const PullOptions& options_;
    const RunControl& control_;
    HubClient hub_;
    fs::path repository_, blobs_;
};

bool Download::is_here(const HubFile& file) const {
    std::error_code error;
    const auto size = fs::file_size(blob_of(file), error);
    return !error && size == static_cast<std::uintmax_t>(file.size);
}

std::vector<HubFile> Download::choose(const HubRevision& found) const {
    std::vector<HubFile> files;
    for (const HubFile& file : found.files) {
        if (!options_.include.empty() && !matches(options_.include, file.path)) continue;
        if (!matches(options_.exclude, file.path)) files.push_back(file);
    }
    ZT_CHECK(!files.empty(), not_found,
             "{} has {} files at revision '{}', and --include and --exclude leave none of them",
             options_.repository, found.files.size(), options_.revision);
    return files;
}

std::vector<HubFile> Download::missing_of(const std::vector<HubFile>& files) const {
    std::vector<HubFile> missing;
    std::set<std::string> digests;
    for (const HubFile& file : files) {
        if (!is_here(file) && digests.insert(file.digest).second) missing.push_back(file);
    }
    return missing;
}

void Download::check_space(const std::vector<HubFile>& missing) const {
    std::int64_t bytes = 0;
    for (const HubFile& file : missing) {
        std::error_code error;
        const auto partial = fs::file_size(partial_of(file), error);
        bytes += file.size - (error ? 0 : std::min(static_cast<std::int64_t>(partial), file.size));
    }
    std::error_code error;
    const fs::space_info space = fs::space(blobs_, error);
    ZT_CHECK(error || static_cast<std::uintmax_t>(bytes) <= space.available, io,
             "{} has {} to download and the disk under {} has {} free: make room, or set "
             "HF_HUB_CACHE to a folder on another one",
             options_.repository, format_bytes(bytes), blobs_.string(),
             format_bytes(static_cast<std::int64_t>(space.available)));
}

std::string Download::complete(const HubFile& file, const std::string& commit, Meter& meter) {
    const auto new_hash = [&file] {
        return file.large ? ContentHash::sha256() : ContentHash::git_blob(file.size);
    };
    const Descriptor partial(partial_of(file), O_RDWR | O_CREAT);
    ContentHash hash = new_hash();
    std::int64_t have = 0;
    const auto start_over = [&] {
        partial.cut(0);
        hash = new_hash();
        meter.add(-have, false);
        have = 0;
    };
    if (partial.size() > file.size) partial.cut(0);  // of another time: not the same content
    partial.read_all([&](std::string_view bytes) {
        control_.throw_if_stopped();
        hash.update(bytes);
        have += static_cast<std::int64_t>(bytes.size());
        meter.add(static_cast<std::int64_t>(bytes.size()), false);
    });

    Patience patience(options_.retries, control_.stop);
    std::int64_t furthest = have;  // a server that always breaks off at the same byte ends this
    while (have < file.size) {
        const HttpResponse response = hub_.fetch(
            options_.repository, commit, file, have,
            [&](const HttpResponse& head) {
                // A server that knows no ranges sends everything again.
                const std::string range = fmt::format("bytes {}-", have);
                const bool goes_on =
                    head.status == 206 && head.field("content-range").starts_with(range);
                if (have > 0 && !goes_on) start_over();
                ZT_CHECK(have > 0 || head.status == 200 || goes_on, io,
                         "the server sends another part of {} than the one asked for", file.path);
            },
            [&](std::string_view bytes) {
                ZT_CHECK(have + static_cast<std::int64_t>(bytes.size()) <= file.size, io,
                         "more comes of {} than the {} that the hub lists", file.path,
                         format_bytes(file.size));
                partial.append(bytes);
                hash.update(bytes);
                have += static_cast<std::int64_t>(bytes.size());
                meter.add(static_cast<std::int64_t>(bytes.size()), true);
                if (have > furthest) patience.renew();
                furthest = std::max(furthest, have);
            });
        if (have == file.size) break;
        if (response.status == 416) start_over();
        std::string failure = passing_failure(response, hub_.endpoint());
        if (failure.empty()) failure = "the server ended too early";
        patience.wait(fmt::format("{}: {}", file.path, failure), asked_pause(response));
    }
    partial.sync();
    return hash.finish();
}

void Download::bring(const HubFile& file, const std::string& commit, Meter& meter) {
    const BlobLock lock(repository_, file.digest, control_);
    if (is_here(file)) {  // another program brought it meanwhile
        meter.add(file.size, false);
        return;
    }
    std::string digest;
    for (int tries = 0; tries < 2; ++tries) {
        digest = complete(file, commit, meter);
        if (digest == file.digest) {
            std::error_code error;
            fs::rename(partial_of(file), blob_of(file), error);
            ZT_CHECK(!error, io, "cannot rename '{}': {}", partial_of(file).string(),
                     error.message());
            return;
        }
        fs::remove(partial_of(file));
        meter.add(-file.size, false);
        if (tries == 0) log::warning("{} came broken; once more from its beginning", file.path);
    }
    fail(ErrorKind::io,
         "{} is not what the hub lists, twice: its {} is {} in place of {}; nothing of it was kept",
         file.path, file.large ? "SHA-256" : "git hash", digest, file.digest);
}

void Download::link(const HubFile& file, const fs::path& snapshot) const {
    const fs::path pointer = snapshot / file.path;
    std::error_code error;
    if (fs::equivalent(pointer, blob_of(file), error)) return;
    make_folder(pointer.parent_path());
    const fs::path target = blob_of(file).lexically_relative(pointer.parent_path());
    const fs::path made = beside(pointer);
    fs::remove(made, error);
    fs::create_symlink(target, made, error);
    if (!error) fs::rename(made, pointer, error);
    ZT_CHECK(!error, io, "cannot make the link '{}': {}", pointer.string(), error.message());
}

void Download::write_ref(const std::string& commit) const {
    if (options_.revision == commit) return;
    const fs::path ref = repository_ / "refs" / options_.revision;
    make_folder(ref.parent_path());
    const fs::path made = beside(ref);
    {
        const Descriptor file(made, O_WRONLY | O_CREAT | O_TRUNC);
        file.append(commit);
    }
    std::error_code error;
    fs::rename(made, ref, error);
    ZT_CHECK(!error, io, "cannot write '{}': {}", ref.string(), error.message());
}

PullResult Download::run() {
    const HubRevision found = hub_.list(options_.repository, options_.revision);
    const std::vector<HubFile> files = choose(found);
    const fs::path snapshot = repository_ / "snapshots" / found.commit;
    make_folder(blobs_);
    make_folder(snapshot);
    const std::vector<HubFile> missing = missing_of(files);
    check_space(missing);

    PullResult result{
        .snapshot = snapshot, .commit = found.commit, .files = static_cast<int>(files.size())};
    for (const HubFile& file : files) result.bytes += file.size;
    if (!missing.empty()) {
        std::int64_t bytes = 0;
        for (const HubFile& file : missing) bytes += file.size;
        Meter meter(control_, bytes);
        for (const HubFile& file : missing) {
            control_.throw_if_stopped();
            bring(file, found.commit, meter);
        }
        meter.finish();
        result.downloaded_bytes = meter.downloaded();
    }
    for (const HubFile& file : files) link(file, snapshot);
    write_ref(found.commit);
    return result;
}

}  // namespace

PullResult pull(const PullOptions& options, const RunControl& control) {
    ZT_CHECK(is_repository_name(options.repository), bad_request,
             "'{}' is no name of a repository: organisation/name is wanted, such as "
             "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
             options.repository);
    const std::string& revision = options.revision;
    const bool plain = !revision.empty() && revision.front() != '/' && revision.back() != '/' &&
                       revision.find("..") == revision.npos && revision.find("//") == revision.npos;
    ZT_CHECK(plain, bad_request, "'{}' is no name of a revision: a branch, tag or commit is wanted",
             revision);
    try {
        return Download(options, control).run();
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::cancelled) throw;
        fail(ErrorKind::cancelled,
             "stopped; what came so far is kept, and the same command goes on from there");
    }
}

}  // namespace zoetrope
