// The named tensors of one model component (a DiT, a VAE, a text encoder) while its layers are
// built.
//
// Layers declare what they need; check() then compares with what the source has and names every
// missing, unexpected and mis-shaped tensor at once. Nothing is read here but names and shapes. Not
// for use from several threads; handed on to a Residency when the model is built.
#pragma once

#include "weights/params.h"
#include "weights/source.h"

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace zoetrope {

class Weights {
public:
    // `component` is for messages: "transformer", "vae".
    Weights(std::string component, std::shared_ptr<const TensorSource> source);

    // open_component() of that path.
    static Weights open(std::string component, const std::filesystem::path& path);

    // Random weights: every declared parameter exists.
    static Weights random(std::string component, RandomSourceOptions options);

    // Whether the source has that tensor (random weights: always).
    bool contains(const std::string& name) const;
    // Shape of a tensor of the source. Errors: io where it is not there.
    std::vector<std::int64_t> shape_of(const std::string& name) const;

    // Declares a parameter. A missing or mis-shaped one is noted and reported by check().
    Param param(const std::string& name, std::vector<std::int64_t> shape, Role role);

    // Says that a tensor of this name, if there, is known and not needed.
    void ignore(const std::string& name);

    // Compares declarations with the source. Errors: io with up to ten names of each kind: missing,
    // unexpected, wrong shape (found and wanted).
    void check() const;

    const std::string& component() const { return component_; }
    std::span<const Param> params() const { return params_; }

    // The stored tensor of a declared parameter, zero-copy where it comes from a file. After
    // check(); any thread.
    at::Tensor read(const Param& param) const;
    // The same in that dtype: TensorSource::read_as().
    at::Tensor read_as(const Param& param, at::ScalarType dtype) const;
    // Its dtype as read() gives it.
    at::ScalarType stored_dtype(const Param& param) const;
    // Whether the file holds it in fewer bits than it is computed with: TensorInfo::packed().
    bool packed(const Param& param) const;

    // Dtype of most of the stored elements; what the checkpoint "is".
    at::ScalarType main_dtype() const;

private:
    Weights(std::string component, RandomSourceOptions options);
    std::size_t position_of(const Param& param) const;

    std::string component_;
    std::shared_ptr<const TensorSource> source_;  // null: random weights
    RandomSourceOptions random_;
    std::unordered_map<std::string, std::size_t> index_;  // name -> position in the source
    std::vector<Param> params_;
    std::vector<char> used_;  // by position in the source
    std::vector<std::string> missing_;
    std::vector<std::string> wrong_shape_;  // whole sentences
};

}  // namespace zoetrope
