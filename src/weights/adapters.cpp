#include "weights/adapters.h"

#include "base/error.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/kron.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/sum.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <unordered_map>

namespace zoetrope {
namespace {

constexpr std::string_view kModes[] = {"runtime", "merged"};

// Elements of a parameter that are changed at a time: 16 MiB in float32.
constexpr std::int64_t kElementsAtOnce = std::int64_t{1} << 22;

bool is_low_rank(const AdapterDelta& delta) {
    return delta.up.defined() && !delta.magnitude.defined() && delta.param.role == Role::matrix;
}

void check_finite(const at::Tensor& tensor, const std::string& key) {
    const double sum = at::sum(tensor, at::kFloat).item<double>();
    ZT_CHECK(std::isfinite(sum), io, "the adapter's tensors of {} hold numbers that are not finite",
             key);
}

// Rows [first, first + base.size(0)) of what an adapter of strength 1 adds to base [rows, columns].
// kron: the whole product, where the change is one.
at::Tensor added_rows(const AdapterDelta& delta, const at::Tensor& kron, const at::Tensor& base,
                      std::int64_t first) {
    const std::int64_t count = base.size(0);
    const at::Device device = base.device();
    const auto wide = [device](const at::Tensor& t) { return t.to(device, at::kFloat); };
    at::Tensor added;
    if (delta.up.defined()) {
        added = at::matmul(wide(delta.up.narrow(0, first, count).flatten(1)),
                           wide(delta.down.flatten(1)));
    } else if (kron.defined()) {
        added = kron.narrow(0, first, count);
    } else {
        added = wide(delta.difference).reshape({-1, base.size(1)}).narrow(0, first, count);
    }
    added = added * delta.scale;
    if (!delta.magnitude.defined()) return added;
    // DoRA: the changed rows are brought to their own length.
    const at::Tensor sum = base + added;
    const at::Tensor lengths = at::linalg_vector_norm(sum, 2, 1, true);
    const at::Tensor wanted = wide(delta.magnitude).flatten().narrow(0, first, count).unsqueeze(1);
    return sum * (wanted / lengths) - base;
}

}  // namespace

AdapterMode parse_adapter_mode(std::string_view text) {
    const auto* found = std::find(std::begin(kModes), std::end(kModes), text);
    ZT_CHECK(found != std::end(kModes), bad_request, "'{}' is unknown: accepted are {}", text,
             fmt::join(kModes, ", "));
    return static_cast<AdapterMode>(found - std::begin(kModes));
}

std::string_view name_of(AdapterMode mode) { return kModes[static_cast<std::size_t>(mode)]; }

AdapterSet::AdapterSet(std::span<const Param> params, std::span<const AdapterUse> uses,
                       const AdapterSetOptions& options)
    : entries_(params.size()) {
    std::vector<std::vector<Change>> low_rank(params.size());
    for (const AdapterUse& use : uses) {
        ZT_CHECK(std::isfinite(use.strength), bad_request,
                 "{}: the strength is not a finite number", use.adapter.name);
        if (use.strength == 0) continue;
        for (const AdapterDelta& delta : use.adapter.deltas) {
            const auto id = static_cast<std::size_t>(delta.param.id);
            const bool beside = options.mode == AdapterMode::runtime && is_low_rank(delta);
            for (const at::Tensor& t :
                 {delta.left, delta.right, delta.difference, delta.magnitude}) {
                if (t.defined()) check_finite(t.to(at::kFloat), delta.key);
            }
            (beside ? low_rank.at(id) : entries_.at(id).changes).push_back({delta, use.strength});
        }
    }
    for (std::size_t id = 0; id < low_rank.size(); ++id) {
        if (!low_rank[id].empty()) entries_[id].low_rank = join(low_rank[id], options);
        if (entries_[id].changes.empty()) continue;
        std::int64_t elements = 1;
        for (const std::int64_t n : params[id].shape) elements *= n;
        change_bytes_ = std::max<std::int64_t>(change_bytes_, 4 * elements);
    }
}

// The factors of all adapters side by side: one product of the summed rank.
ops::LowRank AdapterSet::join(std::span<const Change> changes, const AdapterSetOptions& options) {
    std::vector<at::Tensor> down, up;
    for (const auto& [delta, strength] : changes) {
        down.push_back(delta.down.flatten(1).to(options.device, options.dtype));
        const at::Tensor factors = delta.up.flatten(1);
        const double scale = delta.scale * strength;
        up.push_back(scale == 1
                         ? factors.to(options.device, options.dtype)
                         : (factors.to(options.device, at::kFloat) * scale).to(options.dtype));
        check_finite(down.back(), delta.key);
        check_finite(up.back(), delta.key);
    }
    const ops::LowRank joined = changes.size() == 1
                                    ? ops::LowRank{down[0], up[0]}
                                    : ops::LowRank{at::cat(down, 0), at::cat(up, 1)};
    factor_bytes_ += static_cast<std::int64_t>(joined.down.nbytes() + joined.up.nbytes());
    return joined;
}

const AdapterSet::Entry& AdapterSet::entry(const Param& param) const {
    ZT_CHECK(param.declared() && static_cast<std::size_t>(param.id) < entries_.size(), internal,
             "adapters were made for another model than that of parameter '{}'", param.name);
    return entries_[static_cast<std::size_t>(param.id)];
}

const ops::LowRank& AdapterSet::low_rank(const Param& param) const { return entry(param).low_rank; }

bool AdapterSet::changes(const Param& param) const { return !entry(param).changes.empty(); }

at::Tensor AdapterSet::apply(const Param& param, const at::Tensor& base,
                             at::ScalarType dtype) const {
    const auto& changes = entry(param).changes;
    const at::Tensor from = base.reshape({base.size(0), -1});
    const at::Tensor result = at::empty(base.sizes(), base.options().dtype(dtype));
    const at::Tensor to = result.view(from.sizes());
    std::vector<at::Tensor> products;
    for (const auto& [delta, strength] : changes) {
        products.push_back(delta.left.defined() ? at::kron(delta.left.to(base.device()),
                                                           delta.right.to(base.device()))
                                                : at::Tensor());
    }
    const std::int64_t rows = from.size(0);
    const std::int64_t step = std::max<std::int64_t>(1, kElementsAtOnce / from.size(1));
    for (std::int64_t first = 0; first < rows; first += step) {
        const at::Tensor part = from.narrow(0, first, std::min(step, rows - first));
        at::Tensor sum = part;
        for (std::size_t i = 0; i < changes.size(); ++i) {
            sum =
                sum + added_rows(changes[i].delta, products[i], part, first) * changes[i].strength;
        }
        to.narrow(0, first, part.size(0)).copy_(sum);
    }
    const double total = at::sum(result, at::kFloat).item<double>();
    ZT_CHECK(std::isfinite(total), io, "with the adapters, {} holds numbers that are not finite",
             param.name);
    return result;
}

namespace {

class MergedSource final : public TensorSource {
public:
    MergedSource(std::shared_ptr<const TensorSource> source, std::span<const Param> params,
                 std::shared_ptr<const AdapterSet> adapters)
        : source_(std::move(source)), adapters_(std::move(adapters)) {
        std::unordered_map<std::string_view, const Param*> changed;
        for (const Param& param : params) {
            if (adapters_->changes(param)) changed.emplace(param.name, &param);
        }
        for (const TensorInfo& info : source_->tensors()) {
            const auto found = changed.find(info.name);
            changes_.push_back(found == changed.end() ? Param() : *found->second);
        }
    }

    std::span<const TensorInfo> tensors() const override { return source_->tensors(); }

    at::Tensor read(std::size_t index) const override {
        return changes_.at(index).declared() ? read_as(index, tensors()[index].dtype)
                                             : source_->read(index);
    }

    at::Tensor read_as(std::size_t index, at::ScalarType dtype) const override {
        const Param& param = changes_.at(index);
        if (!param.declared()) return source_->read_as(index, dtype);
        return adapters_->apply(param, source_->read_as(index, at::kFloat), dtype);
    }

    std::string description() const override { return source_->description(); }

    std::vector<std::pair<std::string, std::string>> metadata() const override {
        return source_->metadata();
    }

private:
    std::shared_ptr<const TensorSource> source_;
    std::shared_ptr<const AdapterSet> adapters_;
    std::vector<Param> changes_;  // by position; not declared: unchanged
};

}  // namespace

std::shared_ptr<const TensorSource> merged_source(std::shared_ptr<const TensorSource> source,
                                                  std::span<const Param> params,
                                                  std::shared_ptr<const AdapterSet> adapters) {
    return std::make_shared<MergedSource>(std::move(source), params, std::move(adapters));
}

}  // namespace zoetrope
