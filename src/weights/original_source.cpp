// A component under the names of another layout: the way back of canonical_source().
#include "weights/layouts.h"

#include "base/error.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <unordered_map>

namespace zoetrope {
namespace {

constexpr std::size_t kNoTensor = static_cast<std::size_t>(-1);

// With the dimensions of one that the layout has around it. `rank`: NameRule::rank.
std::vector<std::int64_t> stored_shape(ComponentKind kind, int rank,
                                       std::vector<std::int64_t> shape) {
    if (rank == 0) return shape;
    if (kind == ComponentKind::dit) return {1, shape.at(0), 1, 1};  // biases of convolutions
    if (rank == 1) return {1, 1, shape.at(0)};
    shape.insert(shape.begin(), 1);
    return shape;
}

// The blur before every second convolution of Animate's motion encoder.
at::Tensor blur_kernel() {
    const at::Tensor row = at::tensor({1.0F, 3.0F, 3.0F, 1.0F}) / 8;
    return at::outer(row, row);
}

class OriginalSource final : public TensorSource {
public:
    OriginalSource(const ComponentLayout& layout, std::shared_ptr<const TensorSource> canonical)
        : canonical_(std::move(canonical)) {
        const auto tensors = canonical_->tensors();
        std::unordered_map<std::string, std::size_t> fused;  // -> position in tensors_
        for (std::size_t i = 0; i < tensors.size(); ++i) {
            const CanonicalName place = original_place(layout, tensors[i].name);
            TensorInfo info = tensors[i];
            info.name = place.name;
            info.shape = stored_shape(layout.kind, place.rank, std::move(info.shape));
            if (place.parts == 1) {
                add(std::move(info), {i});
                continue;
            }
            const auto [whole, inserted] = fused.emplace(place.name, tensors_.size());
            if (inserted) {
                ZT_CHECK(!info.shape.empty(), io, "{}: {} has no rows", description(),
                         tensors[i].name);
                info.shape[0] *= place.parts;
                info.packed_bytes *= place.parts;
                add(std::move(info),
                    std::vector<std::size_t>(static_cast<std::size_t>(place.parts), kNoTensor));
            }
            parts_[whole->second].at(static_cast<std::size_t>(place.part)) = i;
        }
        for (const auto& [name, position] : fused) {
            const auto& parts = parts_[position];
            ZT_CHECK(std::find(parts.begin(), parts.end(), kNoTensor) == parts.end(), io,
                     "{}: not all parts of {} are there", description(), name);
        }
        if (layout.kind == ComponentKind::dit && layout.layout == Layout::original) {
            for (std::int64_t i = 1; i <= layout.num_res_blocks; ++i) {
                for (const char* end : {"conv2.0.kernel", "skip.0.kernel"}) {
                    add({fmt::format("{}motion_encoder.enc.net_app.convs.{}.{}", layout.prefix, i,
                                     end),
                         {4, 4},
                         at::kFloat},
                        {});
                }
            }
        }
    }

    std::span<const TensorInfo> tensors() const override { return tensors_; }

    at::Tensor read(std::size_t index) const override {
        return join(index, [this](std::size_t i) { return canonical_->read(i); });
    }

    at::Tensor read_as(std::size_t index, at::ScalarType dtype) const override {
        return join(index, [&](std::size_t i) { return canonical_->read_as(i, dtype); }).to(dtype);
    }

    std::string description() const override { return canonical_->description(); }

private:
    void add(TensorInfo info, std::vector<std::size_t> parts) {
        tensors_.push_back(std::move(info));
        parts_.push_back(std::move(parts));
    }

    template <typename Read>
    at::Tensor join(std::size_t index, const Read& read) const {
        const auto& parts = parts_.at(index);
        if (parts.empty()) return blur_kernel();
        if (parts.size() == 1) return read(parts[0]).view(tensors_[index].shape);
        std::vector<at::Tensor> rows;
        for (const std::size_t part : parts) rows.push_back(read(part));
        return at::cat(rows, 0).view(tensors_[index].shape);
    }

    std::shared_ptr<const TensorSource> canonical_;
    std::vector<TensorInfo> tensors_;
    std::vector<std::vector<std::size_t>> parts_;  // of each in canonical_; none: the blur's kernel
};

}  // namespace

std::shared_ptr<const TensorSource> original_source(const ComponentLayout& layout,
                                                    std::shared_ptr<const TensorSource> canonical) {
    return std::make_shared<OriginalSource>(layout, std::move(canonical));
}

}  // namespace zoetrope
