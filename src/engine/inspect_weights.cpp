#include "engine/inspect_weights.h"

#include "base/error.h"
#include "denoise/dit.h"
#include "engine/known_models.h"
#include "engine/model_search.h"
#include "ops/device.h"
#include "text/umt5.h"
#include "vae/vae.h"
#include "weights/adapter_names.h"
#include "weights/weights.h"

#include <map>
#include <set>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// What an adapter's piece is a sign of.
std::string method_of(const AdapterKey& key) {
    switch (key.piece) {
        case AdapterPiece::down:
        case AdapterPiece::up:
        case AdapterPiece::up_bias:
        case AdapterPiece::alpha: return "LoRA";
        case AdapterPiece::magnitude: return "DoRA";
        case AdapterPiece::difference:
        case AdapterPiece::difference_bias:
        case AdapterPiece::difference_modulation: return "differences";
        case AdapterPiece::refused: return std::string(key.method);
        default: return "LoKr";
    }
}

// Whose names the adapted layers have.
std::string adapter_layout(const std::set<std::string>& targets) {
    const auto any = [&targets](std::string_view part) {
        return std::any_of(targets.begin(), targets.end(), [part](const std::string& name) {
            return name.find(part) != std::string::npos;
        });
    };
    if (any("lora_unet_")) return "kohya";
    if (any(".attn1.") || any(".attn2.")) return "diffusers";
    if (any(".self_attn.") || any(".cross_attn.")) return "original";
    return "unknown";
}

// As the file holds it.
std::string dtype_of(const TensorInfo& tensor) {
    return tensor.packed_as.empty() ? std::string(ops::name_of(tensor.dtype)) : tensor.packed_as;
}

// Of a file, or of the first file of weights in a folder; empty where there is none.
std::string_view format_of(const fs::path& path) {
    if (!fs::is_directory(path)) return weights_format_of(path);
    const auto files = weight_files(path);
    return files.empty() ? std::string_view() : weights_format_of(files.front());
}

// An adapter's layout, ranks, targets and alphas; null where the source is none.
Json adapter_of(const TensorSource& source) {
    std::set<std::string> targets, methods, others;
    std::map<std::string, std::int64_t> ranks, alphas;  // how many of each
    const auto tensors = source.tensors();
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const auto key = parse_adapter_key(tensors[i].name);
        if (!key) {
            others.insert(tensors[i].name);
            continue;
        }
        targets.insert(key->module);
        const bool alpha = key->piece == AdapterPiece::alpha;
        if (!alpha) methods.insert(method_of(*key));
        if (key->piece == AdapterPiece::down && !tensors[i].shape.empty())
            ranks[std::to_string(tensors[i].shape[0])] += 1;
        if (alpha && tensors[i].elements() == 1)
            alphas[fmt::format("{:g}", source.read(i).to(at::kDouble).item<double>())] += 1;
    }
    if (targets.empty() || others.size() > targets.size()) return nullptr;
    return {{"layout", adapter_layout(targets)},
            {"methods", methods},
            {"targets", targets.size()},
            {"ranks", ranks},
            {"alphas", alphas},
            {"other_tensors", others}};
}

template <typename Layers, typename Config>
void check_layers(const Config& config, Weights weights) {
    const Layers layers(config, weights);
    weights.check();
}

// What does not fit the component's class: tensors that are missing, unexpected or mis-shaped, or
// what the class is that is not built.
std::string problem_of(ComponentKind kind, const nlohmann::json& config,
                       const std::shared_ptr<const TensorSource>& canonical) {
    try {
        Weights weights(std::string(name_of(kind)), canonical);
        switch (kind) {
            case ComponentKind::dit:
                check_layers<Dit>(DitConfig::from_json(config), std::move(weights));
                break;
            case ComponentKind::vae:
                check_layers<Vae>(VaeConfig::from_json(config), std::move(weights));
                break;
            case ComponentKind::umt5:
                check_layers<Umt5Encoder>(Umt5Config::from_json(config), std::move(weights));
                break;
            case ComponentKind::clip: break;
        }
        return {};
    } catch (const Error& error) {
        return error.what();
    }
}

// The class's name and the number of its layers.
void describe(Json& json, ComponentKind kind, const nlohmann::json& config) {
    const auto value = [&config](const char* key) { return config.value(key, nlohmann::json()); };
    switch (kind) {
        case ComponentKind::dit:
            json["class"] = value("_class_name");
            json["layers"] = value("num_layers");
            break;
        case ComponentKind::vae:
            json["class"] = "AutoencoderKLWan";
            json["variant"] = value("is_residual") == true ? "Wan2.2 VAE" : "Wan2.1 VAE";
            break;
        case ComponentKind::umt5:
            json["class"] = "UMT5EncoderModel";
            json["layers"] = value("num_layers");
            break;
        case ComponentKind::clip:
            json["class"] = "CLIPVisionModel";
            json["layers"] = value("num_hidden_layers");
            break;
    }
}

}  // namespace

nlohmann::ordered_json summary_of(const TensorSource& source) {
    std::int64_t parameters = 0, bytes = 0;
    std::map<std::string, std::int64_t> dtypes;
    for (const auto& tensor : source.tensors()) {
        parameters += tensor.elements();
        bytes += tensor.stored_bytes();
        dtypes[dtype_of(tensor)] += tensor.elements();
    }
    return {{"tensors", source.tensors().size()},
            {"parameters", parameters},
            {"bytes", bytes},
            {"dtypes", dtypes}};
}

nlohmann::ordered_json component_of(const ComponentLayout& layout,
                                    const std::shared_ptr<const TensorSource>& source,
                                    const std::filesystem::path& path) {
    Json json = {{"component", name_of(layout.kind)}, {"layout", name_of(layout.layout)}};
    if (!layout.prefix.empty()) json["prefix"] = layout.prefix;
    try {
        const auto canonical = canonical_source(layout.kind, source);
        const nlohmann::json config = component_config(layout.kind, path);
        describe(json, layout.kind, config);
        const KnownModel* known =
            layout.kind == ComponentKind::dit
                ? find_known(config, is_high_noise(path) || is_low_noise(path), fs::absolute(path))
                : nullptr;
        if (known != nullptr) {
            json["family"] = known->family;
            json["variant"] = known->name;
        }
        json.update(summary_of(*canonical));
        json["config"] = config;
        if (const auto problem = problem_of(layout.kind, config, canonical); !problem.empty())
            json["problem"] = problem;
    } catch (const Error& error) {
        json["problem"] = error.what();
    }
    return json;
}

nlohmann::ordered_json inspect_weights(const std::filesystem::path& path) {
    const auto source = open_stored(ComponentKind::dit, path);
    Json json = {{"kind", "weights"}, {"format", format_of(path)}};
    json.update(summary_of(*source));
    Json components = Json::array();
    for (const ComponentLayout& layout : detect_layouts(*source))
        components.push_back(component_of(layout, source, path));
    if (!components.empty()) {
        json["components"] = components;
    } else if (const Json adapter = adapter_of(*source); !adapter.is_null()) {
        json["adapter"] = adapter;
    }
    Json metadata = Json::object();
    for (const auto& [key, value] : source->metadata()) metadata[key] = value;
    json["metadata"] = metadata;
    Json names = Json::object();
    for (const auto& tensor : source->tensors()) {
        names[tensor.name] = {{"dtype", dtype_of(tensor)}, {"shape", tensor.shape}};
    }
    json["names"] = names;
    return json;
}

}  // namespace zoetrope
