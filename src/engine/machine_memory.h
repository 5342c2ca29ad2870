// What memory this process can still take. Safe from any thread.
#pragma once

#include <cstdint>
#include <filesystem>

namespace zoetrope {

// Bytes that can be taken without swapping: the least of MemAvailable of /proc/meminfo and what the
// limits of the process's control groups (v2 and v1) leave, files in the page cache counted as
// free. The largest number where the system says nothing. `root` is where proc/ and sys/ are looked
// for.
std::int64_t available_memory(const std::filesystem::path& root = "/");

}  // namespace zoetrope
