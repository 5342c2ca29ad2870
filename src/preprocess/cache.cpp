#include "preprocess/cache.h"

#include "base/error.h"
#include "base/log.h"
#include "base/mapped_file.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <system_error>

namespace zoetrope::preprocess {
namespace fs = std::filesystem;
namespace {

constexpr std::uintmax_t kMostBytes = std::uintmax_t{2} << 30;  // of all kept results together

struct Kept {
    fs::path folder;
    std::uintmax_t bytes = 0;
    fs::file_time_type used{};
};

std::vector<Kept> kept_in(const fs::path& cache) {
    std::vector<Kept> all;
    for (const auto& entry : fs::directory_iterator(cache)) {
        if (!entry.is_directory()) continue;
        Kept kept{entry.path(), 0, entry.last_write_time()};
        for (const auto& file : fs::directory_iterator(entry.path()))
            kept.bytes += file.file_size();
        all.push_back(std::move(kept));
    }
    std::sort(all.begin(), all.end(), [](const Kept& a, const Kept& b) { return a.used > b.used; });
    return all;
}

// The newest stay.
void make_room(const fs::path& cache) {
    std::uintmax_t total = 0;
    for (const Kept& kept : kept_in(cache)) {
        total += kept.bytes;
        if (total > kMostBytes) fs::remove_all(kept.folder);
    }
}

}  // namespace

// Times the FNV prime 2^88 + 0x13b, modulo 2^128.
void ContentHash::mix(std::string_view bytes) {
    constexpr std::uint64_t kPrime = 0x13b;
    for (const char byte : bytes) {
        low_ ^= static_cast<std::uint8_t>(byte);
        const std::uint64_t small = (low_ & 0xffffffffU) * kPrime;
        const std::uint64_t middle = (low_ >> 32) * kPrime + (small >> 32);
        high_ = high_ * kPrime + (middle >> 32) + (low_ << 24);
        low_ = (middle << 32) | (small & 0xffffffffU);
    }
}

void ContentHash::add(std::string_view bytes) {
    mix(std::to_string(bytes.size()) + ":");
    mix(bytes);
}

void ContentHash::add_file(const fs::path& path) {
    if (!fs::is_directory(path)) {
        const auto file = MappedFile::open(path);
        const auto bytes = file->bytes();
        add({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
        return;
    }
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(path)) {
        if (entry.is_regular_file()) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) {
        add(file.filename().string());
        add_file(file);
    }
}

std::string ContentHash::hex() const { return fmt::format("{:016x}{:016x}", high_, low_); }

fs::path default_cache_folder() {
    const auto environment = [](const char* name) -> fs::path {
        const char* value = std::getenv(name);
        return value != nullptr ? value : "";
    };
    if (const fs::path given = environment("XDG_CACHE_HOME"); given.is_absolute())
        return given / "zoetrope" / "preprocess";
    const fs::path home = environment("HOME");
    return home.is_absolute() ? home / ".cache" / "zoetrope" / "preprocess" : fs::path();
}

fs::path find_in_cache(const fs::path& cache, const std::string& key) {
    fs::path kept = cache / key;
    std::error_code ignored;
    if (!fs::is_directory(kept, ignored)) return {};
    fs::last_write_time(kept, fs::file_time_type::clock::now(), ignored);
    return kept;
}

bool take_from_cache(const fs::path& cache, const std::string& key, const fs::path& target) {
    const fs::path kept = find_in_cache(cache, key);
    if (kept.empty()) return false;
    try {
        fs::create_directories(target);
        for (const auto& file : fs::directory_iterator(kept)) {
            const fs::path name = target / file.path().filename();
            const fs::path part = target / fmt::format(".{}.part", file.path().filename().string());
            fs::copy_file(file.path(), part, fs::copy_options::overwrite_existing);
            fs::rename(part, name);
        }
        return true;
    } catch (const fs::filesystem_error& error) {
        log::warning("the kept result {} cannot be used: {}", kept.string(), error.what());
        return false;
    }
}

void put_into_cache(const fs::path& cache, const std::string& key,
                    const std::vector<fs::path>& files) {
    const fs::path part = cache / fmt::format(".{}.{}.part", key, ::getpid());
    try {
        fs::create_directories(part);
        for (const fs::path& file : files) fs::copy_file(file, part / file.filename());
        std::error_code there_already;
        fs::rename(part, cache / key, there_already);
        if (there_already) fs::remove_all(part);
        make_room(cache);
    } catch (const fs::filesystem_error& error) {
        std::error_code ignored;
        fs::remove_all(part, ignored);
        log::warning("the result cannot be kept for the next run: {}", error.what());
    }
}

}  // namespace zoetrope::preprocess
