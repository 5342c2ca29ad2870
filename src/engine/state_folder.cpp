#include "engine/state_folder.h"

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/partial_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

constexpr int kFormat = 1;
constexpr const char* kLock = "lock";
constexpr const char* kRun = "run.json";
constexpr const char* kSegments = "segments";
constexpr const char* kValues = "zoetrope_state";  // key of the values in a file's metadata

// FNV-1a over words of eight bytes, the last one filled up with zeros: against accidents.
class Checksum {
public:
    void add(const void* data, std::size_t size) {
        const auto* bytes = static_cast<const unsigned char*>(data);
        for (std::size_t at = 0; at < size; at += 8) {
            std::uint64_t word = 0;
            std::memcpy(&word, bytes + at, std::min<std::size_t>(8, size - at));
            hash_ = (hash_ ^ word) * 0x100000001b3ULL;
        }
    }
    std::string hex() const { return fmt::format("{:016x}", hash_); }

private:
    std::uint64_t hash_ = 0xcbf29ce484222325ULL;
};

std::string checksum_of(const std::map<std::string, at::Tensor>& tensors) {
    Checksum sum;
    for (const auto& [name, tensor] : tensors) {
        sum.add(name.data(), name.size());
        sum.add(tensor.const_data_ptr(), tensor.nbytes());
    }
    return sum.hex();
}

// The number that the process that holds a lock wrote into it; empty where it did not yet.
std::string holder_of(int lock) {
    std::array<char, 32> text{};
    const ssize_t count = ::pread(lock, text.data(), text.size() - 1, 0);
    return count > 0 ? fmt::format(" (process {})", text.data()) : "";
}

}  // namespace

StateFolder::StateFolder(fs::path folder) : path_(std::move(folder)) {
    std::error_code error;
    const fs::file_status status = fs::status(path_, error);
    ZT_CHECK(status.type() == fs::file_type::not_found || fs::is_directory(status), bad_request,
             "--state-dir is '{}': a folder is wanted, and this is none", path_.string());
    if (fs::is_directory(status)) {
        check_content();
    } else {
        made_ = fs::create_directories(path_, error);
        ZT_CHECK(!error, io, "--state-dir: cannot make the folder '{}': {}", path_.string(),
                 error.message());
    }
    lock();
    try {
        read_run();
    } catch (...) {
        fs::remove(path_ / kLock, error);
        ::close(lock_);
        throw;
    }
    if (!result_.is_null()) remove_state();  // finish() may have been killed before it did
}

StateFolder::~StateFolder() {
    std::error_code ignored;
    if (result_.is_null() && !has_progress()) {
        remove_state();
        fs::remove(path_ / kRun, ignored);
    }
    fs::remove(path_ / kLock, ignored);  // while it is held: see lock()
    ::close(lock_);
    if (made_) fs::remove(path_, ignored);  // which it is not unless empty
}

bool StateFolder::has_progress() const {
    std::error_code ignored;
    return result_.is_null() &&
           (fs::exists(path_ / kLoop, ignored) || fs::exists(path_ / kCarried, ignored));
}

// Nothing of another's may lie there, since a new run removes what it does not know.
void StateFolder::check_content() const {
    std::error_code error;
    for (fs::directory_iterator entry(path_, error), end; !error && entry != end;
         entry.increment(error)) {
        const std::string name = entry->path().filename().string();
        const bool ours = name == kLock || name == kRun || name.starts_with(kLoop) ||
                          name.starts_with(kCarried) || name == kSegments || name.starts_with('.');
        ZT_CHECK(ours, bad_request,
                 "--state-dir is '{}', where there is a '{}' that no run keeps there: a folder "
                 "that is new, empty or of an earlier run is wanted",
                 path_.string(), name);
    }
    ZT_CHECK(!error, io, "--state-dir: cannot read the folder '{}': {}", path_.string(),
             error.message());
}

// The system lets the lock go when the process ends, however it ends. Its file is removed by the
// one that holds it, so that another may have locked a file that has no name any more: it tries
// again.
void StateFolder::lock() {
    const fs::path file = path_ / kLock;
    was_used_ = fs::exists(file);
    while (true) {
        lock_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        ZT_CHECK(lock_ >= 0, io, "--state-dir: cannot write '{}': {}", file.string(),
                 std::strerror(errno));
        if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
            if (errno != EWOULDBLOCK) {
                log::warning("'{}' cannot be locked ({}): see that no other run works with it",
                             path_.string(), std::strerror(errno));
                return;
            }
            const std::string holder = holder_of(lock_);
            ::close(lock_);
            fail(ErrorKind::bad_request,
                 "--state-dir is '{}', which another run is working with{}: wait for it, or give "
                 "another folder",
                 path_.string(), holder);
        }
        struct ::stat held {};
        struct ::stat named {};
        if (::fstat(lock_, &held) == 0 && ::stat(file.c_str(), &named) == 0 &&
            held.st_ino == named.st_ino && held.st_dev == named.st_dev)
            break;
        ::close(lock_);
    }
    const std::string process = std::to_string(::getpid());
    // Only for the message above.
    if (::ftruncate(lock_, 0) != 0 || ::pwrite(lock_, process.data(), process.size(), 0) < 0)
        return;
}

void StateFolder::damaged(std::string_view what) const {
    fail(ErrorKind::io,
         "the state in '{}' cannot be used: {}; to begin anew, remove the folder or give another "
         "--state-dir",
         path_.string(), what);
}

void StateFolder::read_run() {
    const fs::path file = path_ / kRun;
    if (!fs::exists(file)) return;
    was_used_ = true;
    nlohmann::json json;
    try {
        json = read_json(file);
    } catch (const Error& error) {
        damaged(error.what());
    }
    if (!json.is_object() || !json.contains(kValues) || !json.contains("run") ||
        !json["run"].is_object())
        damaged(fmt::format("{} is not what a run writes", kRun));
    if (json[kValues] != kFormat)
        damaged(fmt::format("it is of format {}, and this program has format {}",
                            json[kValues].dump(), kFormat));
    run_ = json["run"];
    result_ = json.value("result", nlohmann::json());
}

void StateFolder::write_run() const {
    const nlohmann::json json = {{kValues, kFormat}, {"run", run_}, {"result", result_}};
    const fs::path file = path_ / kRun;
    remove_stale(file);
    write_whole_file(file,
                     json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n');
    sync_folder_of(file);
}

void StateFolder::remove_state() {
    std::error_code ignored;
    std::vector<fs::path> files;
    for (fs::directory_iterator entry(path_, ignored), end; !ignored && entry != end;
         entry.increment(ignored)) {
        const std::string name = entry->path().filename().string();
        if (name.starts_with(kLoop) || name.starts_with(kCarried) || is_partial(name))
            files.push_back(entry->path());
    }
    files.push_back(segments());
    for (const fs::path& file : files) fs::remove_all(file, ignored);
}

fs::path StateFolder::segments() const { return path_ / kSegments; }

void StateFolder::begin(const nlohmann::json& run) {
    remove_state();
    run_ = run;
    result_ = nullptr;
    write_run();
}

void StateFolder::finish(const nlohmann::json& result) {
    result_ = result;
    write_run();
    remove_state();
}

void StateFolder::save(std::string_view file, std::span<const NamedTensor> tensors,
                       const nlohmann::json& values) {
    std::map<std::string, at::Tensor> held;
    for (const NamedTensor& named : tensors)
        held[named.name] = named.tensor.detach().cpu().contiguous();
    std::vector<NamedTensor> written;
    for (const auto& [key, tensor] : held) written.push_back({key, tensor});
    const nlohmann::json whole = {{"values", values}, {"checksum", checksum_of(held)}};
    const std::pair<std::string, std::string> metadata{kValues, whole.dump()};
    remove_stale(path_ / file);
    write_safetensors(path_ / file, written, std::span(&metadata, 1));
}

std::optional<SavedState> StateFolder::load(std::string_view name) const {
    const fs::path file = path_ / name;
    if (!fs::exists(file)) return std::nullopt;
    SavedState saved;
    nlohmann::json whole;
    try {
        const auto source = open_safetensors(file);
        for (const auto& [key, text] : source->metadata()) {
            if (key == kValues) whole = parse_json(text, file.string());
        }
        const auto tensors = source->tensors();
        for (std::size_t i = 0; i < tensors.size(); ++i)
            saved.tensors[tensors[i].name] = source->read(i).clone();
    } catch (const Error& error) {
        damaged(error.what());
    }
    if (!whole.is_object() || !whole.contains("values") ||
        whole["checksum"] != checksum_of(saved.tensors))
        damaged(fmt::format("{} is not as it was written", file.filename().string()));
    saved.values = whole["values"];
    return saved;
}

namespace {

std::string short_text(const nlohmann::json& value) {
    constexpr std::size_t kMost = 60;
    const std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    if (text.size() <= kMost) return text;
    std::size_t end = kMost;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // of UTF-8
    return text.substr(0, end) + "...";
}

void add_differences(const std::string& name, const nlohmann::json& before,
                     const nlohmann::json& now, std::vector<std::string>& sentences) {
    if (before == now) return;
    if (!before.is_object() || !now.is_object()) {
        const auto text = [](const nlohmann::json& value) {
            return value.is_null() ? std::string("not there") : short_text(value);
        };
        sentences.push_back(fmt::format("{} was {} and is {}", name, text(before), text(now)));
        return;
    }
    nlohmann::json both = before;
    both.update(now);
    for (const auto& [key, ignored] : both.items()) {
        add_differences(name.empty() ? key : name + "." + key, before.value(key, nlohmann::json()),
                        now.value(key, nlohmann::json()), sentences);
    }
}

}  // namespace

std::vector<std::string> differences(const nlohmann::json& before, const nlohmann::json& now) {
    std::vector<std::string> sentences;
    add_differences("", before, now, sentences);
    return sentences;
}

}  // namespace zoetrope
