// A model hub that speaks Hugging Face's protocol: what a repository holds, and its files.
//
// A client belongs to one thread. Each call tries several times where the network or the server
// fails for the moment, waiting longer each time. Errors: not_found (repository, revision, file),
// bad_request (no access: the message says what to do), io (the hub cannot be reached, or answers
// what nobody understands), cancelled.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "net/http.h"

namespace zoetrope {

struct HubSettings {
    std::string endpoint = "https://huggingface.co";
    std::string token;
};
// HF_ENDPOINT; HF_TOKEN, else the file that `hf auth login` writes (HF_TOKEN_PATH, HF_HOME/token).
// Errors: bad_request where HF_HUB_OFFLINE forbids the network.
HubSettings hub_settings();

struct HubFile {
    std::string path;  // in the repository, with slashes
    std::int64_t size = 0;
    // Lower-case hexadecimal: SHA-256 of a large file, else git's blob hash. Names the blob.
    std::string digest;
    bool large = false;  // in the hub's large file storage
};

struct HubRevision {
    std::string commit;  // 40 hexadecimal digits
    std::vector<HubFile> files;
};

// Waits between tries: longer each time, and no longer than a stop is asked for.
class Patience {
public:
    // retries: how many failures in a row another try follows
    Patience(int retries, std::stop_token stop) : retries_(retries), stop_(std::move(stop)) {}
    // After a failed try; asked_seconds: what the server wants. Errors: io with `failure` once it
    // is over, cancelled.
    void wait(const std::string& failure, double asked_seconds = 0);
    void renew() { failures_ = 0; }  // something went well

private:
    int retries_;
    std::stop_token stop_;
    int failures_ = 0;
};

class HubClient {
public:
    HubClient(HubSettings settings, int retries, std::stop_token stop);

    const std::string& endpoint() const { return settings_.endpoint; }

    // What a branch, tag or commit of a repository holds. Names and digests are checked: no path
    // leaves the repository's folder.
    HubRevision list(const std::string& repository, const std::string& revision);

    // Bytes [from, size) of a file; returns as HttpClient::get, having tried once. status 206: they
    // begin at `from`, 200: at 0. Errors: as above for what another try would not change.
    HttpResponse fetch(const std::string& repository, const std::string& commit,
                       const HubFile& file, std::int64_t from,
                       const std::function<void(const HttpResponse&)>& begin,
                       const std::function<void(std::string_view)>& body);

private:
    // A GET of the API, tried several times: the answer's content, and the next page's address.
    struct Page {
        std::string content, next;
    };
    Page page(const std::string& url, const std::string& repository, const std::string& revision);

    HubSettings settings_;
    int retries_;
    std::stop_token stop_;
    HttpClient http_;
};

// Why an answer of this server is worth another try: a sentence, or nothing where it is not (it
// went well, or trying again would not help).
std::string passing_failure(const HttpResponse& response, const std::string& url);
double asked_pause(const HttpResponse& response);  // Retry-After in seconds; 0: none

}  // namespace zoetrope
