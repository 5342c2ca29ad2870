// The tensors of a GGUF file as a TensorSource.
#include "base/error.h"
#include "base/mapped_file.h"
#include "ops/share_out.h"
#include "weights/gguf.h"
#include "weights/mapped_tensor.h"
#include "weights/source.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace zoetrope {
namespace {

constexpr std::int64_t kPiece = std::int64_t{1} << 14;  // numbers expanded at a time: 64 KiB

at::ScalarType dtype_of(const gguf::Format& format) {
    if (format.expand != nullptr || format.name == "F32") return at::kFloat;
    if (format.name == "F16") return at::kHalf;
    if (format.name == "BF16") return at::kBFloat16;
    if (format.name == "F64") return at::kDouble;
    if (format.name == "I8") return at::kChar;
    if (format.name == "I16") return at::kShort;
    return format.name == "I32" ? at::kInt : at::kLong;
}

// Expands the blocks to T, piece by piece on the operator threads.
template <typename T>
void expand(const gguf::Format& format, const std::byte* blocks, std::int64_t count, T* out) {
    const std::int64_t piece = kPiece / format.block_elements;
    ops::parallel_for(0, count, piece, [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> numbers(std::is_same_v<T, float> ? 0 : kPiece);
        for (std::int64_t first = begin; first < end; first += piece) {
            const std::int64_t blocks_now = std::min(piece, end - first);
            const std::byte* from = blocks + first * format.block_bytes;
            T* to = out + first * format.block_elements;
            if constexpr (std::is_same_v<T, float>) {
                format.expand(from, blocks_now, to);
            } else {
                format.expand(from, blocks_now, numbers.data());
                const std::int64_t elements = blocks_now * format.block_elements;
                for (std::int64_t i = 0; i < elements; ++i) to[i] = static_cast<T>(numbers[i]);
            }
        }
    });
}

class GgufFile final : public TensorSource {
public:
    explicit GgufFile(const std::filesystem::path& path)
        : file_(MappedFile::open(path)), header_(gguf::parse(file_->bytes(), path.string())) {
        for (const auto& entry : header_.entries) {
            TensorInfo& info = tensors_.emplace_back();
            info.name = entry.name;
            info.shape = entry.shape;
            info.dtype = dtype_of(*entry.format);
            if (entry.format->expand == nullptr) continue;
            info.packed_as = entry.format->name;
            info.packed_bytes = static_cast<std::int64_t>(entry.end - entry.begin);
        }
    }

    std::span<const TensorInfo> tensors() const override { return tensors_; }

    at::Tensor read(std::size_t index) const override {
        const auto& entry = header_.entries.at(index);
        const TensorInfo& info = tensors_[index];
        if (entry.format->expand == nullptr)
            return mapped_tensor(file_, entry.begin, info.shape, info.dtype);
        return read_as(index, at::kFloat);
    }

    at::Tensor read_as(std::size_t index, at::ScalarType dtype) const override {
        const auto& entry = header_.entries.at(index);
        const gguf::Format& format = *entry.format;
        if (format.expand == nullptr) return TensorSource::read_as(index, dtype);
        // As bytes, so that their pages come and go like those of other tensors.
        const at::Tensor bytes =
            mapped_tensor(file_, entry.begin, {tensors_[index].packed_bytes}, at::kByte);
        const auto* blocks = static_cast<const std::byte*>(bytes.const_data_ptr());
        const std::int64_t count = bytes.numel() / format.block_bytes;
        const bool direct = dtype == at::kBFloat16 || dtype == at::kHalf;
        at::Tensor out = at::empty(tensors_[index].shape, direct ? dtype : at::kFloat);
        if (dtype == at::kBFloat16) {
            expand(format, blocks, count, out.mutable_data_ptr<at::BFloat16>());
        } else if (dtype == at::kHalf) {
            expand(format, blocks, count, out.mutable_data_ptr<at::Half>());
        } else {
            expand(format, blocks, count, out.mutable_data_ptr<float>());
        }
        return out.to(dtype);
    }

    std::string description() const override { return file_->path().string(); }

    std::vector<std::pair<std::string, std::string>> metadata() const override {
        return header_.metadata;
    }

private:
    std::shared_ptr<const MappedFile> file_;
    gguf::Header header_;
    std::vector<TensorInfo> tensors_;
};

}  // namespace

std::shared_ptr<const TensorSource> open_gguf(const std::filesystem::path& file) {
    return std::make_shared<GgufFile>(file);
}

}  // namespace zoetrope
