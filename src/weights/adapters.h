// Several adapters on one model, ready to be applied by a Residency.
//
// Low-rank changes of matrices stay factors that ops::linear() adds (runtime), so that the base
// weights are untouched and switching costs what the adapters weigh; or they are added to the
// parameter when it is materialised (merged). Everything else (biases, norms, tables, convolutions,
// DoRA, LoKr, whole differences) is added when a parameter is materialised, either way. Changes
// are all computed from the base and summed, so their order does not matter. Immutable, any thread.
#pragma once

#include "ops/linear.h"
#include "weights/adapter_file.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope {

enum class AdapterMode { runtime, merged };
// "runtime", "merged". Errors: bad_request.
AdapterMode parse_adapter_mode(std::string_view text);
std::string_view name_of(AdapterMode mode);

struct AdapterUse {
    Adapter adapter;
    double strength = 1;  // finite; 0: as if it were not there
};

struct AdapterSetOptions {
    AdapterMode mode = AdapterMode::runtime;
    at::Device device = at::kCPU;
    at::ScalarType dtype = at::kFloat;  // that is computed in
};

class AdapterSet {
public:
    // `params`: all that the model declared. Errors: io where an adapter holds numbers that are not
    // finite.
    AdapterSet(std::span<const Param> params, std::span<const AdapterUse> uses,
               const AdapterSetOptions& options);

    // The factors for a matrix; undefined where there are none.
    const ops::LowRank& low_rank(const Param& param) const;

    // Whether the parameter itself is another one with these adapters.
    bool changes(const Param& param) const;
    // The changed parameter. base: fp32 on the device, not written to -> `dtype`
    at::Tensor apply(const Param& param, const at::Tensor& base, at::ScalarType dtype) const;

    // Of the factors (also where they are views of a file), and of the largest parameter in fp32
    // while it is changed.
    std::int64_t bytes() const { return factor_bytes_ + change_bytes_; }

private:
    struct Change {
        AdapterDelta delta;
        double strength = 1;
    };
    struct Entry {
        ops::LowRank low_rank;
        std::vector<Change> changes;
    };

    const Entry& entry(const Param& param) const;
    ops::LowRank join(std::span<const Change> changes, const AdapterSetOptions& options);

    std::vector<Entry> entries_;  // by Param::id
    std::int64_t factor_bytes_ = 0;
    std::int64_t change_bytes_ = 0;
};

// The canonical source of a model with what merged adapters change: the numbers that a Residency
// with them gives. `params`: all that the model declared. Other tensors are as they were. The
// changed ones are computed on the CPU; their bytes are said to be those of the base.
std::shared_ptr<const TensorSource> merged_source(std::shared_ptr<const TensorSource> source,
                                                  std::span<const Param> params,
                                                  std::shared_ptr<const AdapterSet> adapters);

}  // namespace zoetrope
