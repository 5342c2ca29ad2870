// HTTP GET as downloads need it, over libcurl: redirects, ranges, proxies, certificates.
//
// A client keeps its connections between requests; it belongs to one thread. What may pass by
// itself (the network, an overloaded server) comes back as a value, so that the caller can try
// again. HTTPS_PROXY, HTTP_PROXY and NO_PROXY are honoured, and CURL_CA_BUNDLE, SSL_CERT_FILE or
// REQUESTS_CA_BUNDLE for certificates.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>

namespace zoetrope {

struct HttpGet {
    std::string url;
    std::string token;      // bearer token for the first host alone; empty: none
    std::int64_t from = 0;  // byte to begin at
};

struct HttpResponse {
    int status = 0;  // of the last answer, behind redirects; 0: none came
    std::map<std::string, std::string> fields;  // header fields of that answer; names in lower case
    std::string error_body;                     // the beginning of what came with another status
    std::string failure;                        // why the connection failed; empty: it did not

    // A field's value, or nothing.
    std::string field(const std::string& name) const;
};

class HttpClient {
public:
    explicit HttpClient(std::stop_token stop);
    ~HttpClient();
    HttpClient(const HttpClient&) = delete;
    HttpClient& operator=(const HttpClient&) = delete;

    // Calls `begin` once a 200 or 206 has come, then `body` for each piece of its content. What
    // they throw ends the request and is thrown on. Errors: cancelled once a stop was requested,
    // bad_request for a URL that is none.
    HttpResponse get(const HttpGet& request, const std::function<void(const HttpResponse&)>& begin,
                     const std::function<void(std::string_view)>& body);

private:
    struct Transfer;
    void* curl_ = nullptr;
    std::stop_token stop_;
};

// Percent-encodes everything but letters, digits, "-._~" and "/".
std::string encode_path(std::string_view path);

}  // namespace zoetrope
