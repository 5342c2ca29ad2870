#include "net/hub.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <mutex>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "net/hub_cache.h"

namespace zoetrope {
namespace {

constexpr double kFirstPause = 0.5;     // seconds, doubled each time
constexpr double kLongestPause = 60.0;  // seconds
constexpr std::size_t kMostFiles = 100'000;

std::string environment(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
}

std::string trimmed(std::string text) {
    text.erase(text.find_last_not_of(" \t\r\n") + 1);
    text.erase(0, text.find_first_not_of(" \t\r\n"));
    return text;
}

bool is_digest(std::string_view text, std::size_t digits) {
    return text.size() == digits &&
           text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// Whether a path of the hub's stays inside of the folder that it is put into.
bool stays_inside(std::string_view path) {
    if (path.empty() || path.size() > 1024 || path.find('\0') != path.npos) return false;
    while (true) {
        const auto slash = path.find('/');
        const std::string_view part = path.substr(0, slash);
        if (part.empty() || part == "." || part == ".." || part.size() > 255) return false;
        if (slash == path.npos) return true;
        path.remove_prefix(slash + 1);
    }
}

// The error of an answer that another try would not change.
[[noreturn]] void refuse(const HttpResponse& response, const std::string& repository,
                         const std::string& revision, const std::string& url) {
    const std::string code = response.field("x-error-code");
    const int status = response.status;
    if (code == "GatedRepo" || status == 403) {
        fail(ErrorKind::bad_request,
             "the hub gives no access to {} (status {}): if its authors ask for consent, accept "
             "their terms on the repository's page, then set HF_TOKEN to a token that may read it",
             repository, status);
    }
    if (code == "RevisionNotFound") {
        fail(ErrorKind::not_found, "the repository {} has no revision '{}'", repository, revision);
    }
    if (status == 401) {
        fail(ErrorKind::bad_request,
             "the hub has no repository {}, or it is private and HF_TOKEN holds no token that may "
             "read it (status 401)",
             repository);
    }
    if (status == 404) {
        fail(ErrorKind::not_found,
             "the hub has no {}: check the repository's name, {} and the revision, '{}'", url,
             repository, revision);
    }
    const std::string message = response.field("x-error-message");
    fail(ErrorKind::io, "the hub answered {} to {}{}{}", status, url, message.empty() ? "" : ": ",
         message);
}

// `<https://...>; rel="next"` -> the address.
std::string next_page(const std::string& link) {
    const auto begin = link.find('<'), end = link.find('>');
    if (link.find("rel=\"next\"") == link.npos || begin == link.npos || end == link.npos) return "";
    return link.substr(begin + 1, end - begin - 1);
}

HubFile read_file_entry(const nlohmann::json& entry, const std::string& url) {
    try {
        const auto large = entry.find("lfs");
        const bool is_large = large != entry.end() && large->is_object();
        const nlohmann::json& content = is_large ? *large : entry;
        HubFile file{
            .path = entry.at("path"), .size = 0, .digest = content.at("oid"), .large = is_large};
        const bool counted = content.at("size").is_number_integer();
        if (counted) file.size = content.at("size");
        ZT_CHECK(stays_inside(file.path) && counted && file.size >= 0 &&
                     is_digest(file.digest, file.large ? 64 : 40),
                 io, "{} lists a file that no repository can have: {}", url, entry.dump());
        return file;
    } catch (const nlohmann::json::exception&) {
        fail(ErrorKind::io, "{} lists a file without path, size or oid: {}", url, entry.dump());
    }
}

}  // namespace

HubSettings hub_settings() {
    const std::string offline = environment("HF_HUB_OFFLINE");
    ZT_CHECK(offline.empty() || offline == "0", bad_request,
             "HF_HUB_OFFLINE is {}: nothing is downloaded; unset it first", offline);
    HubSettings settings;
    if (std::string endpoint = environment("HF_ENDPOINT"); !endpoint.empty()) {
        endpoint.erase(endpoint.find_last_not_of('/') + 1);
        settings.endpoint = std::move(endpoint);
    }
    settings.token = trimmed(environment("HF_TOKEN"));
    if (settings.token.empty()) {
        std::string file = environment("HF_TOKEN_PATH");
        if (file.empty()) file = (hub_home_folder() / "token").string();
        std::ifstream(file) >> settings.token;
    }
    return settings;
}

void Patience::wait(const std::string& failure, double asked_seconds) {
    ++failures_;
    ZT_CHECK(failures_ <= retries_, io,
             "{} (after {} {}); what came so far is kept, so that the same command goes on from "
             "there",
             failure, failures_, failures_ == 1 ? "try" : "tries");
    const double grown = kFirstPause * std::pow(2, failures_ - 1);
    const double pause = std::min(std::max(asked_seconds, grown), kLongestPause);
    log::warning("{}; trying again in {:.1f} s", failure, pause);
    std::mutex mutex;
    std::unique_lock lock(mutex);
    std::condition_variable_any never;
    never.wait_for(lock, stop_, std::chrono::duration<double>(pause), [] { return false; });
    ZT_CHECK(!stop_.stop_requested(), cancelled, "stopped");
}

std::string passing_failure(const HttpResponse& response, const std::string& url) {
    const std::string host = url.substr(0, url.find('/', url.find("://") + 3));
    if (!response.failure.empty()) {
        return fmt::format("{} cannot be reached or broke off: {}", host, response.failure);
    }
    for (const int status : {408, 425, 429, 500, 502, 503, 504}) {
        if (response.status == status) return fmt::format("{} answers {}", host, status);
    }
    return "";
}

double asked_pause(const HttpResponse& response) {
    const std::string text = response.field("retry-after");
    int seconds = 0;  // the other form, a date, counts as none
    std::from_chars(text.data(), text.data() + text.size(), seconds);
    return std::max(seconds, 0);
}

HubClient::HubClient(HubSettings settings, int retries, std::stop_token stop)
    : settings_(std::move(settings)), retries_(retries), stop_(stop), http_(std::move(stop)) {}

HubClient::Page HubClient::page(const std::string& url, const std::string& repository,
                                const std::string& revision) {
    Patience patience(retries_, stop_);
    while (true) {
        Page page;
        // The address of a next page is the server's word: no other host gets the token.
        const bool own = url.starts_with(settings_.endpoint + "/");
        const HttpResponse response = http_.get(
            {.url = url, .token = own ? settings_.token : ""},
            [&page](const HttpResponse&) { page.content.clear(); },
            [&page](std::string_view bytes) { page.content += bytes; });
        const std::string failure = passing_failure(response, url);
        if (!failure.empty()) {
            patience.wait(failure, asked_pause(response));
            continue;
        }
        if (response.status != 200) refuse(response, repository, revision, url);
        page.next = next_page(response.field("link"));
        return page;
    }
}

HubRevision HubClient::list(const std::string& repository, const std::string& revision) {
    const std::string api = fmt::format("{}/api/models/{}", settings_.endpoint, repository);
    // A slash of a revision (refs/pr/1) is part of its name.
    std::string name = encode_path(revision);
    for (auto slash = name.find('/'); slash != name.npos; slash = name.find('/', slash)) {
        name.replace(slash, 1, "%2F");
    }
    const std::string about = fmt::format("{}/revision/{}", api, name);
    const nlohmann::json json = parse_json(page(about, repository, revision).content, about);
    HubRevision found;
    const auto sha = json.is_object() ? json.find("sha") : json.end();
    if (sha != json.end() && sha->is_string()) found.commit = *sha;
    ZT_CHECK(is_digest(found.commit, 40), io, "{} names no commit: is it a Hugging Face hub?",
             about);

    std::string url = fmt::format("{}/tree/{}?recursive=true", api, found.commit);
    while (!url.empty()) {
        const Page tree = page(url, repository, revision);
        const nlohmann::json entries = parse_json(tree.content, url);
        ZT_CHECK(entries.is_array(), io, "{} is no list of files", url);
        for (const nlohmann::json& entry : entries) {
            const bool folder =
                entry.is_object() && entry.contains("type") && entry["type"] == "directory";
            if (folder) continue;
            found.files.push_back(read_file_entry(entry, url));
        }
        ZT_CHECK(found.files.size() <= kMostFiles, unsupported, "{} has more than {} files",
                 repository, kMostFiles);
        url = tree.next;
    }
    return found;
}

HttpResponse HubClient::fetch(const std::string& repository, const std::string& commit,
                              const HubFile& file, std::int64_t from,
                              const std::function<void(const HttpResponse&)>& begin,
                              const std::function<void(std::string_view)>& body) {
    const std::string url = fmt::format("{}/{}/resolve/{}/{}", settings_.endpoint, repository,
                                        commit, encode_path(file.path));
    HttpResponse response =
        http_.get({.url = url, .token = settings_.token, .from = from}, begin, body);
    constexpr int kRangeNotSatisfiable = 416;
    const bool known =
        response.status == 200 || response.status == 206 || response.status == kRangeNotSatisfiable;
    if (!known && passing_failure(response, url).empty()) refuse(response, repository, commit, url);
    return response;
}

}  // namespace zoetrope
