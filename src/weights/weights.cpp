#include "weights/weights.h"

#include "base/error.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <map>

namespace zoetrope {
namespace {

constexpr std::size_t kNamesInMessage = 10;

// Random values repeat after this many: drawing all of a 14B model would take minutes. Prime, so
// that the rows of a matrix are not alike.
constexpr std::int64_t kRandomPeriod = 1048573;

std::string list_of(const std::vector<std::string>& names) {
    const std::size_t shown = std::min(names.size(), kNamesInMessage);
    std::string text = fmt::format("{}", fmt::join(names.begin(), names.begin() + shown, ", "));
    if (names.size() > shown) text += fmt::format(" and {} more", names.size() - shown);
    return text;
}

// FNV-1a (Fowler, Noll, Vo), so that a tensor's random values depend on its name alone.
std::uint64_t hash_of(std::string_view text) {
    std::uint64_t hash = 14695981039346656037ULL;
    for (const unsigned char c : text) hash = (hash ^ c) * 1099511628211ULL;
    return hash;
}

at::Tensor random_tensor(const Param& param, const RandomSourceOptions& options) {
    const bool is_norm = param.name.find("norm") != std::string::npos ||
                         param.name.find("gamma") != std::string::npos;
    const bool is_bias = param.name.ends_with("bias");
    if (is_bias) return at::zeros(param.shape, options.dtype);
    if (is_norm) return at::ones(param.shape, options.dtype);
    std::int64_t fan_in = 1;
    for (std::size_t i = 1; i < param.shape.size(); ++i) fan_in *= param.shape[i];
    auto generator = at::detail::createCPUGenerator(options.seed ^ hash_of(param.name));
    const double deviation = 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(fan_in, 1)));
    at::Tensor tensor = at::empty(param.shape, options.dtype);
    const at::Tensor flat = tensor.view(-1);
    const at::Tensor period = flat.slice(0, 0, kRandomPeriod).normal_(0, deviation, generator);
    for (std::int64_t i = kRandomPeriod; i < flat.numel(); i += kRandomPeriod) {
        const std::int64_t count = std::min(kRandomPeriod, flat.numel() - i);
        flat.narrow(0, i, count).copy_(period.narrow(0, 0, count));
    }
    return tensor;
}

}  // namespace

Weights::Weights(std::string component, std::shared_ptr<const TensorSource> source)
    : component_(std::move(component)), source_(std::move(source)) {
    const auto tensors = source_->tensors();
    used_.resize(tensors.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) index_.emplace(tensors[i].name, i);
}

Weights::Weights(std::string component, RandomSourceOptions options)
    : component_(std::move(component)), random_(options) {}

Weights Weights::open(std::string component, const std::filesystem::path& path) {
    return Weights(std::move(component), open_component(path));
}

Weights Weights::random(std::string component, RandomSourceOptions options) {
    return Weights(std::move(component), options);
}

bool Weights::contains(const std::string& name) const {
    return source_ == nullptr || index_.contains(name);
}

std::vector<std::int64_t> Weights::shape_of(const std::string& name) const {
    const auto found = index_.find(name);
    ZT_CHECK(found != index_.end(), io, "{} has no tensor {}", component_, name);
    return source_->tensors()[found->second].shape;
}

Param Weights::param(const std::string& name, std::vector<std::int64_t> shape, Role role) {
    if (source_ != nullptr) {
        const auto found = index_.find(name);
        if (found == index_.end()) {
            missing_.push_back(name);
        } else {
            used_[found->second] = 1;
            const auto& stored = source_->tensors()[found->second].shape;
            if (stored != shape) {
                wrong_shape_.push_back(fmt::format("{} is [{}], wanted [{}]", name,
                                                   fmt::join(stored, ", "),
                                                   fmt::join(shape, ", ")));
            }
        }
    }
    Param declared{name, std::move(shape), role, static_cast<std::int32_t>(params_.size())};
    params_.push_back(declared);
    return declared;
}

void Weights::ignore(const std::string& name) {
    if (const auto found = index_.find(name); found != index_.end()) used_[found->second] = 1;
}

void Weights::check() const {
    std::vector<std::string> unexpected;
    for (std::size_t i = 0; i < used_.size(); ++i) {
        if (used_[i] == 0) unexpected.push_back(source_->tensors()[i].name);
    }
    if (missing_.empty() && unexpected.empty() && wrong_shape_.empty()) return;
    std::string text = fmt::format("the {} weights of {} do not fit its config:", component_,
                                   source_->description());
    if (!missing_.empty()) {
        text += fmt::format(" {} missing: {}.", missing_.size(), list_of(missing_));
    }
    if (!unexpected.empty()) {
        text += fmt::format(" {} unexpected: {}.", unexpected.size(), list_of(unexpected));
    }
    if (!wrong_shape_.empty()) {
        text +=
            fmt::format(" {} of the wrong shape: {}.", wrong_shape_.size(), list_of(wrong_shape_));
    }
    fail(ErrorKind::io, "{} Check that the config.json beside the weights belongs to them", text);
}

std::size_t Weights::position_of(const Param& param) const {
    const auto found = index_.find(param.name);
    ZT_CHECK(found != index_.end(), internal, "the {} weights have no tensor {}", component_,
             param.name);
    return found->second;
}

at::Tensor Weights::read(const Param& param) const {
    if (source_ == nullptr) return random_tensor(param, random_);
    return source_->read(position_of(param));
}

at::Tensor Weights::read_as(const Param& param, at::ScalarType dtype) const {
    if (source_ == nullptr) return random_tensor(param, random_).to(dtype);
    return source_->read_as(position_of(param), dtype);
}

bool Weights::packed(const Param& param) const {
    return source_ != nullptr && source_->tensors()[position_of(param)].packed();
}

at::ScalarType Weights::stored_dtype(const Param& param) const {
    return source_ == nullptr ? random_.dtype : source_->tensors()[position_of(param)].dtype;
}

at::ScalarType Weights::main_dtype() const {
    if (source_ == nullptr) return random_.dtype;
    std::map<at::ScalarType, std::int64_t> elements = {{at::kFloat, 0}};
    for (const auto& tensor : source_->tensors()) elements[tensor.dtype] += tensor.elements();
    return std::max_element(elements.begin(), elements.end(),
                            [](const auto& a, const auto& b) { return a.second < b.second; })
        ->first;
}

}  // namespace zoetrope
