// tokenizer.json of Hugging Face tokenizers, as T5's and UMT5's are, and the settings beside it.
//
// Of the normaliser only the charsmap is taken over: what else T5's files have there (Strip, and
// Replace of runs of spaces) has no effect once a text is split at white space, which Transformers
// does for all of them.
#include "base/error.h"
#include "base/json.h"
#include "text/tokenizer_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace zoetrope {
namespace {

using nlohmann::json;

std::string decode_base64(std::string_view text, const std::string& name) {
    std::string out;
    out.reserve(text.size() / 4 * 3);
    std::uint32_t bits = 0;
    int count = 0;
    for (const char c : text) {
        if (c == '=') break;
        std::uint32_t value = 0;
        if (c >= 'A' && c <= 'Z') {
            value = static_cast<std::uint32_t>(c - 'A');
        } else if (c >= 'a' && c <= 'z') {
            value = static_cast<std::uint32_t>(c - 'a') + 26;
        } else if (c >= '0' && c <= '9') {
            value = static_cast<std::uint32_t>(c - '0') + 52;
        } else {
            ZT_CHECK(c == '+' || c == '/', io, "{}: precompiled_charsmap is not base64", name);
            value = c == '+' ? 62 : 63;
        }
        bits = bits << 6 | value;
        count += 6;
        if (count < 8) continue;
        count -= 8;
        out.push_back(static_cast<char>(bits >> count & 0xFFu));
    }
    return out;
}

std::string encode_base64(std::string_view bytes) {
    constexpr std::string_view kDigits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    out.reserve((bytes.size() + 2) / 3 * 4);
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        const std::string_view group = bytes.substr(i, 3);
        std::uint32_t bits = 0;
        for (std::size_t k = 0; k < 3; ++k)
            bits = bits << 8 | (k < group.size() ? static_cast<unsigned char>(group[k]) : 0u);
        for (std::size_t k = 0; k < 4; ++k)
            out.push_back(k <= group.size() ? kDigits[bits >> (18 - 6 * k) & 63u] : '=');
    }
    return out;
}

// "type" of one part of the pipeline; "none" where there is no such part.
std::string type_of(const json& part) {
    return part.is_object() ? part.value("type", "of unknown kind") : "none";
}

// The parts of a Sequence, or the part itself.
json parts_of(const json& part, const char* key) {
    if (part.is_null()) return json::array();
    if (type_of(part) == "Sequence") return part.at(key);
    return json::array({part});
}

void read_normalizer(const json& normalizer, const std::string& name, TokenizerFile& file) {
    for (const json& part : parts_of(normalizer, "normalizers")) {
        const std::string type = type_of(part);
        if (type == "Precompiled") {
            const json& charsmap = part.at("precompiled_charsmap");
            if (charsmap.is_string()) {
                file.charsmap = decode_base64(charsmap.get<std::string>(), name);
            }
            continue;
        }
        const bool spaces = type == "Replace" && part.at("pattern").contains("Regex") &&
                            part.at("pattern").at("Regex") == " {2,}";
        ZT_CHECK(spaces || type == "Strip", unsupported,
                 "{}: the normalizer has a part of type {}: accepted are Precompiled, Strip and "
                 "Replace of runs of spaces",
                 name, type);
    }
}

void check_pre_tokenizer(const json& pre_tokenizer, const std::string& name) {
    bool metaspace = false;
    for (const json& part : parts_of(pre_tokenizer, "pretokenizers")) {
        const std::string type = type_of(part);
        metaspace = metaspace || (type == "Metaspace" && part.value("replacement", "▁") == "▁");
        ZT_CHECK(type == "Metaspace" || type == "WhitespaceSplit", unsupported,
                 "{}: the pre_tokenizer has a part of type {}: accepted are WhitespaceSplit and "
                 "Metaspace",
                 name, type);
    }
    ZT_CHECK(metaspace, unsupported, "{}: the pre_tokenizer has no Metaspace of \"▁\"", name);
}

void read_model(const json& model, const std::string& name, TokenizerFile& file) {
    const std::string type = model.value("type", model.contains("merges") ? "BPE" : "none");
    ZT_CHECK(type == "Unigram", unsupported,
             "{} is a tokenizer of the kind {}: Zoetrope reads UMT5's kind, Unigram", name, type);
    ZT_CHECK(!model.value("byte_fallback", false), unsupported,
             "{}: the model spells unknown text in bytes (byte_fallback), which UMT5's does not",
             name);
    const json& vocab = model.at("vocab");
    for (const json& entry : vocab) {
        file.pieces.push_back(entry.at(0).get<std::string>());
        file.scores.push_back(entry.at(1).get<double>());
    }
    const json unk_id = model.value("unk_id", json());
    ZT_CHECK(unk_id.is_number_unsigned() && unk_id.get<std::size_t>() < file.pieces.size(), io,
             "{}: unk_id is {}: it must be one of the {} pieces", name, unk_id.dump(),
             file.pieces.size());
    file.unk_id = unk_id.get<std::int32_t>();
}

// An id as JSON spells it; -1: none is given.
std::int32_t checked_id(const std::string& text, const std::string& name) {
    constexpr std::int32_t kMaxId = 1 << 24;  // far above every vocabulary
    std::int32_t id = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    ZT_CHECK(error == std::errc() && end == text.data() + text.size() && id >= -1 && id <= kMaxId,
             io, "{}: an added token has the id {}: accepted are 0 to {}", name, text, kMaxId);
    return id;
}

AddedToken read_added_token(const json& token, const std::string& name) {
    AddedToken added{.content = token.at("content").get<std::string>(),
                     .id = checked_id(token.value("id", json(-1)).dump(), name),
                     .normalized = token.value("normalized", false)};
    ZT_CHECK(!token.value("single_word", false), unsupported,
             "{}: the added token {} matches whole words only (single_word): UMT5's do not", name,
             added.content);
    return added;
}

// A special token is a string, or an object with its content.
std::string content_of(const json& token) {
    return token.is_object() ? token.at("content").get<std::string>() : token.get<std::string>();
}

void read_special_tokens(const json& config, TokenizerFile& file) {
    const auto text_of = [&](const char* key, std::string& text) {
        if (config.contains(key) && !config.at(key).is_null()) text = content_of(config.at(key));
    };
    text_of("eos_token", file.eos);
    text_of("pad_token", file.pad);
    for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
        if (!config.contains(key) || !config.at(key).is_array()) continue;
        for (const json& token : config.at(key)) {
            file.added.push_back({.content = content_of(token)});
        }
    }
}

// T5's sentinels: behind the pieces, <extra_id_0> last.
void append_sentinels(std::int64_t count, TokenizerFile& file) {
    const auto& pieces = file.pieces;
    const bool found = std::find(pieces.begin(), pieces.end(), "<extra_id_0>") != pieces.end();
    if (file.has_sentinels || found) return;
    for (std::int64_t n = count - 1; n >= 0; --n) {
        const std::string piece = fmt::format("<extra_id_{}>", n);
        file.pieces.push_back(piece);
        file.scores.push_back(0);
        file.added.push_back({.content = piece});
    }
}

// Runs `read` on the file's JSON; a value of another type than expected becomes an io error.
template <typename Read>
void with_json(const std::filesystem::path& path, const Read& read) {
    try {
        read(read_json(path));
    } catch (const json::exception& error) {
        fail(ErrorKind::io, "{} is not what such a file of a tokenizer has to be: {}",
             path.string(), error.what());
    }
}

}  // namespace

TokenizerFile read_tokenizer_json(const std::filesystem::path& path) {
    const std::string name = path.string();
    TokenizerFile file;
    file.has_sentinels = true;
    with_json(path, [&](const json& content) {
        read_model(content.at("model"), name, file);
        read_normalizer(content.value("normalizer", json()), name, file);
        check_pre_tokenizer(content.value("pre_tokenizer", json()), name);
        for (const json& token : content.value("added_tokens", json::array())) {
            file.added.push_back(read_added_token(token, name));
        }
    });
    return file;
}

void read_tokenizer_config(const std::filesystem::path& folder, TokenizerFile& file) {
    constexpr std::int64_t kMaxSentinels = 1 << 16;
    const auto map = folder / "special_tokens_map.json";
    if (std::filesystem::exists(map)) {
        with_json(map, [&](const json& content) { read_special_tokens(content, file); });
    }
    const auto config = folder / "tokenizer_config.json";
    if (!std::filesystem::exists(config)) return;
    with_json(config, [&](const json& content) {
        const std::int64_t extra_ids = content.value("extra_ids", std::int64_t{0});
        ZT_CHECK(extra_ids >= 0 && extra_ids <= kMaxSentinels, io,
                 "{}: extra_ids is {}: accepted are 0 to {}", config.string(), extra_ids,
                 kMaxSentinels);
        append_sentinels(extra_ids, file);
        const json decoder = content.value("added_tokens_decoder", json::object());
        for (const auto& [id, token] : decoder.items()) {
            AddedToken added = read_added_token(token, config.string());
            added.id = checked_id(id, config.string());
            file.added.push_back(std::move(added));
        }
        read_special_tokens(content, file);
    });
}

std::string tokenizer_json_of(const TokenizerFile& file, const std::string& name) {
    json vocab = json::array(), added = json::array();
    std::int64_t eos = -1;
    for (std::size_t i = 0; i < file.pieces.size(); ++i) {
        vocab.push_back({file.pieces[i], file.scores.at(i)});
        if (file.pieces[i] == file.eos) eos = static_cast<std::int64_t>(i);
    }
    ZT_CHECK(eos >= 0, io, "{}: the tokenizer's end token {} is none of its pieces", name,
             file.eos);
    for (const AddedToken& token : file.added) {
        added.push_back({{"id", token.id},
                         {"content", token.content},
                         {"single_word", false},
                         {"lstrip", false},
                         {"rstrip", false},
                         {"normalized", token.normalized},
                         {"special", true}});
    }
    const json metaspace = {
        {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "always"}, {"split", true}};
    const auto sequence = [](const char* id) {
        return json{{"Sequence", {{"id", id}, {"type_id", 0}}}};
    };
    const json end = {{"SpecialToken", {{"id", file.eos}, {"type_id", 0}}}};
    json normalizer;
    if (!file.charsmap.empty())
        normalizer = {{"type", "Precompiled"},
                      {"precompiled_charsmap", encode_base64(file.charsmap)}};
    const json whole = {
        {"version", "1.0"},
        {"truncation", nullptr},
        {"padding", nullptr},
        {"added_tokens", added},
        {"normalizer", normalizer},
        {"pre_tokenizer",
         {{"type", "Sequence"},
          {"pretokenizers", json::array({json{{"type", "WhitespaceSplit"}}, metaspace})}}},
        {"post_processor",
         {{"type", "TemplateProcessing"},
          {"single", json::array({sequence("A"), end})},
          {"pair", json::array({sequence("A"), end, sequence("B"), end})},
          {"special_tokens",
           {{file.eos,
             {{"id", file.eos},
              {"ids", json::array({eos})},
              {"tokens", json::array({file.eos})}}}}}}},
        {"decoder", metaspace},
        {"model",
         {{"type", "Unigram"},
          {"unk_id", file.unk_id},
          {"vocab", vocab},
          {"byte_fallback", false}}}};
    try {
        return whole.dump();
    } catch (const json::type_error&) {
        fail(ErrorKind::io, "{}: a piece of its tokenizer is not UTF-8", name);
    }
}

}  // namespace zoetrope
