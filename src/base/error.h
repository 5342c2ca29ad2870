// Errors of the whole program: one exception type with a kind, thrown by ZT_CHECK or fail().
//
// Only the shells (cli, server, workflow) catch; they turn the kind into an exit code or a status.
// A message is one sentence for the user: what was given, what is accepted, what to do. Assertions
// are for our own bugs, never for input. Safe from any thread.
#pragma once

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace zoetrope {

enum class ErrorKind {
    bad_request,  // the user's input is wrong: exit code 2, HTTP 400
    not_found,    // a file or a model is not there: exit code 2, HTTP 404
    unsupported,  // understood, but not built or not possible on this machine: exit code 2, HTTP
                  // 400
    io,  // a file cannot be read or written, or its content is broken: exit code 1, HTTP 500
    out_of_memory,  // predicted or met: exit code 1, HTTP 507
    cancelled,      // the caller asked to stop: exit code 130, HTTP 499
    internal,       // our own bug: exit code 1, HTTP 500
};

// "bad_request", "io", ...
std::string_view name_of(ErrorKind kind);

class Error : public std::runtime_error {
public:
    Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
    ErrorKind kind() const { return kind_; }

private:
    ErrorKind kind_;
};

template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
    throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace zoetrope

// ZT_CHECK(frames > 0, bad_request, "--num-frames is {}: accepted are 1 and more", frames);
#define ZT_CHECK(condition, kind, ...)                                  \
    do {                                                                \
        if (!(condition)) {                                             \
            ::zoetrope::fail(::zoetrope::ErrorKind::kind, __VA_ARGS__); \
        }                                                               \
    } while (false)
