// The layouts that Wan's weights come in, and the one key space that all of them lead to.
//
// Whatever a file calls its tensors (the original Wan repositories, ComfyUI, GGUF, open-clip),
// canonical_source() gives them under the names of Diffusers' and Transformers' classes, with the
// shapes of those classes. Names and shapes only are looked at; tensors are still read on demand
// and still are views where they were. Pure functions, any thread.
#pragma once

#include "weights/source.h"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope {

// dit: WanTransformer3DModel, WanVACETransformer3DModel or WanAnimateTransformer3DModel.
// vae: AutoencoderKLWan. umt5: UMT5EncoderModel. clip: CLIPVisionModel with the prefix
// "vision_model." that released checkpoints have.
enum class ComponentKind { dit, vae, umt5, clip };
// "transformer", "VAE", "UMT5 text encoder", "CLIP image encoder".
std::string_view name_of(ComponentKind kind);

// original: of the Wan repositories, which ComfyUI and GGUF files have too. llama_cpp: GGUF files
// of T5 encoders. diffusers: the canonical names, of Transformers where the class is theirs.
enum class Layout { diffusers, original, llama_cpp };
std::string_view name_of(Layout layout);

// Where a component is found among the tensors of a file.
struct ComponentLayout {
    ComponentKind kind = ComponentKind::dit;
    Layout layout = Layout::diffusers;
    // Before all of its names ("model.diffusion_model."). Tensors without it are not of this
    // component.
    std::string prefix;
    // Residual blocks in a row, which the original names of what comes behind them depend on: of a
    // level of a VAE's encoder (its decoder has one more), of Animate's motion encoder.
    std::int64_t num_res_blocks = 0;
    bool is_residual = false;  // of a VAE: its levels are residual themselves (Wan 2.2)
};

// The components that the names speak of; several for a checkpoint that holds them all.
std::vector<ComponentLayout> detect_layouts(const TensorSource& source);
std::optional<ComponentLayout> detect_layout(ComponentKind kind, const TensorSource& source);

// What becomes of one tensor of another layout.
struct CanonicalName {
    std::string name;
    int part = 0;   // which of `parts` equal stretches of its rows
    int parts = 1;  // above 1: the layout fuses what the canonical model keeps apart
    int rank = 0;   // dimensions of the canonical tensor; 0: as stored
};
// Without prefix, e.g. "blocks.0.self_attn.q.weight". Empty: known, but not needed. A name that the
// layout does not have is kept.
std::vector<CanonicalName> canonical_names(const ComponentLayout& layout, const std::string& name);

// The way back: the name, with prefix, that a canonical tensor has in that layout, and which
// stretch of its rows it is where the layout fuses. A name that the canonical class does not have
// is kept.
CanonicalName original_place(const ComponentLayout& layout, const std::string& canonical);
std::string original_name(const ComponentLayout& layout, const std::string& canonical);

// A whole component on its way back: the tensors of a canonical source under the names of that
// layout, fused and with the dimensions that it has there. Errors: io where a part of a fused
// tensor is not there.
std::shared_ptr<const TensorSource> original_source(const ComponentLayout& layout,
                                                    std::shared_ptr<const TensorSource> canonical);

// The tensors of one component under their canonical names. What other components have is left
// out; names that no layout knows are kept, so that Weights::check() tells of them. Errors: io
// where the source holds no such component (with what it holds) or two tensors lead to one name.
std::shared_ptr<const TensorSource> canonical_source(ComponentKind kind,
                                                     std::shared_ptr<const TensorSource> source);

// The weights of one component under their canonical names: a file of any format, or a folder of
// Diffusers or of an original repository, of which the component's own file or shards are taken.
// Errors: those of the readers and of canonical_source(); bad_request where a folder has several
// files that could be meant.
std::shared_ptr<const TensorSource> open_canonical(ComponentKind kind,
                                                   const std::filesystem::path& path);

// The same under the names that they are stored with.
std::shared_ptr<const TensorSource> open_stored(ComponentKind kind,
                                                const std::filesystem::path& path);

// By the ending of its name.
bool is_weight_file(const std::filesystem::path& file);
// Those of a folder, not of its subfolders, by name. Empty where there is no such folder.
std::vector<std::filesystem::path> weight_files(const std::filesystem::path& folder);

// Whether a config.json is of the transformer of an original Wan repository.
bool is_original_config(const nlohmann::json& config);

// The config.json of the component's class, from canonical names and shapes. `found`: the
// config.json beside the weights, or null. One of the class that agrees with the weights is
// returned as it is; of one of the original Wan repositories it takes what shapes do not tell
// (heads, eps, VACE's layers). Without it, heads have 128 channels, as in every released model, and
// VAEs have the statistics of the two released ones.
// Errors: io where a tensor that tells is not there, or sizes are of no released model.
nlohmann::json config_of(ComponentKind kind, const TensorSource& canonical,
                         const nlohmann::json& found = nullptr);

}  // namespace zoetrope
