#include "net/content_hash.h"

#include <openssl/evp.h>

#include "base/error.h"

namespace zoetrope {
namespace {

EVP_MD_CTX* of(void* context) { return static_cast<EVP_MD_CTX*>(context); }

}  // namespace

void ContentHash::Free::operator()(void* context) const { EVP_MD_CTX_free(of(context)); }

ContentHash::ContentHash(const char* algorithm) : context_(EVP_MD_CTX_new()) {
    const EVP_MD* digest = EVP_get_digestbyname(algorithm);
    ZT_CHECK(
        context_ && digest != nullptr && EVP_DigestInit_ex(of(context_.get()), digest, nullptr),
        internal, "OpenSSL has no {}", algorithm);
}

ContentHash ContentHash::sha256() { return ContentHash("SHA256"); }

ContentHash ContentHash::git_blob(std::int64_t size) {
    ContentHash hash("SHA1");
    const std::string head = fmt::format("blob {}", size);
    hash.update({head.c_str(), head.size() + 1});
    return hash;
}

void ContentHash::update(std::string_view bytes) {
    ZT_CHECK(EVP_DigestUpdate(of(context_.get()), bytes.data(), bytes.size()) == 1, internal,
             "OpenSSL's digest fails");
}

std::string ContentHash::finish() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    ZT_CHECK(EVP_DigestFinal_ex(of(context_.get()), digest, &size) == 1, internal,
             "OpenSSL's digest fails");
    std::string text;
    for (unsigned int i = 0; i < size; ++i) text += fmt::format("{:02x}", digest[i]);
    return text;
}

}  // namespace zoetrope
