#include "base/error.h"
#include "engine/model_search.h"
#include "engine/parts.h"

namespace zoetrope {

Tokenizer open_tokenizer(const std::filesystem::path& path) {
    if (path.extension() == ".gguf" || !carries_tokenizer(path)) return Tokenizer::open(path);
    const auto source = open_weights_file(path);
    const auto tensors = source->tensors();
    const auto found = std::find_if(tensors.begin(), tensors.end(), [](const TensorInfo& info) {
        return info.name.ends_with("spiece_model");
    });
    const at::Tensor bytes = source->read(static_cast<std::size_t>(found - tensors.begin()));
    ZT_CHECK(bytes.element_size() == 1, io, "{}: the tensor {} is not a row of bytes",
             path.string(), found->name);
    return Tokenizer::from_spiece_model(
        {static_cast<const char*>(bytes.const_data_ptr()), static_cast<std::size_t>(bytes.numel())},
        path.string());
}

}  // namespace zoetrope
