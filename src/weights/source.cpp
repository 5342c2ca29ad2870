#include "weights/source.h"

#include "base/error.h"
#include "weights/expand_bytes.h"

#include <unordered_map>
#include <unordered_set>

namespace zoetrope {
namespace {

class JoinedSource final : public TensorSource {
public:
    JoinedSource(std::vector<std::shared_ptr<const TensorSource>> sources, std::string description)
        : sources_(std::move(sources)), description_(std::move(description)) {
        std::unordered_map<std::string_view, std::size_t> owners;
        for (std::size_t s = 0; s < sources_.size(); ++s) {
            const auto tensors = sources_[s]->tensors();
            for (std::size_t i = 0; i < tensors.size(); ++i) {
                const auto [owner, inserted] = owners.emplace(tensors[i].name, s);
                ZT_CHECK(inserted, io, "tensor {} is in both {} and {}", tensors[i].name,
                         sources_[owner->second]->description(), sources_[s]->description());
                tensors_.push_back(tensors[i]);
                places_.push_back({s, i});
            }
        }
    }

    std::span<const TensorInfo> tensors() const override { return tensors_; }

    at::Tensor read(std::size_t index) const override {
        const Place& place = places_.at(index);
        return sources_[place.source]->read(place.index);
    }

    at::Tensor read_as(std::size_t index, at::ScalarType dtype) const override {
        const Place& place = places_.at(index);
        return sources_[place.source]->read_as(place.index, dtype);
    }

    std::string description() const override { return description_; }

    // Of all sources; where two have the same key, the first one's.
    std::vector<std::pair<std::string, std::string>> metadata() const override {
        std::vector<std::pair<std::string, std::string>> pairs;
        std::unordered_set<std::string> keys;
        for (const auto& source : sources_) {
            for (auto& pair : source->metadata()) {
                if (keys.insert(pair.first).second) pairs.push_back(std::move(pair));
            }
        }
        return pairs;
    }

private:
    struct Place {
        std::size_t source;
        std::size_t index;
    };

    std::vector<std::shared_ptr<const TensorSource>> sources_;
    std::string description_;
    std::vector<TensorInfo> tensors_;
    std::vector<Place> places_;
};

}  // namespace

std::int64_t TensorInfo::elements() const {
    std::int64_t count = 1;
    for (const std::int64_t size : shape) count *= size;
    return count;
}

std::int64_t TensorInfo::bytes() const {
    return elements() * static_cast<std::int64_t>(c10::elementSize(dtype));
}

std::int64_t TensorInfo::stored_bytes() const { return packed_as.empty() ? bytes() : packed_bytes; }

bool TensorInfo::packed() const { return !packed_as.empty() || c10::isFloat8Type(dtype); }

at::Tensor TensorSource::read_as(std::size_t index, at::ScalarType dtype) const {
    const at::Tensor tensor = read(index);
    const at::ScalarType stored = tensor.scalar_type();
    if (stored == dtype) return tensor;
    return c10::isFloat8Type(stored) ? expand_bytes(tensor, {}, dtype) : tensor.to(dtype);
}

std::shared_ptr<const TensorSource> join_sources(
    std::vector<std::shared_ptr<const TensorSource>> sources, std::string description) {
    return std::make_shared<JoinedSource>(std::move(sources), std::move(description));
}

}  // namespace zoetrope
