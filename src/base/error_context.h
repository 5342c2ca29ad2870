// Says in front of an error's message what it is about, where the code that threw cannot know.
#pragma once

#include "base/error.h"

#include <utility>

namespace zoetrope {

// with_context("--max-memory", [&] { return parse_bytes(text); }): what work() gives; an Error of
// it goes on with "--max-memory: " in front and the same kind.
template <typename Work>
auto with_context(std::string_view context, Work&& work) {
    try {
        return std::forward<Work>(work)();
    } catch (const Error& error) {
        throw Error(error.kind(), fmt::format("{}: {}", context, error.what()));
    }
}

}  // namespace zoetrope
