// Named intermediate tensors on request, to compare module by module with another implementation.
//
// Off (and free but for one branch) unless a Recording lives on this thread. A Recording keeps
// float32 copies on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <string_view>

namespace zoetrope::ops {

class Recording {
public:
    // Records names that begin with `prefix` on this thread until destroyed. Nests: the innermost
    // records.
    explicit Recording(std::string prefix = "");
    ~Recording();
    Recording(const Recording&) = delete;
    Recording& operator=(const Recording&) = delete;

    // By name; a name met again gets "#2", "#3", ... appended.
    const std::map<std::string, at::Tensor>& tensors() const { return tensors_; }

private:
    friend void trace(std::string_view name, const at::Tensor& tensor);
    std::string prefix_;
    std::map<std::string, at::Tensor> tensors_;
    Recording* previous_;
};

void trace(std::string_view name, const at::Tensor& tensor);

}  // namespace zoetrope::ops
