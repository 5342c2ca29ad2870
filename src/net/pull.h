// Downloads a model repository into the cache that huggingface_hub reads (hub_cache.h).
//
// Files that are there already are not asked for again. What is downloaded lies in blobs/ under
// NAME.incomplete until all of it is there and its digest is right; stopped at any point, the next
// pull goes on from there. The ref comes last, so that a half-downloaded revision is found by
// nobody. One pull at a time works on a blob, also between processes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/progress.h"

namespace zoetrope {

struct PullOptions {
    std::string repository;  // "org/name"
    std::string revision = "main";
    // Patterns with * ? [] as the shell has them, where * takes slashes too; a pattern that ends
    // with a slash stands for all below. No include: everything.
    std::vector<std::string> include{}, exclude{};
    int retries = 5;  // after failures of the network in a row; bytes that arrive begin a new row
};

struct PullResult {
    std::filesystem::path snapshot;
    std::string commit;
    int files = 0;
    std::int64_t bytes = 0;             // of all files
    std::int64_t downloaded_bytes = 0;  // of them, what came over the network now
};

// Reports progress of Stage::download in MiB. Errors: as hub.h, and io for a full disk and for
// content that is not what the hub says.
PullResult pull(const PullOptions& options, const RunControl& control);

}  // namespace zoetrope
