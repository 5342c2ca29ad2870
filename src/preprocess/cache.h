// Results on disk under a hash of what they were made from.
//
// A result is a folder of files. It appears under its name complete or not at all; the oldest are
// removed when all together take too much room. Trouble with the cache is no error of the run: it
// is said in a warning. Safe for several processes at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope::preprocess {

// FNV-1a of 128 bits (Fowler, Noll, Vo): against accidents, not against forgers.
class ContentHash {
public:
    void add(std::string_view bytes);                  // and its length
    void add_file(const std::filesystem::path& path);  // a file, or a folder's files by name
    std::string hex() const;

private:
    void mix(std::string_view bytes);

    std::uint64_t high_ = 0x6c62272e07bb0142ULL;
    std::uint64_t low_ = 0x62b821756295c58dULL;
};

// $XDG_CACHE_HOME/zoetrope/preprocess, else ~/.cache/zoetrope/preprocess; empty where neither is
// set.
std::filesystem::path default_cache_folder();

// A kept result's folder, made the newest; empty where there is none.
std::filesystem::path find_in_cache(const std::filesystem::path& cache, const std::string& key);

// Copies a kept result's files into `target`; whether there was one.
bool take_from_cache(const std::filesystem::path& cache, const std::string& key,
                     const std::filesystem::path& target);

void put_into_cache(const std::filesystem::path& cache, const std::string& key,
                    const std::vector<std::filesystem::path>& files);

}  // namespace zoetrope::preprocess
