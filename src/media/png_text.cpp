#include "media/png_text.h"

#include "media/png_chunks.h"

extern "C" {
#include <libavutil/crc.h>
}

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <string_view>

// PNG (W3C recommendation, third edition): 5.2 signature, 5.3 chunk layout, 11.3.3 text chunks.
namespace zoetrope {
namespace {

constexpr std::array<std::uint8_t, 8> kSignature{0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
constexpr std::size_t kHeaderEnd = kPngSignatureBytes + kPngChunkOverhead + 13;  // behind IHDR
constexpr std::size_t kMaxKey = 79;

void append_u32(std::vector<std::uint8_t>& bytes, std::uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) {
        bytes.push_back(static_cast<std::uint8_t>(value >> shift));
    }
}

void append_itxt(std::vector<std::uint8_t>& bytes, std::string key, std::string_view text) {
    for (const char* registered : {"title", "comment", "author", "description"}) {
        if (key == registered) key[0] = static_cast<char>(key[0] - 'a' + 'A');
    }
    std::string content = "iTXt" + key.substr(0, kMaxKey);
    // End of the key; not compressed, method 0; empty language tag; empty translated key.
    content.append(5, '\0');
    content += text;
    append_u32(bytes, static_cast<std::uint32_t>(content.size() - 4));
    bytes.insert(bytes.end(), content.begin(), content.end());
    const auto* data = reinterpret_cast<const std::uint8_t*>(content.data());
    const std::uint32_t crc =
        ~av_crc(av_crc_get_table(AV_CRC_32_IEEE_LE), ~std::uint32_t{0}, data, content.size());
    append_u32(bytes, crc);
}

std::string latin1_to_utf8(std::string_view text) {
    std::string utf8;
    for (const char c : text) {
        const auto code = static_cast<unsigned char>(c);
        if (code < 0x80) {
            utf8 += c;
        } else {
            utf8 += static_cast<char>(0xC0 | code >> 6);
            utf8 += static_cast<char>(0x80 | (code & 0x3F));
        }
    }
    return utf8;
}

// The rest of `text` behind its next zero byte; nothing where there is none.
std::optional<std::string_view> behind_zero(std::string_view text) {
    const std::size_t zero = text.find('\0');
    if (zero == std::string_view::npos) return std::nullopt;
    return text.substr(zero + 1);
}

std::optional<std::string> itxt_text(std::string_view rest) {
    if (rest.size() < 2 || rest[0] != 0) return std::nullopt;  // compressed
    const auto language = behind_zero(rest.substr(2));
    const auto text = language ? behind_zero(*language) : std::nullopt;
    if (!text) return std::nullopt;
    return std::string(*text);
}

}  // namespace

std::vector<std::uint8_t> with_png_text(std::span<const std::uint8_t> png,
                                        const std::map<std::string, std::string>& metadata) {
    const std::size_t header = std::min(kHeaderEnd, png.size());
    std::vector<std::uint8_t> bytes(png.begin(), png.begin() + static_cast<std::ptrdiff_t>(header));
    for (const auto& [key, text] : metadata) append_itxt(bytes, key, text);
    bytes.insert(bytes.end(), png.begin() + static_cast<std::ptrdiff_t>(header), png.end());
    return bytes;
}

std::map<std::string, std::string> png_text(std::span<const std::uint8_t> file) {
    std::map<std::string, std::string> metadata;
    if (file.size() < kSignature.size() ||
        !std::equal(kSignature.begin(), kSignature.end(), file.begin())) {
        return metadata;
    }
    for (auto chunk = png_chunk_at(file, kPngSignatureBytes); chunk && chunk->whole;
         chunk = png_chunk_at(file, chunk->end)) {
        const std::string_view type = chunk->type, content = chunk->content;
        if (const auto rest = behind_zero(content); rest && (type == "iTXt" || type == "tEXt")) {
            std::string key(content.substr(0, content.find('\0')));
            std::transform(key.begin(), key.end(), key.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
            const auto text = type == "iTXt" ? itxt_text(*rest) : latin1_to_utf8(*rest);
            if (text) metadata[key] = *text;
        }
    }
    return metadata;
}

}  // namespace zoetrope
