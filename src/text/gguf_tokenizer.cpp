// The tokenizer among the metadata of a GGUF file, where llama.cpp's conversions of T5 put it: keys
// tokenizer.ggml.* of ggml's docs/gguf.md.
#include "text/tokenizer.h"
#include "text/tokenizer_file.h"

#include "base/error.h"
#include "base/mapped_file.h"
#include "weights/byte_reader.h"

#include <algorithm>
#include <array>
#include <memory>

namespace zoetrope {
namespace {

// Types of values, and of tokens, in the format's own numbers.
enum ValueType : std::uint32_t {
    kUint8 = 0,
    kInt8 = 1,
    kInt32 = 5,
    kFloat32 = 6,
    kString = 8,
    kArray = 9
};
enum TokenType : std::int32_t { kUnknown = 2, kControl = 3, kUserDefined = 4 };

constexpr std::uint64_t kMostTokens = 1 << 24;  // UMT5 has 256384

// Bytes of a number of each type, uint8 to float64; 0 for texts and lists.
constexpr std::array<std::uint64_t, 13> kBytes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

bool is_number_of_4(std::uint32_t type) { return type < kBytes.size() && kBytes[type] == 4; }

class Reader {
public:
    explicit Reader(const std::filesystem::path& file)
        : mapped_(MappedFile::open(file)), name_(file.string()), reader_(mapped_->bytes(), name_) {}

    TokenizerFile run() {
        ZT_CHECK(reader_.text(4) == "GGUF", io, "{} is not a GGUF file", name_);
        reader_.skip(4 + 8);  // version, tensors
        const auto pairs = reader_.number<std::uint64_t>();
        for (std::uint64_t i = 0; i < pairs; ++i) {
            const std::string_view key = text();
            read_value(key, reader_.number<std::uint32_t>());
        }
        return finish();
    }

private:
    std::string_view text() { return reader_.text(reader_.number<std::uint64_t>()); }

    void read_value(std::string_view key, std::uint32_t type) {
        if (type == kArray) {
            const auto element = reader_.number<std::uint32_t>();
            const auto count = reader_.number<std::uint64_t>();
            if (!key.starts_with("tokenizer.") || !read_list(key, element, count))
                skip(element, count);
        } else if (type == kString) {
            const std::string_view value = text();
            if (key == "tokenizer.ggml.model") model_ = value;
        } else if (key == "tokenizer.ggml.eos_token_id" && is_number_of_4(type)) {
            eos_ = reader_.number<std::int32_t>();
        } else if (key == "tokenizer.ggml.padding_token_id" && is_number_of_4(type)) {
            pad_ = reader_.number<std::int32_t>();
        } else {
            skip(type, 1);
        }
    }

    void skip(std::uint32_t type, std::uint64_t count) {
        ZT_CHECK(type < kBytes.size() && type != kArray, io,
                 "{}: a value of its metadata is of the unknown type {}", name_, type);
        if (type == kString) {
            for (std::uint64_t i = 0; i < count; ++i) text();
            return;
        }
        ZT_CHECK(count <= reader_.remaining(), io, "{}: a list of {} values does not fit into it",
                 name_, count);
        reader_.skip(count * kBytes[type]);
    }

    // Whether the list is one of the tokenizer's.
    bool read_list(std::string_view key, std::uint32_t type, std::uint64_t count) {
        key.remove_prefix(std::min(key.rfind('.') + 1, key.size()));
        const bool fits = count <= kMostTokens;
        if (key == "tokens" && type == kString && fits) {
            for (std::uint64_t i = 0; i < count; ++i) file_.pieces.emplace_back(text());
        } else if (key == "scores" && type == kFloat32 && fits) {
            for (std::uint64_t i = 0; i < count; ++i)
                file_.scores.push_back(reader_.number<float>());
        } else if (key == "token_type" && type == kInt32 && fits) {
            for (std::uint64_t i = 0; i < count; ++i)
                types_.push_back(reader_.number<std::int32_t>());
        } else if (key == "precompiled_charsmap" && (type == kUint8 || type == kInt8)) {
            file_.charsmap = reader_.text(count);
        } else {
            return false;
        }
        return true;
    }

    const std::string& piece(std::int32_t id, const std::string& otherwise) const {
        const bool there = id >= 0 && static_cast<std::size_t>(id) < file_.pieces.size();
        return there ? file_.pieces[static_cast<std::size_t>(id)] : otherwise;
    }

    TokenizerFile finish() {
        ZT_CHECK(
            model_ == "t5", unsupported,
            "{} has a tokenizer of the kind '{}': UMT5's is 't5'; give the folder of a tokenizer",
            name_, model_);
        ZT_CHECK(!file_.pieces.empty() && file_.scores.size() == file_.pieces.size() &&
                     types_.size() == file_.pieces.size(),
                 io, "{}: its tokenizer has {} tokens, {} scores and {} types", name_,
                 file_.pieces.size(), file_.scores.size(), types_.size());
        for (std::size_t i = 0; i < types_.size(); ++i) {
            const auto id = static_cast<std::int32_t>(i);
            if (types_[i] == kUnknown) file_.unk_id = id;
            if (types_[i] == kControl || types_[i] == kUserDefined)
                file_.added.push_back({.content = file_.pieces[i], .id = id});
        }
        ZT_CHECK(file_.unk_id >= 0, io, "{}: its tokenizer has no unknown token", name_);
        file_.eos = piece(eos_, file_.eos);
        file_.pad = piece(pad_, file_.pad);
        file_.has_sentinels = true;
        return std::move(file_);
    }

    std::shared_ptr<const MappedFile> mapped_;
    std::string name_;
    ByteReader reader_;
    std::string_view model_;
    std::int32_t eos_ = -1, pad_ = -1;
    std::vector<std::int32_t> types_;
    TokenizerFile file_;
};

}  // namespace

TokenizerFile read_gguf_tokenizer(const std::filesystem::path& file) { return Reader(file).run(); }

std::string tokenizer_json_of_gguf(const std::filesystem::path& file) {
    return tokenizer_json_of(read_gguf_tokenizer(file), file.string());
}

}  // namespace zoetrope
