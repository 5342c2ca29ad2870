#include "net/hub_cache.h"

#include <cstdlib>
#include <fstream>
#include <regex>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

// The value of an environment variable as a path, a ~ at its beginning resolved; empty: unset.
fs::path path_of(const char* name) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') return {};
    const std::string_view text = value;
    const char* home = std::getenv("HOME");
    if (home != nullptr && (text == "~" || text.starts_with("~/"))) {
        return fs::path(home) / fs::path(text.substr(std::min<std::size_t>(2, text.size())));
    }
    return text;
}

}  // namespace

fs::path hub_home_folder() {
    if (fs::path home = path_of("HF_HOME"); !home.empty()) return home;
    if (const fs::path cache = path_of("XDG_CACHE_HOME"); !cache.empty()) {
        return cache / "huggingface";
    }
    return path_of("HOME") / ".cache" / "huggingface";
}

fs::path hub_cache_folder() {
    for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
        if (fs::path cache = path_of(name); !cache.empty()) return cache;
    }
    return hub_home_folder() / "hub";
}

bool is_repository_name(std::string_view text) {
    static const std::regex kName(
        "[A-Za-z0-9_][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}");
    return std::regex_match(text.begin(), text.end(), kName) &&
           text.find("..") == std::string_view::npos && text.find("--") == std::string_view::npos;
}

fs::path repository_folder(std::string_view name) {
    std::string folder = "models--";
    for (const char c : name) folder += c == '/' ? std::string("--") : std::string(1, c);
    return hub_cache_folder() / folder;
}

fs::path find_snapshot(std::string_view name, const std::string& revision) {
    const fs::path repository = repository_folder(name);
    std::error_code ignored;
    std::string commit = revision;
    std::ifstream(repository / "refs" / revision) >> commit;
    const fs::path snapshot = repository / "snapshots" / commit;
    return !commit.empty() && fs::is_directory(snapshot, ignored) ? snapshot : fs::path();
}

}  // namespace zoetrope
