// Fuzz target: whatever the bytes of an adapter file are, it is refused with an Error, or what it
// changes in a small model are finite numbers in the shapes of the model's parameters, merged and
// beside the base alike.
#include "promises.h"
#include "safetensors_mutator.h"
#include "weights/adapters.h"
#include "weights/mapped_tensor.h"
#include "weights/safetensors_header.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sum.h>

#include <cmath>
#include <string>
#include <vector>

namespace {

using namespace zoetrope;

// The tensors of the bytes of a file, each a copy.
class BytesSource final : public TensorSource {
public:
    explicit BytesSource(std::span<const std::byte> file)
        : file_(file), header_(safetensors::parse(file, "fuzz")) {
        for (const auto& entry : header_.entries)
            tensors_.push_back({entry.name, entry.shape, scalar_type_of(entry.dtype)});
    }
    std::span<const TensorInfo> tensors() const override { return tensors_; }
    at::Tensor read(std::size_t index) const override {
        const auto& entry = header_.entries.at(index);
        at::Tensor tensor = at::empty(entry.shape, tensors_[index].dtype);
        if (entry.end > entry.begin)
            std::memcpy(tensor.mutable_data_ptr(), file_.data() + entry.begin,
                        entry.end - entry.begin);
        return tensor;
    }
    std::string description() const override { return "fuzz"; }
    std::vector<std::pair<std::string, std::string>> metadata() const override {
        return header_.metadata;
    }

private:
    std::span<const std::byte> file_;
    safetensors::Header header_;
    std::vector<TensorInfo> tensors_;
};

// A block and what is around it, as narrow as they can be.
std::vector<Param> small_model() {
    constexpr std::int64_t kDim = 4, kHidden = 6;
    std::vector<Param> params;
    const auto add = [&params](std::string name, std::vector<std::int64_t> shape, Role role) {
        params.push_back(
            {std::move(name), std::move(shape), role, static_cast<std::int32_t>(params.size())});
    };
    add("patch_embedding.weight", {kDim, 2, 1, 2, 2}, Role::fp32);
    add("condition_embedder.time_proj.weight", {6 * kDim, kDim}, Role::conv);
    add("proj_out.weight", {8, kDim}, Role::fp32);
    add("scale_shift_table", {1, 2, kDim}, Role::fp32);
    add("blocks.0.scale_shift_table", {1, 6, kDim}, Role::fp32);
    for (const char* name : {"attn1.to_q", "attn2.to_k"}) {
        add(std::string("blocks.0.") + name + ".weight", {kDim, kDim}, Role::matrix);
        add(std::string("blocks.0.") + name + ".bias", {kDim}, Role::vector);
    }
    add("blocks.0.norm2.weight", {kDim}, Role::fp32);
    add("blocks.0.ffn.net.0.proj.weight", {kHidden, kDim}, Role::matrix);
    return params;
}

void check(const AdapterSet& set, const std::vector<Param>& params) {
    for (const Param& param : params) {
        const at::Tensor base = at::ones(param.shape);
        if (set.changes(param)) {
            const at::Tensor changed = set.apply(param, base, at::kFloat);
            require(changed.sizes() == base.sizes());
            require(std::isfinite(at::sum(changed, at::kDouble).item<double>()));
        }
        if (const auto& factors = set.low_rank(param); factors.defined()) {
            require(factors.up.size(0) == param.shape[0]);
            require(factors.down.size(1) == base.numel() / param.shape[0]);
            require(factors.up.size(1) == factors.down.size(0));
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const std::vector<Param> params = small_model();
    try {
        const BytesSource source(std::as_bytes(std::span(data, size)));
        const Adapter adapter = read_adapter(source, params);
        for (const AdapterDelta& delta : adapter.deltas) require(delta.param.declared());
        const AdapterUse use{adapter, 0.5};
        for (const AdapterMode mode : {AdapterMode::runtime, AdapterMode::merged}) {
            try {
                check(AdapterSet(params, std::span(&use, 1), {.mode = mode}), params);
            } catch (const Error& error) {
                check_message(error);
            }
        }
    } catch (const Error& error) {
        check_message(error);
    }
    return 0;
}
