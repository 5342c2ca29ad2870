// Parameters as handles, and the leases that turn them into tensors.
//
// A layer's constructor asks Weights for Params and keeps them: name, shape, role, position; no
// tensor. Residency owns the tensors: a Lease on some Params makes them present on the device in
// the dtype that is computed in (converting, de-quantising, packing, applying adapters, gathering
// over ranks), and its end lets them go. A lease that is never returned means resident. So
// offloading, streaming from disk and adapters need no change in any model. Parameters that the
// file holds packed (8-bit floats, GGUF blocks) are expanded when a lease begins and freed when it
// ends.
//
// Param is a value. Residency may be used from several threads; a Lease belongs to one at a time.
#pragma once

#include "ops/linear.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope {

class Weights;

// What a parameter is used for; decides the dtype and layout that a lease gives.
enum class Role {
    matrix,     // weight of a linear layer [out, in]: the compute dtype, may come packed
    vector,     // bias and the like: the compute dtype
    fp32,       // norms, modulation tables, time embedding: always float32
    conv,       // weight used as it lies in the file: the compute dtype, never packed
    embedding,  // table that rows are looked up in: the dtype it is stored in, or where the file
                // holds it packed the compute dtype
};

struct Param {
    std::string name;                 // in Diffusers' key space
    std::vector<std::int64_t> shape;  // as declared by the layer and checked against the file
    Role role = Role::vector;
    std::int32_t id = -1;  // position among the declared parameters of its Weights

    bool declared() const { return id >= 0; }
};

// How matrices (Role::matrix) are held: as they are computed in, in 8 bits and multiplied in 8
// bits, or in 8 bits to save memory.
enum class Quantization { none, int8, int8_weight_only };
// "none", "int8", "int8-weight-only". Errors: bad_request with the names, unsupported for fp8.
Quantization parse_quantization(std::string_view text);
std::string_view name_of(Quantization quantization);

struct ResidencyOptions {
    at::Device device = at::kCPU;
    at::ScalarType compute_dtype = at::kFloat;
    Quantization quantization = Quantization::none;
};
// Errors: unsupported where the device cannot multiply 8-bit numbers, with what it can do.
void check_quantization(const ResidencyOptions& options);

class AdapterSet;
class Lease;

class Residency {
public:
    // Takes the declared parameters and their source. Call Weights::check() first.
    Residency(Weights weights, ResidencyOptions options);
    ~Residency();
    Residency(const Residency&) = delete;
    Residency& operator=(const Residency&) = delete;

    // Makes these parameters present until the lease ends. Parameters already leased are shared.
    // Errors: io where the file breaks off, out_of_memory.
    Lease lease(std::span<const Param> params);

    // All declared parameters at once.
    Lease lease_all();

    // The parameters to keep present while a model stays in memory: those that keeps() tells. The
    // others stay in the file and are leased layer by layer.
    Lease lease_kept();
    // All but those that the file holds packed and a lease makes large: 1 MiB and more, and not
    // quantised to 8 bits again.
    bool keeps(const Param& param) const;

    // Puts other adapters (null: none) in the place of those so far. Parameters that are leased and
    // change themselves are made anew; the others stay. No lease may be read meanwhile.
    // Errors: io where they hold numbers that are not finite; the adapters are then those before.
    void set_adapters(std::shared_ptr<const AdapterSet> adapters);
    // Of what adapters hold beside the parameters.
    std::int64_t adapter_bytes() const;

    const ResidencyOptions& options() const { return options_; }
    // All declared ones, in the order of their ids.
    std::span<const Param> params() const;
    at::ScalarType dtype_of(const Param& param) const;
    // Bytes that a lease of it takes.
    std::int64_t bytes_of(const Param& param) const;
    // Whether the file holds it in fewer bits than it is computed with.
    bool packed(const Param& param) const;

    // Bytes that leases hold in memory of their own now, and at most so far. Views into a mapped
    // file count as `mapped_bytes` instead: the kernel may drop their pages at any time.
    std::int64_t leased_bytes() const;
    std::int64_t peak_leased_bytes() const;
    std::int64_t mapped_bytes() const;

private:
    friend class Lease;
    struct Slot;
    void release(std::span<const std::int32_t> ids);
    ops::Matrix materialise(const Param& param) const;
    at::Tensor read(const Param& param) const;
    void fill(Slot& slot, ops::Matrix matrix);
    void remake(const AdapterSet* before);

    std::unique_ptr<const Weights> weights_;
    ResidencyOptions options_;
    std::shared_ptr<const AdapterSet> adapters_;
    std::mutex loading_;        // held while tensors are made; taken before mutex_
    mutable std::mutex mutex_;  // guards the counts; held for moments only
    std::vector<Slot> slots_;   // by Param::id
    std::int64_t leased_bytes_ = 0;
    std::int64_t peak_leased_bytes_ = 0;
    std::int64_t mapped_bytes_ = 0;
};

// Holds parameters present. Movable; returns them when it ends, which must be before its Residency.
class Lease {
public:
    Lease() = default;
    Lease(Lease&&) noexcept;
    Lease& operator=(Lease&&) noexcept;
    ~Lease();

    // The parameter's tensor on the device: the compute dtype, or float32 for Role::fp32.
    // Takes no lock. Errors: internal where the parameter is not part of this lease.
    const at::Tensor& operator[](const Param& param) const;

    // The same for Role::matrix, with its layout and what adapters add.
    ops::Matrix matrix(const Param& param) const;

private:
    friend class Residency;
    const ops::Matrix& find(const Param& param) const;
    Lease(Residency* owner, std::vector<std::int32_t> ids) : owner_(owner), ids_(std::move(ids)) {}

    Residency* owner_ = nullptr;
    std::vector<std::int32_t> ids_;  // sorted
};

}  // namespace zoetrope
