// Whole runs on weights that are stored in 8 bits: the same numbers as on their expanded copy.
#include "base/json.h"
#include "engine/engine.h"
#include "engine/inspect.h"
#include "golden.h"
#include "scratch.h"
#include "weights/expand_bytes.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

// A copy of the tiny pipeline whose matrices went through fp8 with a scale for each row: as fp8
// beside their scales, or expanded again.
fs::path copy_in_fp8(const fs::path& folder, bool expanded) {
    const fs::path from = golden_folder() / "pipeline" / "unipc";
    fs::copy(from, folder, fs::copy_options::recursive);
    for (const std::string file :
         {"transformer/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"}) {
        std::vector<NamedTensor> tensors;
        for (const auto& [name, tensor] : read_tensors(from / file)) {
            const bool matrix = tensor.dim() == 2 && name.ends_with(".weight") &&
                                name.find("block") != std::string::npos;
            if (!matrix) {
                tensors.push_back({name, tensor.clone()});
                continue;
            }
            constexpr double kLargest = 448;  // of float8_e4m3fn
            const at::Tensor scale =
                tensor.to(at::kFloat).abs().amax(1).clamp_min(1e-12) / kLargest;
            const at::Tensor stored =
                (tensor.to(at::kFloat) / scale.unsqueeze(1)).to(at::kFloat8_e4m3fn);
            if (expanded) {
                tensors.push_back({name, expand_bytes(stored, scale, at::kFloat)});
            } else {
                tensors.push_back({name, stored});
                tensors.push_back({name.substr(0, name.size() - 6) + "scale_weight", scale});
            }
        }
        write_safetensors(folder / file, tensors);
    }
    return folder;
}

TEST(EngineFormats, Fp8WeightsComputeAsTheirExpandedCopy) {
    const Scratch folder;
    const auto settings = read_json(golden_folder() / "pipeline/unipc/request.json");
    Request request;
    request.prompt = settings["prompt"];
    request.height = settings["height"];
    request.width = settings["width"];
    request.num_frames = settings["num_frames"];
    request.num_inference_steps = settings["steps"];
    request.seed = settings["seed"];
    std::vector<at::Tensor> latents;
    for (const bool expanded : {false, true}) {
        const fs::path model = copy_in_fp8(folder / (expanded ? "expanded" : "packed"), expanded);
        Engine engine(ModelFolder::open({.model = model.string()}), {.dtype = "fp32"});
        Report report;
        latents.push_back(engine.generate(engine.resolve(request), {}, {}, report));
    }
    EXPECT_EQ(largest_difference(latents[0], latents[1]), 0);
    EXPECT_GT(latents[0].abs().max().item<float>(), 0);

    const auto told = inspect(folder / "packed/transformer");
    EXPECT_EQ(told["format"], "safetensors");
    EXPECT_GT(told["dtypes"]["scaled Float8_e4m3fn"].get<std::int64_t>(), 0);
    EXPECT_LT(told["bytes"].get<std::int64_t>(),
              inspect(folder / "expanded/transformer")["bytes"].get<std::int64_t>());
}

}  // namespace
}  // namespace zoetrope
