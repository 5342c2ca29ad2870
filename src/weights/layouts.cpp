#include "weights/layouts.h"

#include "base/error.h"
#include "weights/layout_rules.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <unordered_set>

namespace zoetrope {
namespace {

// What a layout is recognised by: the name of a tensor that every such component has.
struct Marker {
    ComponentKind kind;
    Layout layout;
    std::string_view name;
};
constexpr Marker kMarkers[] = {
    {ComponentKind::dit, Layout::diffusers, "condition_embedder.time_embedder.linear_1.weight"},
    {ComponentKind::dit, Layout::original, "time_projection.1.weight"},
    {ComponentKind::vae, Layout::diffusers, "decoder.mid_block.resnets.0.norm1.gamma"},
    {ComponentKind::vae, Layout::original, "decoder.middle.0.residual.0.gamma"},
    {ComponentKind::umt5, Layout::diffusers,
     "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"},
    {ComponentKind::umt5, Layout::original, "blocks.0.pos_embedding.embedding.weight"},
    {ComponentKind::umt5, Layout::llama_cpp, "enc.blk.0.attn_rel_b.weight"},
    {ComponentKind::clip, Layout::diffusers, "embeddings.class_embedding"},
    {ComponentKind::clip, Layout::original, "transformer.0.attn.to_qkv.weight"},
};

// T5 has positions in its first block only, UMT5 in each: what a second block is known by, and what
// it must have then.
struct SecondBlock {
    Layout layout;
    std::string_view sign, needed;
};
constexpr SecondBlock kSecondBlocks[] = {
    {Layout::diffusers, "encoder.block.1.layer.0.SelfAttention.q.weight",
     "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"},
    {Layout::original, "blocks.1.attn.q.weight", "blocks.1.pos_embedding.embedding.weight"},
    {Layout::llama_cpp, "enc.blk.1.attn_q.weight", "enc.blk.1.attn_rel_b.weight"},
};

// Rules, and rules for what '>' stands for in them.
struct Table {
    std::span<const NameRule> rules, inner;
};
Table table_of(const ComponentLayout& layout) {
    switch (layout.kind) {
        case ComponentKind::dit: return {dit_rules(layout.layout), {}};
        case ComponentKind::vae:
            return {vae_rules(layout.layout, layout.is_residual), vae_block_rules()};
        case ComponentKind::umt5: return {umt5_rules(layout.layout), {}};
        case ComponentKind::clip: return {clip_rules(layout.layout), {}};
    }
    return {};
}

// What the wildcards of a pattern stood for, in order.
struct Captures {
    std::vector<std::string> words;
    std::vector<char> wildcards;
};

constexpr bool is_wildcard(char c) {
    return c == '#' || c == '@' || c == '*' || c == '+' || c == '%' || c == '>';
}

// Whether a word (what lies between dots) is of the wildcard's kind.
bool fits(char wildcard, std::string_view word) {
    if (word.empty()) return false;
    if (wildcard == '@') return word == "weight" || word == "bias";
    if (wildcard == '*') return true;
    const bool number = word.size() <= 9 && std::all_of(word.begin(), word.end(), [](char c) {
                            return c >= '0' && c <= '9';
                        });
    return number && (wildcard != '+' || word != "0");
}

// Matches a whole name; '%' is matched and not kept.
std::optional<Captures> match(std::string_view pattern, std::string_view name) {
    Captures captures;
    while (!pattern.empty()) {
        const char expected = pattern.front();
        if (!is_wildcard(expected)) {
            if (name.empty() || name.front() != expected) return std::nullopt;
            name.remove_prefix(1);
        } else {
            const std::size_t end =
                expected == '>' ? name.size() : std::min(name.find('.'), name.size());
            const std::string_view word = name.substr(0, end);
            if (expected == '>' ? word.empty() : !fits(expected, word)) return std::nullopt;
            if (expected != '%') {
                captures.words.emplace_back(word);
                captures.wildcards.push_back(expected);
            }
            name.remove_prefix(end);
        }
        pattern.remove_prefix(1);
    }
    if (!name.empty()) return std::nullopt;
    return captures;
}

std::string shifted(const std::string& number, int by) {
    return std::to_string(std::stoll(number) + by);
}

// The pattern with what was captured in its wildcards' places. dropped: for '%'.
std::string fill(std::string_view pattern, const Captures& captures, std::int64_t dropped) {
    std::string name;
    std::size_t next = 0;
    for (const char c : pattern) {
        if (!is_wildcard(c)) {
            name += c;
        } else if (c == '%') {
            name += std::to_string(dropped);
        } else {
            const char from = captures.wildcards.at(next);
            const std::string& word = captures.words[next++];
            name += from == c ? word : shifted(word, from == '+' ? -1 : 1);
        }
    }
    return name;
}

// Replaces the captured rest of a name by the inner rules, in one direction or the other.
void translate_rest(Captures& captures, std::span<const NameRule> inner,
                    std::string_view NameRule::*from, std::string_view NameRule::*to) {
    if (captures.wildcards.empty() || captures.wildcards.back() != '>') return;
    for (const NameRule& rule : inner) {
        if (const auto found = match(rule.*from, captures.words.back())) {
            captures.words.back() = fill(rule.*to, *found, 0);
            return;
        }
    }
}

// Prefixes of the tensors whose name is, or ends with, the marker; shortest first.
std::vector<std::string> prefixes_of(const TensorSource& source, std::string_view marker) {
    std::vector<std::string> prefixes;
    for (const TensorInfo& info : source.tensors()) {
        const std::string_view name = info.name;
        if (!name.ends_with(marker)) continue;
        const std::string_view prefix = name.substr(0, name.size() - marker.size());
        if (prefix.empty() || prefix.ends_with('.')) prefixes.emplace_back(prefix);
    }
    std::stable_sort(prefixes.begin(), prefixes.end(),
                     [](const auto& a, const auto& b) { return a.size() < b.size(); });
    return prefixes;
}

bool has(const TensorSource& source, const std::string& name) {
    const auto tensors = source.tensors();
    return std::any_of(tensors.begin(), tensors.end(),
                       [&](const TensorInfo& info) { return info.name == name; });
}

bool is_umt5(const TensorSource& source, const ComponentLayout& found) {
    for (const SecondBlock& second : kSecondBlocks) {
        if (second.layout != found.layout) continue;
        const bool has_second = has(source, found.prefix + std::string(second.sign));
        return !has_second || has(source, found.prefix + std::string(second.needed));
    }
    return true;
}

// The first number that completes no name: blocks in a row.
template <typename NameOf>
std::int64_t count_of(const TensorSource& source, const NameOf& name_of_block) {
    std::unordered_set<std::string_view> names;
    for (const TensorInfo& info : source.tensors()) names.insert(info.name);
    std::int64_t count = 0;
    while (names.contains(name_of_block(count))) ++count;
    return count;
}

// Of the original names of VAEs and motion encoders: how many blocks stand in a row.
void count_blocks(const TensorSource& source, ComponentLayout& found) {
    const std::string& prefix = found.prefix;
    if (found.kind == ComponentKind::dit) {
        found.num_res_blocks = count_of(source, [&](std::int64_t i) {
            return found.layout == Layout::original
                       ? fmt::format("{}motion_encoder.enc.net_app.convs.{}.conv1.0.weight", prefix,
                                     i + 1)
                       : fmt::format("{}motion_encoder.res_blocks.{}.conv1.weight", prefix, i);
        });
    } else if (found.kind == ComponentKind::vae && found.layout == Layout::original) {
        found.is_residual =
            has(source, prefix + "encoder.downsamples.0.downsamples.0.residual.2.weight");
        found.num_res_blocks = count_of(source, [&](std::int64_t i) {
            return fmt::format("{}encoder.downsamples.{}{}.residual.2.weight", prefix,
                               found.is_residual ? "0.downsamples." : "", i);
        });
    } else if (found.kind == ComponentKind::vae) {
        found.is_residual = has(source, prefix + "encoder.down_blocks.0.resnets.0.conv1.weight");
        found.num_res_blocks = count_of(source, [&](std::int64_t i) {
            return fmt::format("{}encoder.down_blocks.{}{}.conv1.weight", prefix,
                               found.is_residual ? "0.resnets." : "", i);
        });
    }
}

// One component of a source under other names, shapes and stretches of rows.
class CanonicalSource final : public TensorSource {
public:
    CanonicalSource(std::shared_ptr<const TensorSource> source, const ComponentLayout& layout)
        : source_(std::move(source)) {
        const auto stored = source_->tensors();
        std::unordered_map<std::string, std::size_t> owners;
        for (std::size_t i = 0; i < stored.size(); ++i) {
            if (!stored[i].name.starts_with(layout.prefix)) continue;
            for (CanonicalName& canonical :
                 canonical_names(layout, stored[i].name.substr(layout.prefix.size()))) {
                const auto [owner, inserted] = owners.emplace(canonical.name, i);
                ZT_CHECK(inserted, io, "{}: both {} and {} are the {}'s {}", source_->description(),
                         stored[owner->second].name, stored[i].name, name_of(layout.kind),
                         canonical.name);
                tensors_.push_back(info_of(stored[i], canonical));
                places_.push_back({i, canonical.part, canonical.parts});
            }
        }
    }

    std::span<const TensorInfo> tensors() const override { return tensors_; }

    at::Tensor read(std::size_t index) const override {
        const Place& place = places_.at(index);
        return part_of(source_->read(place.index), index);
    }

    at::Tensor read_as(std::size_t index, at::ScalarType dtype) const override {
        const Place& place = places_.at(index);
        return part_of(source_->read_as(place.index, dtype), index);
    }

    std::string description() const override { return source_->description(); }

    std::vector<std::pair<std::string, std::string>> metadata() const override {
        return source_->metadata();
    }

private:
    struct Place {
        std::size_t index;
        int part, parts;
    };

    TensorInfo info_of(const TensorInfo& stored, const CanonicalName& canonical) const {
        TensorInfo info = stored;
        info.name = canonical.name;
        if (canonical.parts > 1) {
            ZT_CHECK(!info.shape.empty() && info.shape[0] % canonical.parts == 0, io,
                     "{}: {} has the shape [{}], wanted rows in {} equal parts",
                     source_->description(), stored.name, fmt::join(stored.shape, ", "),
                     canonical.parts);
            info.shape[0] /= canonical.parts;
            info.packed_bytes /= canonical.parts;
        }
        if (canonical.rank == 1) info.shape = {info.elements()};
        if (canonical.rank == 2 && info.shape.size() > 2) {
            const std::int64_t last = info.shape.back();
            info.shape = {last == 0 ? 0 : info.elements() / last, last};
        }
        return info;
    }

    at::Tensor part_of(const at::Tensor& whole, std::size_t index) const {
        const Place& place = places_[index];
        if (place.parts == 1) return whole.view(tensors_[index].shape);
        const std::int64_t rows = whole.size(0) / place.parts;
        return whole.narrow(0, place.part * rows, rows).view(tensors_[index].shape);
    }

    std::shared_ptr<const TensorSource> source_;
    std::vector<TensorInfo> tensors_;
    std::vector<Place> places_;
};

// "a VAE (original names), a transformer (Diffusers' names)", or what else there is.
std::string held_by(const TensorSource& source) {
    std::vector<std::string> found;
    for (const ComponentLayout& layout : detect_layouts(source))
        found.push_back(
            fmt::format("a {} ({} names)", name_of(layout.kind), name_of(layout.layout)));
    if (!found.empty()) return fmt::format("{}", fmt::join(found, ", "));
    const auto tensors = source.tensors();
    if (tensors.empty()) return "no tensors";
    return fmt::format("{} tensors of something else, the first of them {}", tensors.size(),
                       tensors.front().name);
}

// Whether the names can be left as they are.
bool is_canonical(const ComponentLayout& layout, const TensorSource& source) {
    if (layout.layout != Layout::diffusers || !layout.prefix.empty()) return false;
    const auto tensors = source.tensors();
    return std::all_of(tensors.begin(), tensors.end(), [&](const TensorInfo& info) {
        const auto names = canonical_names(layout, info.name);
        return names.size() == 1 && names[0].name == info.name;
    });
}

}  // namespace

std::string_view name_of(ComponentKind kind) {
    constexpr std::array<std::string_view, 4> kNames = {"transformer", "VAE", "UMT5 text encoder",
                                                        "CLIP image encoder"};
    return kNames[static_cast<std::size_t>(kind)];
}

std::string_view name_of(Layout layout) {
    constexpr std::array<std::string_view, 3> kNames = {"Diffusers", "original", "llama.cpp"};
    return kNames[static_cast<std::size_t>(layout)];
}

std::vector<ComponentLayout> detect_layouts(const TensorSource& source) {
    std::vector<ComponentLayout> found;
    for (const Marker& marker : kMarkers) {
        const bool known = std::any_of(found.begin(), found.end(), [&](const auto& other) {
            return other.kind == marker.kind;
        });
        if (known) continue;
        for (std::string& prefix : prefixes_of(source, marker.name)) {
            ComponentLayout layout{
                .kind = marker.kind, .layout = marker.layout, .prefix = std::move(prefix)};
            if (layout.kind == ComponentKind::umt5 && !is_umt5(source, layout)) continue;
            count_blocks(source, layout);
            found.push_back(std::move(layout));
            break;
        }
    }
    return found;
}

std::optional<ComponentLayout> detect_layout(ComponentKind kind, const TensorSource& source) {
    for (ComponentLayout& layout : detect_layouts(source))
        if (layout.kind == kind) return std::move(layout);
    return std::nullopt;
}

std::vector<CanonicalName> canonical_names(const ComponentLayout& layout, const std::string& name) {
    const Table table = table_of(layout);
    const bool flat = layout.kind == ComponentKind::vae && layout.layout == Layout::original &&
                      !layout.is_residual;
    const std::string grouped = flat ? group_levels(name, layout.num_res_blocks) : name;
    std::vector<CanonicalName> names;
    std::string_view fused;  // the rule's name, where several rules share a fused tensor
    for (const NameRule& rule : table.rules) {
        if (!fused.empty() && rule.name != fused) continue;
        auto captures = match(rule.name, grouped);
        if (!captures) continue;
        if (rule.canonical.empty()) return {};
        translate_rest(*captures, table.inner, &NameRule::name, &NameRule::canonical);
        names.push_back({.name = fill(rule.canonical, *captures, 0),
                         .part = rule.part,
                         .parts = rule.parts,
                         .rank = rule.rank});
        if (rule.parts == 1) return names;
        fused = rule.name;
    }
    if (names.empty()) names.push_back({.name = name});
    return names;
}

CanonicalName original_place(const ComponentLayout& layout, const std::string& canonical) {
    const Table table = table_of(layout);
    for (const NameRule& rule : table.rules) {
        if (rule.canonical.empty()) continue;
        auto captures = match(rule.canonical, canonical);
        if (!captures) continue;
        translate_rest(*captures, table.inner, &NameRule::canonical, &NameRule::name);
        const bool in_decoder = rule.name.starts_with("decoder.");
        const bool one_more = in_decoder || layout.kind == ComponentKind::dit;
        const std::string name =
            fill(rule.name, *captures, layout.num_res_blocks + (one_more ? 1 : 0));
        return {.name = layout.prefix + flatten_levels(name, layout.num_res_blocks),
                .part = rule.part,
                .parts = rule.parts,
                .rank = rule.rank};
    }
    return {.name = layout.prefix + canonical};
}

std::string original_name(const ComponentLayout& layout, const std::string& canonical) {
    return original_place(layout, canonical).name;
}

std::shared_ptr<const TensorSource> canonical_source(ComponentKind kind,
                                                     std::shared_ptr<const TensorSource> source) {
    const auto layout = detect_layout(kind, *source);
    ZT_CHECK(layout.has_value(), io, "{} has no {} of Wan: it holds {}", source->description(),
             name_of(kind), held_by(*source));
    if (is_canonical(*layout, *source)) return source;
    return std::make_shared<CanonicalSource>(std::move(source), *layout);
}

Shapes::Shapes(ComponentKind kind, const TensorSource& source) : kind_(kind), source_(source) {
    const auto tensors = source.tensors();
    for (std::size_t i = 0; i < tensors.size(); ++i) index_.emplace(tensors[i].name, i);
}

const std::vector<std::int64_t>* Shapes::find(const std::string& name) const {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &source_.tensors()[found->second].shape;
}

const std::vector<std::int64_t>& Shapes::at(const std::string& name, std::size_t rank) const {
    const auto* shape = find(name);
    if (shape == nullptr) refuse(fmt::format("it has no tensor {}", name));
    const bool fit = shape->size() == rank && std::all_of(shape->begin(), shape->end(),
                                                          [](std::int64_t n) { return n > 0; });
    if (!fit)
        refuse(
            fmt::format("{} is [{}], wanted {} dimensions", name, fmt::join(*shape, ", "), rank));
    return *shape;
}

std::int64_t Shapes::count(const std::string& before, const std::string& after) const {
    std::int64_t number = 0;
    while (has(fmt::format("{}{}{}", before, number, after))) ++number;
    return number;
}

void Shapes::refuse(const std::string& why) const {
    fail(ErrorKind::io, "the {}'s config cannot be told from {}: {}", name_of(kind_),
         source_.description(), why);
}

namespace {

bool says(const nlohmann::json& config, const char* key, std::int64_t value) {
    return config.value(key, nlohmann::json()) == value;
}

// Whether a config of the class is that of these weights: by its width and depth.
bool agrees(ComponentKind kind, const Shapes& shapes, const nlohmann::json& config) {
    switch (kind) {
        case ComponentKind::dit: {
            const nlohmann::json& heads = config["num_attention_heads"];
            const nlohmann::json head = config.value("attention_head_dim", nlohmann::json(128));
            return heads.is_number_integer() && head.is_number_integer() &&
                   shapes.at("patch_embedding.weight", 5)[0] ==
                       heads.get<std::int64_t>() * head.get<std::int64_t>() &&
                   says(config, "num_layers", shapes.count("blocks.", ".attn1.to_q.weight"));
        }
        case ComponentKind::vae:
            return says(config, "base_dim", shapes.at("encoder.conv_in.weight", 5)[0]) &&
                   says(config, "z_dim", shapes.at("post_quant_conv.weight", 5)[0]);
        case ComponentKind::umt5:
            return says(config, "num_layers",
                        shapes.count("encoder.block.", ".layer.0.SelfAttention.q.weight"));
        case ComponentKind::clip: {
            const nlohmann::json& vision =
                config.contains("vision_config") ? config["vision_config"] : config;
            const auto& patch = shapes.at("vision_model.embeddings.patch_embedding.weight", 4);
            return vision.is_object() && says(vision, "hidden_size", patch[0]);
        }
    }
    return false;
}

// Whether a config.json is of the class in Diffusers or Transformers.
bool is_config_of(ComponentKind kind, const nlohmann::json& config) {
    if (!config.is_object()) return false;
    switch (kind) {
        case ComponentKind::dit: return config.contains("num_attention_heads");
        case ComponentKind::vae:
            return config.value("_class_name", nlohmann::json()) == "AutoencoderKLWan";
        case ComponentKind::umt5: return config.contains("d_model");
        case ComponentKind::clip:
            return config.contains("vision_config") ||
                   (config.contains("hidden_size") && config.contains("patch_size"));
    }
    return false;
}

}  // namespace

bool is_original_config(const nlohmann::json& config) {
    return config.is_object() && config.contains("dim") && config.contains("num_heads");
}

nlohmann::json config_of(ComponentKind kind, const TensorSource& canonical,
                         const nlohmann::json& found) {
    const Shapes shapes(kind, canonical);
    if (is_config_of(kind, found) && agrees(kind, shapes, found)) return found;
    switch (kind) {
        case ComponentKind::dit: return infer_dit_config(shapes, found);
        case ComponentKind::vae: return infer_vae_config(shapes);
        case ComponentKind::umt5: return infer_umt5_config(shapes);
        case ComponentKind::clip: return infer_clip_config(shapes);
    }
    return nullptr;
}

}  // namespace zoetrope
