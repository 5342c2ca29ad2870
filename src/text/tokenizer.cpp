#include "text/tokenizer.h"

#include "base/error.h"
#include "text/charsmap.h"
#include "text/tokenizer_file.h"
#include "text/unigram.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <array>
#include <map>
#include <span>

namespace zoetrope {
namespace {

constexpr std::string_view kSpaceMark = "▁";  // U+2581 begins a word in the pieces

// Finds added tokens in a text: the leftmost, and of those that begin there the longest.
class AddedTokens {
public:
    void add(std::string content, std::int32_t id) {
        auto& tokens = by_first_byte_[static_cast<unsigned char>(content.front())];
        tokens.push_back({std::move(content), id});
        std::stable_sort(tokens.begin(), tokens.end(), [](const Token& a, const Token& b) {
            return a.content.size() > b.content.size();
        });
    }

    // Calls on_text(stretch) for what lies between the tokens, where not empty, and on_token(id)
    // for each token, in order.
    template <typename OnText, typename OnToken>
    void split(std::string_view text, const OnText& on_text, const OnToken& on_token) const {
        std::size_t begin = 0;
        for (std::size_t at = 0; at < text.size();) {
            const Token* token = match(text.substr(at));
            if (token == nullptr) {
                ++at;
                continue;
            }
            if (at > begin) on_text(text.substr(begin, at - begin));
            on_token(token->id);
            at += token->content.size();
            begin = at;
        }
        if (begin < text.size()) on_text(text.substr(begin));
    }

private:
    struct Token {
        std::string content;
        std::int32_t id;
    };

    const Token* match(std::string_view text) const {
        for (const Token& token : by_first_byte_[static_cast<unsigned char>(text.front())]) {
            if (text.starts_with(token.content)) return &token;
        }
        return nullptr;
    }

    std::array<std::vector<Token>, 256> by_first_byte_;  // longest first
};

// Calls on_word for each stretch without white space.
template <typename OnWord>
void split_at_white_space(std::string_view text, const OnWord& on_word) {
    const auto size = static_cast<std::int32_t>(text.size());
    const auto stretch = [&](std::int32_t begin, std::int32_t end) {
        return text.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    };
    std::int32_t begin = 0;
    for (std::int32_t at = 0, next = 0; at < size; at = next) {
        UChar32 code_point = 0;
        U8_NEXT_OR_FFFD(text.data(), next, size, code_point);
        if (!u_isUWhiteSpace(code_point)) continue;
        if (at > begin) on_word(stretch(begin, at));
        begin = next;
    }
    if (size > begin) on_word(stretch(begin, size));
}

// Puts the mark before the word, and cuts it before each mark that it has itself.
template <typename OnPart>
void mark_word(std::string_view word, const OnPart& on_part) {
    std::string marked(word.starts_with(kSpaceMark) ? "" : kSpaceMark);
    marked += word;
    for (std::size_t begin = 0; begin < marked.size();) {
        const std::size_t end = std::min(marked.find(kSpaceMark, begin + 1), marked.size());
        on_part(std::string_view(marked).substr(begin, end - begin));
        begin = end;
    }
}

// The id of a special token: of its piece, or as the file gives it to an added token.
std::int32_t special_id(const std::string& token, const Unigram& unigram,
                        std::span<const AddedToken> added, const std::filesystem::path& file) {
    std::int32_t id = unigram.id_of(token);
    for (const AddedToken& candidate : added) {
        if (id < 0 && candidate.content == token) id = candidate.id;
    }
    ZT_CHECK(id >= 0, io, "{} has no special token {}: UMT5's tokenizers have it", file.string(),
             token);
    return id;
}

// tokenizer.json where there is one, as Transformers does: it has the added tokens and their ids.
std::filesystem::path find_file(const std::filesystem::path& path) {
    ZT_CHECK(std::filesystem::exists(path), not_found,
             "there is no tokenizer at {}: give a folder with tokenizer.json or spiece.model, or "
             "one of the two files",
             path.string());
    if (!std::filesystem::is_directory(path)) return path;
    for (const char* name : {"tokenizer.json", "spiece.model"}) {
        if (std::filesystem::exists(path / name)) return path / name;
    }
    fail(ErrorKind::not_found, "{} has no tokenizer: looked for tokenizer.json and spiece.model",
         path.string());
}

}  // namespace

struct Tokenizer::Model {
    Model(TokenizerFile file, const std::filesystem::path& source)
        : charsmap(file.charsmap, source.string()),
          unigram(std::move(file.pieces), std::move(file.scores), file.unk_id),
          unk_id(file.unk_id) {
        eos_id = special_id(file.eos, unigram, file.added, source);
        pad_id = special_id(file.pad, unigram, file.added, source);
        file.added.push_back({.content = file.eos, .id = eos_id});
        file.added.push_back({.content = file.pad, .id = pad_id});
        file.added.push_back({.content = piece_of(unk_id), .id = unk_id});
        vocab_size = static_cast<std::int32_t>(unigram.pieces().size());
        for (const AddedToken& token : file.added) vocab_size = std::max(vocab_size, token.id + 1);
        for (const AddedToken& token : file.added) {
            if (token.content.empty() || added.contains(token.content)) continue;
            std::int32_t id = unigram.id_of(token.content);
            if (id < 0) id = token.id >= 0 ? token.id : vocab_size++;
            (token.normalized ? in_normalized : in_text).add(token.content, id);
            added.emplace(token.content, id);
        }
    }

    const std::string& piece_of(std::int32_t id) const {
        return unigram.pieces()[static_cast<std::size_t>(id)];
    }

    Charsmap charsmap;
    Unigram unigram;
    AddedTokens in_text, in_normalized;
    std::map<std::string, std::int32_t> added;
    std::int32_t vocab_size = 0, unk_id = 0, eos_id = 0, pad_id = 0;
};

Tokenizer::Tokenizer(std::unique_ptr<Model> model) : model_(std::move(model)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::open(const std::filesystem::path& path) {
    const std::filesystem::path file = find_file(path);
    TokenizerFile content = file.extension() == ".json"   ? read_tokenizer_json(file)
                            : file.extension() == ".gguf" ? read_gguf_tokenizer(file)
                                                          : read_spiece_model(file);
    if (file.extension() != ".gguf") read_tokenizer_config(file.parent_path(), content);
    return Tokenizer(std::make_unique<Model>(std::move(content), file));
}

Tokenizer Tokenizer::from_spiece_model(std::string_view bytes, const std::string& source) {
    return Tokenizer(std::make_unique<Model>(parse_spiece_model(bytes, source), source));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, std::int64_t max_length) const {
    ZT_CHECK(max_length >= 1, internal, "a prompt of at most {} tokens has no end token",
             max_length);
    std::vector<std::int32_t> ids;
    const auto limit = static_cast<std::size_t>(max_length - 1);
    const auto on_token = [&](std::int32_t id) { ids.push_back(id); };
    const auto on_word = [&](std::string_view word) {
        if (ids.size() >= limit) return;
        mark_word(word, [&](std::string_view part) { model_->unigram.segment(part, ids); });
    };
    const auto on_text = [&](std::string_view stretch) {
        const std::string normalized = model_->charsmap.normalize(stretch);
        model_->in_normalized.split(
            normalized, [&](std::string_view part) { split_at_white_space(part, on_word); },
            on_token);
    };
    model_->in_text.split(text, on_text, on_token);
    ids.resize(std::min(ids.size(), limit));
    ids.push_back(model_->eos_id);
    return ids;
}

std::string Tokenizer::piece(std::int32_t id) const {
    const auto& pieces = model_->unigram.pieces();
    if (id >= 0 && static_cast<std::size_t>(id) < pieces.size()) {
        return model_->piece_of(id);
    }
    for (const auto& [content, added_id] : model_->added) {
        if (added_id == id) return content;
    }
    fail(ErrorKind::internal, "there is no piece {}: the tokenizer has {}", id, model_->vocab_size);
}

std::int32_t Tokenizer::vocab_size() const { return model_->vocab_size; }
std::int32_t Tokenizer::pad_id() const { return model_->pad_id; }
std::int32_t Tokenizer::eos_id() const { return model_->eos_id; }
std::int32_t Tokenizer::unk_id() const { return model_->unk_id; }

}  // namespace zoetrope
