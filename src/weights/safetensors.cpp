#include "weights/safetensors_header.h"
#include "weights/source.h"

#include "base/mapped_file.h"
#include "weights/mapped_tensor.h"

namespace zoetrope {
namespace {

class SafetensorsFile final : public TensorSource {
public:
    explicit SafetensorsFile(const std::filesystem::path& path)
        : file_(MappedFile::open(path)),
          header_(safetensors::parse(file_->bytes(), path.string())) {
        tensors_.reserve(header_.entries.size());
        for (const auto& entry : header_.entries) {
            tensors_.push_back({entry.name, entry.shape, scalar_type_of(entry.dtype)});
        }
    }

    std::span<const TensorInfo> tensors() const override { return tensors_; }

    at::Tensor read(std::size_t index) const override {
        return mapped_tensor(file_, header_.entries.at(index).begin, tensors_[index].shape,
                             tensors_[index].dtype);
    }

    std::string description() const override { return file_->path().string(); }

    std::vector<std::pair<std::string, std::string>> metadata() const override {
        return header_.metadata;
    }

private:
    std::shared_ptr<const MappedFile> file_;
    safetensors::Header header_;
    std::vector<TensorInfo> tensors_;
};

}  // namespace

std::shared_ptr<const TensorSource> open_safetensors(const std::filesystem::path& file) {
    return std::make_shared<SafetensorsFile>(file);
}

}  // namespace zoetrope
