// The UMT5 tokenizer: text -> ids, by SentencePiece's unigram model.
//
// Reads tokenizer.json (Hugging Face tokenizers), spiece.model, or GGUF's metadata. Ids are those
// of Transformers 5's T5Tokenizer, except that the unknown token's id is the file's own (UMT5: 3),
// where Transformers 5 puts 2 whatever the file says. Text that has no piece becomes the unknown
// token, in models with byte pieces too. Immutable after opening; any thread may encode.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope {

class Tokenizer {
public:
    // The tokenizer/ folder of a model, one of the two files, or the .gguf file of a T5 encoder,
    // which has its tokenizer in it. Of a folder with both,
    // tokenizer.json is read, as by Transformers. tokenizer_config.json and special_tokens_map.json
    // beside them add their special tokens; spiece.model has sentinels <extra_id_N> only where
    // they name them (extra_ids).
    // Errors: not_found with the names looked for; io for a broken file; unsupported for another
    // kind of tokenizer.
    static Tokenizer open(const std::filesystem::path& path);

    // Of the bytes of a spiece.model that came from `source` (a name for messages). Errors: io,
    // unsupported.
    static Tokenizer from_spiece_model(std::string_view bytes, const std::string& source);

    Tokenizer(Tokenizer&&) noexcept;
    Tokenizer& operator=(Tokenizer&&) noexcept;
    ~Tokenizer();

    // Ids of the text, cut to max_length - 1, then the end token. Empty text gives the end token
    // alone. text: valid UTF-8, cleaned. max_length >= 1.
    std::vector<std::int32_t> encode(std::string_view text, std::int64_t max_length = 512) const;

    // The pieces behind ids, for messages and tests.
    std::string piece(std::int32_t id) const;
    std::int32_t vocab_size() const;
    std::int32_t pad_id() const;
    std::int32_t eos_id() const;
    std::int32_t unk_id() const;

private:
    struct Model;
    explicit Tokenizer(std::unique_ptr<Model> model);
    std::unique_ptr<Model> model_;
};

// The tokenizer in the metadata of a .gguf file of a T5 encoder, as the text of a tokenizer.json,
// which Transformers reads. Errors: io, unsupported for another kind than T5's.
std::string tokenizer_json_of_gguf(const std::filesystem::path& file);

}  // namespace zoetrope
