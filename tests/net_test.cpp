// Names, digests and places of a model hub's cache. Downloads themselves: pull_test.py.
#include "net/content_hash.h"
#include "net/http.h"
#include "net/hub_cache.h"
#include "scratch.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

std::string digest_of(ContentHash hash, std::string_view content) {
    for (const char c : content) hash.update({&c, 1});  // in pieces
    return hash.finish();
}

// The values that `git hash-object` and `sha256sum` print.
TEST(ContentHash, IsGitsAndSha256) {
    EXPECT_EQ(digest_of(ContentHash::git_blob(0), ""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    EXPECT_EQ(digest_of(ContentHash::git_blob(6), "hello\n"),
              "ce013625030ba8dba906f756967f9e9ca394464a");
    EXPECT_EQ(digest_of(ContentHash::sha256(), "abc"),
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Http, PathsAreEncoded) {
    EXPECT_EQ(encode_path("a-b_c.~/D9"), "a-b_c.~/D9");
    EXPECT_EQ(encode_path("a b%+?#\xC3\xA4"), "a%20b%25%2B%3F%23%C3%A4");
}

TEST(HubCache, NamesOfRepositories) {
    for (const char* name : {"Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "a/b", "a_b/c.d", "0/1"}) {
        EXPECT_TRUE(is_repository_name(name)) << name;
    }
    for (const char* name : {"", "a", "a/b/c", "/a", "a/", "../a", "a/..", "a/.b", "a--b/c", "-a/b",
                             "a b/c", "a/b:c", "~/a", "./a"}) {
        EXPECT_FALSE(is_repository_name(name)) << name;
    }
}

class Environment : public testing::Test {
protected:
    void SetUp() override {
        for (const char* name :
             {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"}) {
            ::unsetenv(name);
        }
        ::setenv("HOME", "/home/somebody", 1);
    }
};

TEST_F(Environment, TheCacheLiesWhereHuggingfaceHubPutsIt) {
    EXPECT_EQ(hub_cache_folder(), "/home/somebody/.cache/huggingface/hub");
    ::setenv("XDG_CACHE_HOME", "/cache", 1);
    EXPECT_EQ(hub_cache_folder(), "/cache/huggingface/hub");
    ::setenv("HF_HOME", "~/hf", 1);
    EXPECT_EQ(hub_cache_folder(), "/home/somebody/hf/hub");
    ::setenv("HUGGINGFACE_HUB_CACHE", "/old", 1);
    EXPECT_EQ(hub_cache_folder(), "/old");
    ::setenv("HF_HUB_CACHE", "/new", 1);
    EXPECT_EQ(hub_cache_folder(), "/new");
    EXPECT_EQ(repository_folder("org/a-b"), "/new/models--org--a-b");
}

TEST_F(Environment, SnapshotsAreFoundByRefAndCommit) {
    const Scratch scratch;
    const fs::path& cache = scratch.path();
    ::setenv("HF_HUB_CACHE", cache.c_str(), 1);
    EXPECT_EQ(find_snapshot("org/name"), "");
    const fs::path repository = cache / "models--org--name";
    fs::create_directories(repository / "snapshots" / "abc");
    fs::create_directories(repository / "refs");
    EXPECT_EQ(find_snapshot("org/name"), "");
    std::ofstream(repository / "refs" / "main") << "abc";
    EXPECT_EQ(find_snapshot("org/name"), repository / "snapshots" / "abc");
    EXPECT_EQ(find_snapshot("org/name", "abc"), repository / "snapshots" / "abc");
    std::ofstream(repository / "refs" / "main") << "def";
    EXPECT_EQ(find_snapshot("org/name"), "");
}

}  // namespace
}  // namespace zoetrope
