#include "base/json.h"

#include "base/error.h"
#include "base/mapped_file.h"

namespace zoetrope {

nlohmann::json read_json(const std::filesystem::path& path) {
    const auto file = MappedFile::open(path);
    const auto bytes = file->bytes();
    return parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

nlohmann::json parse_json(std::string_view text, std::string_view source) {
    try {
        return nlohmann::json::parse(text);
    } catch (const nlohmann::json::parse_error& error) {
        fail(ErrorKind::io, "{} is not valid JSON: {}", source, error.what());
    }
}

}  // namespace zoetrope
