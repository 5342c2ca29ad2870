#include "weights/weights_file.h"

#include "base/error.h"
#include "base/mapped_file.h"
#include "weights/gguf.h"
#include "weights/safetensors_header.h"
#include "weights/torch_archive.h"

#include <string_view>

namespace zoetrope {
namespace {

constexpr std::string_view kAccepted =
    ".safetensors, .gguf, and .pth, .pt or .bin of torch.save (PyTorch 1.6 and later)";
constexpr std::string_view kGitLfs = "version https://git-lfs.github.com/";

enum class Format { none, safetensors, pytorch, gguf };

Format format_of(std::span<const std::byte> file) {
    if (gguf::is_gguf(file)) return Format::gguf;
    if (torch_archive::is_archive(file)) return Format::pytorch;
    return safetensors::is_safetensors(file) ? Format::safetensors : Format::none;
}

}  // namespace

std::shared_ptr<const TensorSource> open_as_stored(const std::filesystem::path& path) {
    const auto file = MappedFile::open(path);
    const auto bytes = file->bytes();
    switch (format_of(bytes)) {
        case Format::safetensors: return open_safetensors(path);
        case Format::pytorch: return open_torch_archive(path);
        case Format::gguf: return open_gguf(path);
        case Format::none: break;
    }
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    ZT_CHECK(!text.starts_with(kGitLfs), io,
             "{} is not the weights but a note of Git LFS where to find them: download the file "
             "itself (git lfs pull)",
             path.string());
    ZT_CHECK(!torch_archive::is_bare_pickle(bytes), unsupported,
             "{} is a Pickle file as torch.save wrote it before PyTorch 1.6, which is not read. "
             "Convert it in Python: torch.save(torch.load(\"{}\", weights_only=True), \"new.pth\")",
             path.string(), path.filename().string());
    // The name says what it should be, and the reader says what is wrong with it.
    if (path.extension() == ".safetensors") return open_safetensors(path);
    fail(ErrorKind::unsupported, "{} is not a weight file that can be read: accepted are {}",
         path.string(), kAccepted);
}

std::shared_ptr<const TensorSource> open_weights_file(const std::filesystem::path& file) {
    return unscale_fp8(open_as_stored(file));
}

std::string_view weights_format_of(const std::filesystem::path& file) {
    switch (format_of(MappedFile::open(file)->bytes())) {
        case Format::safetensors: return "safetensors";
        case Format::pytorch: return "pytorch";
        case Format::gguf: return "gguf";
        case Format::none: break;
    }
    return {};
}

}  // namespace zoetrope
