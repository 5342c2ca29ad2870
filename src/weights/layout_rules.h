// Inside of weights/: the tables behind layouts.h, one per component and layout.
//
// A rule pairs a name of the layout with the canonical one. In both: '#' is a number, '@' is weight
// or bias, '*' any one word between dots, '>' the rest of the name; they stand for the same on both
// sides, in order. '+' is a number that is one less on the canonical side, where '#' is written.
// '%' is the place of what comes behind a row of residual blocks, which the canonical name does not
// have.
#pragma once

#include "weights/layouts.h"

#include <span>
#include <unordered_map>

namespace zoetrope {

struct NameRule {
    std::string_view name;
    std::string_view canonical;  // empty: known, not needed
    int rank = 0;
    int part = 0;
    int parts = 1;
};

std::span<const NameRule> dit_rules(Layout layout);
std::span<const NameRule> vae_rules(Layout layout, bool is_residual);
std::span<const NameRule> vae_block_rules();  // for what '>' stands for in vae_rules()
std::span<const NameRule> umt5_rules(Layout layout);
std::span<const NameRule> clip_rules(Layout layout);

// The original VAE of Wan 2.1 counts the layers of all its decoder's levels in one row,
// "decoder.upsamples.5."; its rules know "decoder.upsamples.1.flat.1.". Other names stay.
std::string group_levels(const std::string& name, std::int64_t num_res_blocks);
std::string flatten_levels(const std::string& name, std::int64_t num_res_blocks);

// Names and shapes of a canonical source, for configs.
class Shapes {
public:
    Shapes(ComponentKind kind, const TensorSource& source);

    bool has(const std::string& name) const { return find(name) != nullptr; }
    // Errors: io where the tensor is not there or has not `rank` dimensions.
    const std::vector<std::int64_t>& at(const std::string& name, std::size_t rank) const;
    // How many of `before`0`after`, `before`1`after`, ... there are without a gap.
    std::int64_t count(const std::string& before, const std::string& after) const;

    [[noreturn]] void refuse(const std::string& why) const;

private:
    const std::vector<std::int64_t>* find(const std::string& name) const;

    ComponentKind kind_;
    const TensorSource& source_;
    std::unordered_map<std::string_view, std::size_t> index_;
};

// `original`: a config.json of the original Wan repositories, or null.
nlohmann::json infer_dit_config(const Shapes& shapes, const nlohmann::json& original);
nlohmann::json infer_vae_config(const Shapes& shapes);
nlohmann::json infer_umt5_config(const Shapes& shapes);
nlohmann::json infer_clip_config(const Shapes& shapes);

}  // namespace zoetrope
