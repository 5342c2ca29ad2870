#include "net/http.h"

#include <curl/curl.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <exception>

#include "base/error.h"

namespace zoetrope {
namespace {

constexpr long kConnectSeconds = 20;
constexpr long kStalledSeconds = 60;  // without a byte, after which a connection counts as dead
constexpr long kMostRedirects = 10;
constexpr std::size_t kErrorBodyBytes = 4096;

void start_library() {
    static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
    ZT_CHECK(code == CURLE_OK, internal, "libcurl does not start: {}", curl_easy_strerror(code));
}

std::string lower(std::string_view text) {
    std::string out(text);
    std::ranges::transform(out, out.begin(), [](unsigned char c) { return std::tolower(c); });
    return out;
}

std::string_view trimmed(std::string_view text) {
    constexpr std::string_view kBlanks = " \t\r\n";
    const auto first = text.find_first_not_of(kBlanks);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

// The bundle of certificates that the user's other programs are told of; null: libcurl's own.
const char* certificates() {
    for (const char* name : {"CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}) {
        const char* file = std::getenv(name);
        if (file != nullptr && *file != '\0') return file;
    }
    return nullptr;
}

}  // namespace

// What libcurl's callbacks see of a request.
struct HttpClient::Transfer {
    HttpResponse response{};
    const std::function<void(const HttpResponse&)>* begin = nullptr;
    const std::function<void(std::string_view)>* body = nullptr;
    std::stop_token stop{};
    bool begun = false;
    std::exception_ptr thrown{};

    bool wanted() const { return response.status == 200 || response.status == 206; }
    void begin_once() {
        if (begun || !wanted()) return;
        begun = true;
        (*begin)(response);
    }
    // Exceptions must not pass through libcurl. 0 and less than was given end the request.
    template <typename Work>
    std::size_t guarded(std::size_t bytes, Work&& work) {
        try {
            work();
            return bytes;
        } catch (...) {
            thrown = std::current_exception();
            return 0;
        }
    }

    static std::size_t on_header(char* data, std::size_t, std::size_t bytes, void* self) {
        auto& transfer = *static_cast<Transfer*>(self);
        const std::string_view line = trimmed({data, bytes});
        return transfer.guarded(bytes, [&] {
            if (line.starts_with("HTTP/")) {  // of each answer on the way
                transfer.response.fields.clear();
                const auto blank = line.find(' ');
                transfer.response.status =
                    blank == std::string_view::npos
                        ? 0
                        : std::atoi(std::string(line.substr(blank + 1, 3)).c_str());
            } else if (const auto colon = line.find(':'); colon != std::string_view::npos) {
                transfer.response.fields[lower(line.substr(0, colon))] =
                    trimmed(line.substr(colon + 1));
            }
        });
    }

    static std::size_t on_body(char* data, std::size_t, std::size_t bytes, void* self) {
        auto& transfer = *static_cast<Transfer*>(self);
        return transfer.guarded(bytes, [&] {
            if (transfer.wanted()) {
                transfer.begin_once();
                (*transfer.body)({data, bytes});
                return;
            }
            std::string& text = transfer.response.error_body;
            text.append(data, std::min(bytes, kErrorBodyBytes - text.size()));
        });
    }

    static int on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
        return static_cast<Transfer*>(self)->stop.stop_requested() ? 1 : 0;
    }
};

std::string HttpResponse::field(const std::string& name) const {
    const auto found = fields.find(name);
    return found == fields.end() ? "" : found->second;
}

HttpClient::HttpClient(std::stop_token stop) : stop_(std::move(stop)) {
    start_library();
    curl_ = curl_easy_init();
    ZT_CHECK(curl_ != nullptr, internal, "libcurl gives no handle");
}

HttpClient::~HttpClient() { curl_easy_cleanup(static_cast<CURL*>(curl_)); }

HttpResponse HttpClient::get(const HttpGet& request,
                             const std::function<void(const HttpResponse&)>& begin,
                             const std::function<void(std::string_view)>& body) {
    const bool secure = request.url.starts_with("https://");
    ZT_CHECK(secure || request.url.starts_with("http://"), bad_request,
             "'{}' is no address of a web server: it must begin with https:// or http://",
             request.url);
    Transfer transfer{.begin = &begin, .body = &body, .stop = stop_};
    CURL* curl = static_cast<CURL*>(curl_);
    curl_easy_reset(curl);  // keeps connections
    curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "zoetrope");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, kMostRedirects);
    curl_easy_setopt(curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https");
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, kStalledSeconds);
    if (const char* file = certificates()) curl_easy_setopt(curl, CURLOPT_CAINFO, file);
    if (request.from > 0) {
        curl_easy_setopt(curl, CURLOPT_RANGE, fmt::format("{}-", request.from).c_str());
    }
    if (!request.token.empty()) {  // libcurl sends it to no other host on redirects
        curl_easy_setopt(curl, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
        curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, request.token.c_str());
    }
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, Transfer::on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, Transfer::on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, Transfer::on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);
    char reason[CURL_ERROR_SIZE] = "";
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);

    const CURLcode code = curl_easy_perform(curl);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, nullptr);
    if (transfer.thrown) std::rethrow_exception(transfer.thrown);
    ZT_CHECK(!stop_.stop_requested(), cancelled, "stopped");
    ZT_CHECK(code != CURLE_URL_MALFORMAT, bad_request, "'{}' is no address of a web server",
             request.url);
    if (code == CURLE_OK) {
        transfer.begin_once();  // an answer without content
    } else {
        transfer.response.failure = *reason != '\0' ? reason : curl_easy_strerror(code);
    }
    return std::move(transfer.response);
}

std::string encode_path(std::string_view path) {
    constexpr std::string_view kPlain = "-._~/";
    std::string out;
    for (const char c : path) {
        const auto byte = static_cast<unsigned char>(c);
        const bool plain = (byte < 128 && std::isalnum(byte)) || kPlain.find(c) != kPlain.npos;
        out += plain ? std::string(1, c) : fmt::format("%{:02X}", byte);
    }
    return out;
}

}  // namespace zoetrope
