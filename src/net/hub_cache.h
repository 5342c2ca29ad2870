// The cache in which huggingface_hub keeps downloaded repositories, shared with every program that
// reads it: models--org--name/{blobs,refs,snapshots}. A blob's name is the digest of its content; a
// snapshot is a folder of relative links to blobs, named after its commit; a ref names a commit.
//
// Pure look-ups; any thread.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace zoetrope {

// HF_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else
// ~/.cache/huggingface/hub.
std::filesystem::path hub_cache_folder();
std::filesystem::path hub_home_folder();  // HF_HOME and what stands for it

// "org/name", in the letters that the hub allows.
bool is_repository_name(std::string_view text);

// models--org--name in the cache, whether it is there or not.
std::filesystem::path repository_folder(std::string_view name);

// The snapshot that `revision` (a branch, a tag, a commit) leads to; empty where there is none.
std::filesystem::path find_snapshot(std::string_view name, const std::string& revision = "main");

}  // namespace zoetrope
