// The two digests by which a model hub names contents: SHA-256 of large files, and git's blob hash
// (SHA-1 over "blob <size>", a zero byte and the content) of the others. Over OpenSSL.
//
// One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace zoetrope {

class ContentHash {
public:
    static ContentHash sha256();
    static ContentHash git_blob(std::int64_t size);  // bytes of the whole content

    void update(std::string_view bytes);
    // Lower-case hexadecimal digits. Ends the hash.
    std::string finish();

private:
    struct Free {
        void operator()(void* context) const;
    };
    explicit ContentHash(const char* algorithm);
    std::unique_ptr<void, Free> context_;
};

}  // namespace zoetrope
