// What an adapter file changes in a model, whatever layout the file has.
//
// Layouts: PEFT and Diffusers (lora_A, lora_B), kohya and musubi (lora_unet_blocks_0_...,
// lora_down, lora_up, alpha), ComfyUI and lightx2v (diffusion_model., .diff, .diff_b, .diff_m),
// with the names of Diffusers or of the original Wan repositories; LoRA (Hu et al. 2021), DoRA (Liu
// et al. 2024), LoKr (Yeh et al. 2023, LyCORIS) and whole differences. Names are looked up among
// the model's own parameters. Tensors are views that keep the file mapped. Plain values and pure
// functions, any thread.
#pragma once

#include "weights/params.h"
#include "weights/source.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace zoetrope {

// One change of one parameter: parameter += scale * (up down), kron(left, right) or difference. Of
// the three, one is there.
struct AdapterDelta {
    Param param;
    std::string key;        // what the file calls it, for messages
    at::Tensor down;        // [rank, in, ...] any float dtype
    at::Tensor up;          // [out, rank, ...]
    at::Tensor left;        // LoKr: [a, b] fp32
    at::Tensor right;       // LoKr: [out / a, in / b, ...] fp32
    at::Tensor difference;  // as many elements as the parameter
    // DoRA: [out] what the norm of each row of the changed matrix is set to, by each row's part
    // (strength) of the way; undefined: left as it is.
    at::Tensor magnitude;
    double scale = 1;  // alpha / rank
};

struct Adapter {
    std::string name;  // for messages: the file
    std::vector<AdapterDelta> deltas;
    std::vector<std::string> unmatched;  // keys that name nothing that a Wan model has
    std::vector<std::string> lacking;  // keys of parts that other Wan models have and this one not
    std::int64_t rank = 0;             // the largest
};

// Reads a file against a model's declared parameters. Alpha is the rank unless the file says
// otherwise: a key .alpha, its metadata (lora_alpha, or Diffusers' lora_adapter_metadata), or
// PEFT's adapter_config.json beside it. Errors: not_found, io for tensors that make no adapter
// (named, with what is wrong), bad_request for one of another size (with both sizes), unsupported
// for a method that is none of those above.
Adapter open_adapter(const std::filesystem::path& file, std::span<const Param> params);

// The same of an open source; `config`: the text of an adapter_config.json, or empty.
Adapter read_adapter(const TensorSource& source, std::span<const Param> params,
                     const std::string& config = {});

// Throws bad_request with up to ten keys of `unmatched`, or with `allow` logs them; logs those of
// parts that this model lacks. An adapter that changes nothing is an error either way.
void check_matches(const Adapter& adapter, bool allow);

}  // namespace zoetrope
