#include "weights/params.h"

#include "base/error.h"
#include "weights/adapters.h"
#include "weights/weights.h"

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <new>
#include <utility>

namespace zoetrope {
namespace {

// Smaller ones are not worth expanding again for each lease.
constexpr std::int64_t kSmallParameter = 1 << 20;  // bytes

constexpr std::string_view kQuantizations[] = {"none", "int8", "int8-weight-only"};

}  // namespace

// Written only where its lease count goes from 0 to 1 (holding loading_) or from 1 to 0 (holding
// mutex_), so whoever holds a lease reads `matrix` without a lock.
struct Residency::Slot {
    std::int64_t leases = 0;  // guarded by mutex_
    ops::Matrix matrix;       // layout is plain for every role but Role::matrix
    std::int64_t bytes = 0;
    bool mapped = false;
};

std::string_view name_of(Quantization quantization) {
    return kQuantizations[static_cast<std::size_t>(quantization)];
}

Quantization parse_quantization(std::string_view text) {
    const auto* found = std::find(std::begin(kQuantizations), std::end(kQuantizations), text);
    ZT_CHECK(text != "fp8", unsupported, "fp8 is not built yet: accepted are {}",
             fmt::join(kQuantizations, ", "));
    ZT_CHECK(found != std::end(kQuantizations), bad_request, "'{}' is unknown: accepted are {}",
             text, fmt::join(kQuantizations, ", "));
    return static_cast<Quantization>(found - std::begin(kQuantizations));
}

void check_quantization(const ResidencyOptions& options) {
    ZT_CHECK(options.quantization != Quantization::int8 ||
                 ops::takes_int8(options.device, options.compute_dtype),
             unsupported,
             "int8 on {} in {} is not available: it takes a CPU with AVX512-VNNI and bf16 or fp32; "
             "int8-weight-only and none run everywhere",
             options.device.str(), c10::toString(options.compute_dtype));
}

Residency::Residency(Weights weights, ResidencyOptions options)
    : weights_(std::make_unique<const Weights>(std::move(weights))),
      options_(options),
      slots_(weights_->params().size()) {}

Residency::~Residency() = default;

std::int64_t Residency::bytes_of(const Param& param) const {
    std::int64_t elements = 1;
    for (const std::int64_t n : param.shape) elements *= n;
    // 8-bit numbers, and for each row a factor and a sum.
    if (param.role == Role::matrix && options_.quantization != Quantization::none)
        return elements + 8 * param.shape[0];
    return elements * static_cast<std::int64_t>(c10::elementSize(dtype_of(param)));
}

at::ScalarType Residency::dtype_of(const Param& param) const {
    switch (param.role) {
        case Role::fp32: return at::kFloat;
        case Role::embedding:
            return packed(param) ? options_.compute_dtype : weights_->stored_dtype(param);
        default: return options_.compute_dtype;
    }
}

std::span<const Param> Residency::params() const { return weights_->params(); }

// On the device, in the dtype of a lease, changed where adapters change it.
at::Tensor Residency::read(const Param& param) const {
    if (adapters_ == nullptr || !adapters_->changes(param))
        return weights_->read_as(param, dtype_of(param)).to(options_.device);
    const at::Tensor wide = weights_->read_as(param, at::kFloat).to(options_.device);
    return adapters_->apply(param, wide, dtype_of(param));
}

ops::Matrix Residency::materialise(const Param& param) const {
    try {
        const at::Tensor tensor = read(param);
        if (param.role != Role::matrix) return {tensor};
        switch (options_.quantization) {
            case Quantization::none: return {tensor};
            case Quantization::int8: return ops::quantise_int8(tensor);
            case Quantization::int8_weight_only: return ops::quantise_int8_rows(tensor);
        }
    } catch (const std::bad_alloc&) {
    } catch (const c10::OutOfMemoryError&) {
    } catch (const c10::Error& error) {
        // The CPU's allocator has no exception type of its own.
        if (std::string_view(error.what()).find("can't allocate memory") == std::string::npos) {
            throw;
        }
    }
    fail(ErrorKind::out_of_memory, "no memory on {} for {} of the {} ([{}], {})",
         options_.device.str(), param.name, weights_->component(), fmt::join(param.shape, ", "),
         c10::toString(dtype_of(param)));
}

Lease Residency::lease(std::span<const Param> params) {
    const std::lock_guard loading(loading_);
    Lease lease(this, {});
    lease.ids_.reserve(params.size());
    for (const Param& param : params) {
        ZT_CHECK(param.declared() && static_cast<std::size_t>(param.id) < slots_.size(), internal,
                 "a lease on parameter '{}', which the {} did not declare", param.name,
                 weights_->component());
        Slot& slot = slots_[static_cast<std::size_t>(param.id)];
        if (std::unique_lock lock(mutex_); slot.leases > 0) {
            ++slot.leases;
            lease.ids_.push_back(param.id);
            continue;
        }
        // Nobody else touches a slot without leases while loading_ is held.
        ops::Matrix matrix = materialise(weights_->params()[static_cast<std::size_t>(param.id)]);
        const std::lock_guard lock(mutex_);
        fill(slot, std::move(matrix));
        slot.leases = 1;
        lease.ids_.push_back(param.id);
    }
    std::sort(lease.ids_.begin(), lease.ids_.end());
    return lease;
}

void Residency::fill(Slot& slot, ops::Matrix matrix) {
    slot.bytes = matrix.bytes();
    // Memory that the tensor does not own, and so cannot resize, is the mapped file's.
    slot.mapped = matrix.layout == ops::MatrixLayout::plain && matrix.data.has_storage() &&
                  !matrix.data.storage().resizable();
    slot.matrix = std::move(matrix);
    (slot.mapped ? mapped_bytes_ : leased_bytes_) += slot.bytes;
    peak_leased_bytes_ = std::max(peak_leased_bytes_, leased_bytes_);
}

void Residency::set_adapters(std::shared_ptr<const AdapterSet> adapters) {
    const std::lock_guard loading(loading_);
    const auto before = std::exchange(adapters_, std::move(adapters));
    try {
        remake(before.get());
    } catch (...) {
        const auto refused = std::exchange(adapters_, before);
        remake(refused.get());
        throw;
    }
}

// Makes the leased parameters anew that the adapters, or those before them, change.
void Residency::remake(const AdapterSet* before) {
    for (const Param& param : weights_->params()) {
        const bool changes = (before != nullptr && before->changes(param)) ||
                             (adapters_ != nullptr && adapters_->changes(param));
        Slot& slot = slots_[static_cast<std::size_t>(param.id)];
        if (std::unique_lock lock(mutex_); !changes || slot.leases == 0) continue;
        ops::Matrix matrix = materialise(param);
        const std::lock_guard lock(mutex_);
        (slot.mapped ? mapped_bytes_ : leased_bytes_) -= slot.bytes;
        fill(slot, std::move(matrix));
    }
}

std::int64_t Residency::adapter_bytes() const {
    return adapters_ == nullptr ? 0 : adapters_->bytes();
}

Lease Residency::lease_all() { return lease(weights_->params()); }

Lease Residency::lease_kept() {
    std::vector<Param> kept;
    for (const Param& param : weights_->params()) {
        if (keeps(param)) kept.push_back(param);
    }
    return lease(kept);
}

bool Residency::keeps(const Param& param) const {
    const bool quantised =
        param.role == Role::matrix && options_.quantization != Quantization::none;
    return quantised || !packed(param) || bytes_of(param) < kSmallParameter;
}

bool Residency::packed(const Param& param) const { return weights_->packed(param); }

void Residency::release(std::span<const std::int32_t> ids) {
    std::vector<ops::Matrix> ended;  // freed after the lock
    const std::lock_guard lock(mutex_);
    for (const std::int32_t id : ids) {
        Slot& slot = slots_[static_cast<std::size_t>(id)];
        if (--slot.leases > 0) continue;
        (slot.mapped ? mapped_bytes_ : leased_bytes_) -= slot.bytes;
        ended.push_back(std::exchange(slot.matrix, {}));
    }
}

std::int64_t Residency::leased_bytes() const {
    const std::lock_guard lock(mutex_);
    return leased_bytes_;
}

std::int64_t Residency::peak_leased_bytes() const {
    const std::lock_guard lock(mutex_);
    return peak_leased_bytes_;
}

std::int64_t Residency::mapped_bytes() const {
    const std::lock_guard lock(mutex_);
    return mapped_bytes_;
}

Lease::Lease(Lease&& other) noexcept
    : owner_(std::exchange(other.owner_, nullptr)), ids_(std::exchange(other.ids_, {})) {}

Lease& Lease::operator=(Lease&& other) noexcept {
    std::swap(owner_, other.owner_);
    std::swap(ids_, other.ids_);
    return *this;
}

Lease::~Lease() {
    if (owner_ != nullptr) owner_->release(ids_);
}

const ops::Matrix& Lease::find(const Param& param) const {
    ZT_CHECK(param.declared() && std::binary_search(ids_.begin(), ids_.end(), param.id), internal,
             "parameter '{}' is not part of this lease", param.name);
    return owner_->slots_[static_cast<std::size_t>(param.id)].matrix;
}

const at::Tensor& Lease::operator[](const Param& param) const { return find(param).data; }

ops::Matrix Lease::matrix(const Param& param) const {
    ops::Matrix matrix = find(param);
    if (owner_->adapters_ != nullptr && param.role == Role::matrix)
        matrix.low_rank = owner_->adapters_->low_rank(param);
    return matrix;
}

}  // namespace zoetrope
