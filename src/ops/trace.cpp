#include "ops/trace.h"

namespace zoetrope::ops {
namespace {

thread_local Recording* innermost = nullptr;

}  // namespace

Recording::Recording(std::string prefix) : prefix_(std::move(prefix)), previous_(innermost) {
    innermost = this;
}

Recording::~Recording() { innermost = previous_; }

void trace(std::string_view name, const at::Tensor& tensor) {
    if (innermost == nullptr || !name.starts_with(innermost->prefix_)) return;
    auto& tensors = innermost->tensors_;
    std::string key(name);
    for (int n = 2; tensors.contains(key); ++n) key = fmt::format("{}#{}", name, n);
    tensors.emplace(std::move(key), tensor.detach().to(at::kCPU, at::kFloat, false, true));
}

}  // namespace zoetrope::ops
