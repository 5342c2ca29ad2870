// spiece.model: a SentencePiece ModelProto, in the wire format of Protocol Buffers
// (protobuf.dev/programming-guides/encoding). Field numbers are those of sentencepiece_model.proto.
#include "base/error.h"
#include "base/mapped_file.h"
#include "text/tokenizer_file.h"

#include <array>
#include <cstring>
#include <optional>
#include <string_view>

namespace zoetrope {
namespace {

struct Field {
    std::uint64_t number = 0;
    std::uint64_t value = 0;  // of varint and fixed fields
    std::string_view bytes;   // of length-delimited ones
};

// The fields of one message, in order.
class FieldReader {
public:
    FieldReader(std::string_view message, const std::string& file) : rest_(message), file_(file) {}

    std::optional<Field> next() {
        if (rest_.empty()) return std::nullopt;
        const std::uint64_t key = varint();
        Field field{.number = key >> 3};
        switch (key & 7) {
            case 0: field.value = varint(); break;
            case 1: field.value = fixed<std::uint64_t>(); break;
            case 2: field.bytes = take(varint()); break;
            case 5: field.value = fixed<std::uint32_t>(); break;
            default: broken();
        }
        return field;
    }

private:
    [[noreturn]] void broken() const {
        fail(ErrorKind::io,
             "{} is not a whole SentencePiece model: a field breaks off {} bytes before its "
             "message ends",
             file_, rest_.size());
    }

    std::string_view take(std::uint64_t count) {
        if (count > rest_.size()) broken();
        const std::string_view taken = rest_.substr(0, count);
        rest_.remove_prefix(count);
        return taken;
    }

    template <typename Value>
    Value fixed() {
        Value value = 0;
        std::memcpy(&value, take(sizeof(value)).data(), sizeof(value));
        return value;
    }

    std::uint64_t varint() {
        std::uint64_t value = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            const auto byte = static_cast<unsigned char>(take(1)[0]);
            value |= static_cast<std::uint64_t>(byte & 0x7Fu) << shift;
            if (byte < 0x80u) return value;
        }
        broken();
    }

    std::string_view rest_;
    const std::string& file_;
};

enum class PieceType { normal = 1, unknown = 2, control = 3, user_defined = 4 };

void read_piece(std::string_view message, const std::string& name, TokenizerFile& file) {
    std::string piece;
    float score = 0;
    auto type = PieceType::normal;
    FieldReader fields(message, name);
    while (const auto field = fields.next()) {
        if (field->number == 1) piece = field->bytes;
        if (field->number == 2) {
            const auto bits = static_cast<std::uint32_t>(field->value);
            std::memcpy(&score, &bits, sizeof(score));
        }
        if (field->number == 3) type = static_cast<PieceType>(field->value);
    }
    const auto id = static_cast<std::int32_t>(file.pieces.size());
    if (type == PieceType::unknown) file.unk_id = id;
    if (type == PieceType::control || type == PieceType::user_defined) {
        file.added.push_back({.content = piece, .id = id});
    }
    file.pieces.push_back(std::move(piece));
    file.scores.push_back(score);
}

void check_model_type(std::string_view trainer_spec, const std::string& name) {
    constexpr std::array<std::string_view, 5> kTypes = {"", "unigram", "BPE", "word", "character"};
    FieldReader fields(trainer_spec, name);
    while (const auto field = fields.next()) {
        if (field->number != 3) continue;
        ZT_CHECK(field->value == 1, unsupported,
                 "{} is a {} model of SentencePiece: UMT5's tokenizers are unigram models", name,
                 field->value < kTypes.size() ? kTypes[field->value] : "foreign");
    }
}

}  // namespace

TokenizerFile read_spiece_model(const std::filesystem::path& file) {
    const auto mapped = MappedFile::open(file);
    return parse_spiece_model(
        {reinterpret_cast<const char*>(mapped->bytes().data()), mapped->bytes().size()},
        file.string());
}

TokenizerFile parse_spiece_model(std::string_view message, const std::string& name) {
    TokenizerFile result;
    FieldReader fields(message, name);
    while (const auto field = fields.next()) {
        if (field->number == 1) read_piece(field->bytes, name, result);
        if (field->number == 2) check_model_type(field->bytes, name);
        if (field->number != 3) continue;
        FieldReader normalizer(field->bytes, name);
        while (const auto setting = normalizer.next()) {
            if (setting->number == 2) result.charsmap = setting->bytes;
        }
    }
    ZT_CHECK(!result.pieces.empty(), io, "{} is not a SentencePiece model: it has no pieces", name);
    ZT_CHECK(result.unk_id >= 0, io, "{} has no piece of the type unknown among its {}", name,
             result.pieces.size());
    return result;
}

}  // namespace zoetrope
