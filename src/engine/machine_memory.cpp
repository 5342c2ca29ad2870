#include "engine/machine_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

// The number in a file that holds nothing else; "max" is none.
std::optional<std::int64_t> number_in(const fs::path& file) {
    std::int64_t number = 0;
    if (std::ifstream(file) >> number) return number;
    return std::nullopt;
}

// The number behind a name, in a file of lines "name number" or "name: number kB".
std::optional<std::int64_t> number_of(const fs::path& file, const std::string& name) {
    std::ifstream lines(file);
    std::string word;
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::int64_t number = 0;
        if (words >> word >> number && word == name) return number;
    }
    return std::nullopt;
}

struct GroupFiles {
    const char* hierarchy;  // under sys/fs/cgroup
    const char* limit;
    const char* usage;
    const char* cached;  // in memory.stat: pages of files, which the kernel drops when it has to
};

constexpr GroupFiles kVersion2{"", "memory.max", "memory.current", "inactive_file"};
constexpr GroupFiles kVersion1{"memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                               "total_inactive_file"};

// What the limits of a group and of those above it leave.
std::int64_t left_in_group(const fs::path& root, const GroupFiles& files, fs::path group) {
    std::int64_t left = std::numeric_limits<std::int64_t>::max();
    const fs::path base = root / "sys/fs/cgroup" / files.hierarchy;
    for (;;) {
        const fs::path folder = base / group.relative_path();
        const auto limit = number_in(folder / files.limit);
        const auto usage = number_in(folder / files.usage);
        if (limit && usage) {
            const std::int64_t cached = number_of(folder / "memory.stat", files.cached).value_or(0);
            left = std::min(left, std::max<std::int64_t>(0, *limit - *usage + cached));
        }
        if (!group.has_relative_path()) return left;
        group = group.parent_path();
    }
}

}  // namespace

std::int64_t available_memory(const fs::path& root) {
    std::int64_t available = std::numeric_limits<std::int64_t>::max() / 2;
    if (const auto kilobytes = number_of(root / "proc/meminfo", "MemAvailable:"))
        available = *kilobytes * 1024;
    std::ifstream groups(root / "proc/self/cgroup");  // "0::/a/b" or "7:memory:/a/b"
    for (std::string line; std::getline(groups, line);) {
        const auto controllers = line.find(':');
        const auto path = line.find(':', controllers + 1);
        if (controllers == std::string::npos || path == std::string::npos) continue;
        const std::string names = line.substr(controllers + 1, path - controllers - 1);
        const bool version2 = names.empty();
        if (!version2 && ("," + names + ",").find(",memory,") == std::string::npos) continue;
        available = std::min(available, left_in_group(root, version2 ? kVersion2 : kVersion1,
                                                      line.substr(path + 1)));
    }
    return available;
}

}  // namespace zoetrope
