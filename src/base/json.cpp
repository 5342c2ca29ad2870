#include "base/json.h"

#include "base/error.h"
#include "base/mapped_file.h"

namespace zoetrope {
namespace {

// Python writes Infinity, -Infinity and NaN, which JSON does not have: the largest double and null
// stand for them here.
std::string without_infinities(std::string_view text) {
    constexpr std::string_view kInfinity = "Infinity", kNan = "NaN";
    std::string out;
    out.reserve(text.size());
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (in_string && text[i] == '\\' && i + 1 < text.size()) {
            out += text[i++];
        } else if (text[i] == '"') {
            in_string = !in_string;
        } else if (!in_string && text.substr(i).starts_with(kInfinity)) {
            out += "1.7976931348623157e308";
            i += kInfinity.size() - 1;
            continue;
        } else if (!in_string && text.substr(i).starts_with(kNan)) {
            out += "null";
            i += kNan.size() - 1;
            continue;
        }
        out += text[i];
    }
    return out;
}

}  // namespace

nlohmann::json read_json(const std::filesystem::path& path) {
    const auto file = MappedFile::open(path);
    const auto bytes = file->bytes();
    return parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

nlohmann::json parse_json(std::string_view text, std::string_view source) {
    try {
        return nlohmann::json::parse(without_infinities(text));
    } catch (const nlohmann::json::exception& error) {
        const std::string_view what = error.what();  // "[json.exception....] parse error at ..."
        fail(ErrorKind::io, "{} is not valid JSON: {}", source, what.substr(what.find("] ") + 2));
    }
}

}  // namespace zoetrope
