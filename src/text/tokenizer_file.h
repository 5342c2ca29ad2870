// What a tokenizer's files say, read into plain values: the pieces of a unigram model, the charsmap
// of its normaliser, and the tokens that are taken out of a text before it is normalised.
//
// Private to the tokenizer. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope {

// A token that a text is cut at before (or, if `normalized`, after) normalisation.
struct AddedToken {
    std::string content;
    std::int32_t id = -1;  // -1: the id of the piece of that name, or else the next free id
    bool normalized = false;
};

struct TokenizerFile {
    std::vector<std::string> pieces;  // by id
    std::vector<double> scores;       // log probabilities, by id
    std::int32_t unk_id = -1;
    std::string charsmap;  // "precompiled charsmap" of SentencePiece; empty: text stays as it is
    std::vector<AddedToken> added;
    std::string eos = "</s>";
    std::string pad = "<pad>";
    bool has_sentinels = false;  // <extra_id_N> are among the pieces, or there are none
};

// spiece.model: SentencePiece's ModelProto. Errors: io, unsupported for another kind than unigram.
TokenizerFile read_spiece_model(const std::filesystem::path& file);
// The same of its bytes; `name` for messages.
TokenizerFile parse_spiece_model(std::string_view bytes, const std::string& name);

// The tokenizer in the metadata of a GGUF file of a T5 encoder. Errors: io, unsupported for another
// kind than T5's.
TokenizerFile read_gguf_tokenizer(const std::filesystem::path& file);

// tokenizer.json of Hugging Face tokenizers. Errors: io, unsupported for another kind than T5's.
TokenizerFile read_tokenizer_json(const std::filesystem::path& file);

// The way back: the text of a tokenizer.json that Hugging Face tokenizers read as the same model.
// Errors: io where a piece is not UTF-8 or the end token is none of the pieces.
std::string tokenizer_json_of(const TokenizerFile& file, const std::string& name);

// Takes over what tokenizer_config.json and special_tokens_map.json beside the model name: special
// tokens, added tokens, and, for spiece.model, the number of sentinels <extra_id_N> behind its
// pieces. Files that are not there are passed over. Errors: io.
void read_tokenizer_config(const std::filesystem::path& folder, TokenizerFile& file);

}  // namespace zoetrope
