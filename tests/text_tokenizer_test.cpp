#include "base/error.h"
#include "base/json.h"
#include "scratch.h"
#include "text/tokenizer.h"
#include "text/tokenizer_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using Ids = std::vector<std::int32_t>;

const fs::path kGolden = fs::path(ZT_SOURCE_DIR) / "tests/golden/text";

std::string read_file(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

class Tokenizers : public testing::Test {
protected:
    fs::path write(const std::string& name, const std::string& content) const {
        std::ofstream(folder_ / name, std::ios::binary) << content;
        return folder_ / name;
    }

    std::pair<ErrorKind, std::string> error_of_opening(const fs::path& path) const {
        try {
            Tokenizer::open(path);
        } catch (const Error& error) {
            return {error.kind(), error.what()};
        }
        return {ErrorKind::internal, "nothing was thrown"};
    }

    // tokenizer.json of the golden UMT5 with one value replaced.
    fs::path write_changed(const std::string& pointer, const json& value) const {
        json content = read_json(kGolden / "tokenizer_umt5/tokenizer.json");
        content[json::json_pointer(pointer)] = value;
        return write("tokenizer.json", content.dump());
    }

    const Scratch scratch_;
    const fs::path folder_ = scratch_.path();
};

// Every string of the golden file through one tokenizer.
void expect_golden(const fs::path& path, const char* key) {
    const json golden = read_json(kGolden / "tokenizer_ids.json");
    const Tokenizer tokenizer = Tokenizer::open(path);
    ASSERT_GE(golden.at("strings").size(), 290u);
    for (std::size_t i = 0; i < golden.at("strings").size(); ++i) {
        const auto text = golden.at("strings").at(i).get<std::string>();
        EXPECT_EQ(tokenizer.encode(text), golden.at(key).at(i).get<Ids>()) << "text: " << text;
    }
}

TEST_F(Tokenizers, SpieceModelGivesTheIdsOfTransformers) {
    expect_golden(kGolden / "tokenizer_t5", "t5");
}

TEST_F(Tokenizers, TokenizerJsonGivesTheIdsOfTransformers) {
    expect_golden(kGolden / "tokenizer_t5_json", "t5");
}

TEST_F(Tokenizers, ReleasedLayoutOfUmt5GivesTheIdsOfTransformers) {
    expect_golden(kGolden / "tokenizer_umt5", "umt5");
    expect_golden(kGolden / "tokenizer_umt5/tokenizer.json", "umt5");
}

// Alone it has no added tokens but its own control and user-defined pieces, and the sentinels that
// tokenizer_config.json counts.
TEST_F(Tokenizers, SpieceModelOfUmt5AloneHasItsOwnAddedTokens) {
    write("spiece.model", read_file(kGolden / "tokenizer_umt5/spiece.model"));
    write("tokenizer_config.json", R"({"extra_ids": 300})");
    expect_golden(folder_, "umt5_spiece");
}

// The metadata of a GGUF file with the pieces of a tokenizer, as llama.cpp writes them.
std::string gguf_of(const TokenizerFile& file, const std::string& model) {
    std::string bytes = "GGUF";
    const auto number = [&bytes](auto value) {
        bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
    };
    const auto text = [&](std::string_view value) {
        number(std::uint64_t{value.size()});
        bytes += value;
    };
    const auto list = [&](const char* key, std::uint32_t type, std::size_t count) {
        text(key);
        number(std::uint32_t{9});
        number(type);
        number(std::uint64_t{count});
    };
    number(std::uint32_t{3});
    number(std::uint64_t{0});  // tensors
    number(std::uint64_t{7});  // pairs
    text("general.file_type");
    number(std::uint32_t{4});
    number(std::uint32_t{1});
    text("tokenizer.ggml.model");
    number(std::uint32_t{8});
    text(model);
    list("tokenizer.ggml.tokens", 8, file.pieces.size());
    for (const std::string& piece : file.pieces) text(piece);
    list("tokenizer.ggml.scores", 6, file.scores.size());
    for (const double score : file.scores) number(static_cast<float>(score));
    list("tokenizer.ggml.token_type", 5, file.pieces.size());
    for (std::size_t i = 0; i < file.pieces.size(); ++i) {
        const auto is = [&](const AddedToken& token) { return token.content == file.pieces[i]; };
        const bool added = std::any_of(file.added.begin(), file.added.end(), is);
        const bool unknown = file.unk_id == static_cast<std::int32_t>(i);
        number(std::int32_t{unknown ? 2 : (added ? 3 : 1)});
    }
    list("tokenizer.ggml.precompiled_charsmap", 0, file.charsmap.size());
    bytes += file.charsmap;
    text("tokenizer.ggml.eos_token_id");
    number(std::uint32_t{4});
    number(std::uint32_t{1});
    return bytes;
}

TEST_F(Tokenizers, BytesAndGgufGiveTheIdsOfTheFile) {
    const fs::path spiece = kGolden / "tokenizer_umt5/spiece.model";
    const TokenizerFile file = read_spiece_model(spiece);
    const fs::path gguf = write("encoder.gguf", gguf_of(file, "t5"));
    const Tokenizer of_bytes = Tokenizer::from_spiece_model(read_file(spiece), "a tensor");
    const Tokenizer of_gguf = Tokenizer::open(gguf);
    // What a conversion writes for programs that read no GGUF.
    const Tokenizer of_json =
        Tokenizer::open(write("tokenizer.json", tokenizer_json_of_gguf(gguf)));
    fs::copy(spiece, folder_ / "spiece.model");  // alone, without tokenizer_config.json
    const Tokenizer wanted = Tokenizer::open(folder_ / "spiece.model");
    for (const char* text :
         {"A curious raccoon peers", "sunflowers\t \n x", "ＦＵＬＬ 色调艳丽", ""}) {
        EXPECT_EQ(of_bytes.encode(text), wanted.encode(text)) << text;
        EXPECT_EQ(of_gguf.encode(text), wanted.encode(text)) << text;
        EXPECT_EQ(of_json.encode(text), wanted.encode(text)) << text;
    }
    EXPECT_EQ(of_gguf.eos_id(), wanted.eos_id());

    const std::string whole = gguf_of(file, "t5");
    for (const std::size_t length : {std::size_t{3}, std::size_t{30}, whole.size() - 1}) {
        EXPECT_EQ(error_of_opening(write("cut.gguf", whole.substr(0, length))).first,
                  ErrorKind::io);
    }
    EXPECT_THAT(error_of_opening(write("bpe.gguf", gguf_of(file, "gpt2"))).second,
                HasSubstr("'gpt2'"));
}

TEST_F(Tokenizers, SpecialIdsAreThoseOfTheFile) {
    const Tokenizer t5 = Tokenizer::open(kGolden / "tokenizer_t5");
    EXPECT_EQ(t5.unk_id(), 2);
    const Tokenizer umt5 = Tokenizer::open(kGolden / "tokenizer_umt5");
    EXPECT_EQ(umt5.pad_id(), 0);
    EXPECT_EQ(umt5.eos_id(), 1);
    EXPECT_EQ(umt5.unk_id(), 3);
    EXPECT_EQ(umt5.piece(2), "<s>");
    EXPECT_EQ(umt5.piece(umt5.vocab_size() - 1), "<extra_id_0>");
    EXPECT_EQ(umt5.piece(umt5.vocab_size() - 300), "<extra_id_299>");
    EXPECT_THAT(umt5.encode("🫠"), ElementsAre(testing::_, 3, 1));
}

TEST_F(Tokenizers, LongTextIsCutBeforeTheEndToken) {
    const Tokenizer tokenizer = Tokenizer::open(kGolden / "tokenizer_t5");
    const std::string text = "A red fox walks across the fresh snow.";
    const Ids all = tokenizer.encode(text);
    ASSERT_GT(all.size(), 6u);
    Ids cut(all.begin(), all.begin() + 5);
    cut.push_back(tokenizer.eos_id());
    EXPECT_EQ(tokenizer.encode(text, 6), cut);
    EXPECT_THAT(tokenizer.encode(text, 1), ElementsAre(1));
    EXPECT_THAT(tokenizer.encode("", 512), ElementsAre(1));
    std::string book;
    for (int i = 0; i < 2000; ++i) book += text;
    EXPECT_EQ(tokenizer.encode(book).size(), 512u);
}

TEST_F(Tokenizers, AddedTokensBehindTheVocabularyKeepTheirIds) {
    const json token = {{"id", 5000}, {"content", "<style>"}, {"normalized", true}};
    json content = read_json(kGolden / "tokenizer_umt5/tokenizer.json");
    content["added_tokens"].push_back(token);
    const Tokenizer tokenizer = Tokenizer::open(write("tokenizer.json", content.dump()));
    EXPECT_EQ(tokenizer.vocab_size(), 5001);
    EXPECT_EQ(tokenizer.piece(5000), "<style>");
    EXPECT_THAT(tokenizer.encode("<style>"), ElementsAre(5000, 1));
}

TEST_F(Tokenizers, InvalidUtf8DoesNotCrash) {
    const Tokenizer tokenizer = Tokenizer::open(kGolden / "tokenizer_t5");
    for (const char* text : {"\xff\xfe", "fox \xe2\x96", "\xc3", "\x80\x80 cat", "\xf0\x9f\x98"}) {
        EXPECT_EQ(tokenizer.encode(text).back(), 1);
    }
}

TEST_F(Tokenizers, MissingFilesAreNamed) {
    const auto [kind, message] = error_of_opening(folder_);
    EXPECT_EQ(kind, ErrorKind::not_found);
    EXPECT_THAT(message, AllOf(HasSubstr("tokenizer.json"), HasSubstr("spiece.model")));
    EXPECT_EQ(error_of_opening(folder_ / "nowhere").first, ErrorKind::not_found);
}

TEST_F(Tokenizers, BrokenSpieceModelIsAnError) {
    const std::string whole = read_file(kGolden / "tokenizer_t5/spiece.model");
    for (const std::size_t size : {std::size_t{1}, std::size_t{100}, whole.size() / 2}) {
        const auto [kind, message] = error_of_opening(write("spiece.model", whole.substr(0, size)));
        EXPECT_EQ(kind, ErrorKind::io) << size << ": " << message;
    }
    EXPECT_EQ(error_of_opening(write("spiece.model", "")).first, ErrorKind::io);
    EXPECT_EQ(error_of_opening(write("spiece.model", "not a model")).first, ErrorKind::io);
    // Any byte changed: an error or another model, never a crash.
    for (std::size_t at = 0; at < whole.size(); at += 37) {
        std::string changed = whole;
        changed[at] = static_cast<char>(changed[at] ^ 0x55);
        try {
            const Tokenizer tokenizer = Tokenizer::open(write("spiece.model", changed));
            EXPECT_EQ(tokenizer.encode("Ａ red fox ① cat").back(), tokenizer.eos_id());
        } catch (const Error& error) {
            EXPECT_NE(error.kind(), ErrorKind::internal) << error.what();
        }
    }
}

TEST_F(Tokenizers, OtherKindsAreNamed) {
    auto [kind, message] = error_of_opening(write_changed("/model/type", "WordPiece"));
    EXPECT_EQ(kind, ErrorKind::unsupported);
    EXPECT_THAT(message, HasSubstr("WordPiece"));
    std::tie(kind, message) = error_of_opening(
        write("tokenizer.json", R"({"model": {"vocab": {"a": 0}, "merges": []}})"));
    EXPECT_EQ(kind, ErrorKind::unsupported);
    EXPECT_THAT(message, HasSubstr("BPE"));
    std::tie(kind, message) = error_of_opening(write_changed("/pre_tokenizer/type", "ByteLevel"));
    EXPECT_EQ(kind, ErrorKind::unsupported);
    EXPECT_THAT(message, HasSubstr("ByteLevel"));
    std::tie(kind, message) =
        error_of_opening(write_changed("/normalizer", {{"type", "Lowercase"}}));
    EXPECT_EQ(kind, ErrorKind::unsupported);
    EXPECT_THAT(message, HasSubstr("Lowercase"));
    EXPECT_EQ(error_of_opening(write_changed("/model/byte_fallback", true)).first,
              ErrorKind::unsupported);
    EXPECT_EQ(error_of_opening(write_changed("/added_tokens/4/single_word", true)).first,
              ErrorKind::unsupported);
    // trainer_spec { model_type: BPE }
    std::tie(kind, message) =
        error_of_opening(write("spiece.model", std::string("\x12\x02\x18\x02", 4)));
    EXPECT_EQ(kind, ErrorKind::unsupported);
    EXPECT_THAT(message, HasSubstr("BPE"));
}

TEST_F(Tokenizers, BrokenTokenizerJsonIsAnError) {
    EXPECT_EQ(error_of_opening(write("tokenizer.json", "{}")).first, ErrorKind::io);
    EXPECT_EQ(error_of_opening(write("tokenizer.json", "{\"model\"")).first, ErrorKind::io);
    EXPECT_EQ(error_of_opening(write("tokenizer.json", "[1e999]")).first, ErrorKind::io);
    EXPECT_EQ(error_of_opening(write_changed("/model/unk_id", 9'999'999)).first, ErrorKind::io);
    EXPECT_EQ(error_of_opening(write_changed("/model/unk_id", nullptr)).first, ErrorKind::io);
    EXPECT_EQ(error_of_opening(write_changed("/model/vocab/7", "x")).first, ErrorKind::io);
    write("tokenizer_config.json", R"({"eos_token": "<end>"})");
    auto [kind, message] = error_of_opening(write_changed("/model/vocab/7/1", -3.5));
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_THAT(message, HasSubstr("<end>"));
    write("tokenizer_config.json", "{}");
    EXPECT_EQ(Tokenizer::open(folder_).eos_id(), 1);
    EXPECT_EQ(error_of_opening(write_changed("/added_tokens/4/id", 2'000'000'000)).first,
              ErrorKind::io);
    const json charsmap = {{"type", "Precompiled"}, {"precompiled_charsmap", "AAAAAQ=="}};
    EXPECT_EQ(error_of_opening(write_changed("/normalizer", charsmap)).first, ErrorKind::io);
}

}  // namespace
}  // namespace zoetrope
