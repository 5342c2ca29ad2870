// The tensors of a torch_archive as a TensorSource.
#include "base/error.h"
#include "base/mapped_file.h"
#include "weights/mapped_tensor.h"
#include "weights/source.h"
#include "weights/torch_archive.h"

namespace zoetrope {
namespace {

class TorchFile final : public TensorSource {
public:
    explicit TorchFile(const std::filesystem::path& path)
        : file_(MappedFile::open(path)),
          entries_(torch_archive::parse(file_->bytes(), path.string())) {
        for (const auto& entry : entries_) {
            tensors_.push_back({entry.name, entry.shape, scalar_type_of(entry.dtype)});
        }
    }

    std::span<const TensorInfo> tensors() const override { return tensors_; }

    at::Tensor read(std::size_t index) const override {
        const auto& entry = entries_.at(index);
        const TensorInfo& info = tensors_[index];
        if (info.elements() == 0 || torch_archive::is_contiguous(entry))
            return mapped_tensor(file_, entry.begin, info.shape, info.dtype);
        std::int64_t extent = 1;
        for (std::size_t i = 0; i < entry.shape.size(); ++i) {
            extent += (entry.shape[i] - 1) * entry.strides[i];
        }
        return mapped_tensor(file_, entry.begin, {extent}, info.dtype)
            .as_strided(entry.shape, entry.strides)
            .contiguous();
    }

    std::string description() const override { return file_->path().string(); }

private:
    std::shared_ptr<const MappedFile> file_;
    std::vector<torch_archive::Entry> entries_;
    std::vector<TensorInfo> tensors_;
};

}  // namespace

std::shared_ptr<const TensorSource> open_torch_archive(const std::filesystem::path& file) {
    return std::make_shared<TorchFile>(file);
}

}  // namespace zoetrope
