#include "engine/convert.h"

#include "base/choices.h"
#include "base/partial_file.h"
#include "base/timer.h"
#include "denoise/dit.h"
#include "engine/convert_folder.h"
#include "engine/convert_weights.h"
#include "engine/model_search.h"
#include "ops/device.h"
#include "text/umt5.h"
#include "vae/vae.h"
#include "vision/clip.h"
#include "weights/adapters.h"
#include "weights/weights.h"

#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <optional>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

constexpr Choices<ConvertLayout, 2> kLayouts = {
    {{ConvertLayout::diffusers, "diffusers"}, {ConvertLayout::single_file, "single-file"}}};
constexpr Choices<Precision, 5> kPrecisions = {{{Precision::fp32, "fp32"},
                                                {Precision::bf16, "bf16"},
                                                {Precision::fp16, "fp16"},
                                                {Precision::fp8, "fp8"},
                                                {Precision::int8, "int8"}}};

constexpr const char* kFileEnd = ".safetensors";
constexpr const char* kFilePrefix = "model.diffusion_model.";  // ComfyUI's, of a transformer
// Diffusers' and Transformers' names of weight files.
constexpr const char* kStem = "diffusion_pytorch_model";
constexpr const char* kTextStem = "model";

void check_new(const fs::path& output) {
    std::error_code ignored;
    const bool empty_folder = fs::is_directory(output, ignored) && fs::is_empty(output, ignored);
    // A link that leads nowhere is there too.
    const bool taken = fs::exists(fs::symlink_status(output, ignored));
    ZT_CHECK(!taken || empty_folder, bad_request,
             "--output-path is '{}', which is there already: give another name, or remove it",
             output.string());
}

// A part of the model on its way into files.
struct OutputPart {
    std::string name;  // "transformer", "vae"
    ComponentPlan plan;
    nlohmann::json config;
    std::int64_t adapter_bytes = 0;
};

// Names and shapes are checked by the layers that the weights are for.
template <typename Layers, typename Config>
Weights check_layers(const std::string& name, std::shared_ptr<const TensorSource> source,
                     const Config& config) {
    Weights weights(name, std::move(source));
    const Layers layers(config, weights);
    weights.check();
    return weights;
}

class Conversion {
public:
    Conversion(const ConvertOptions& options, const RunControl& control)
        : options_(options), control_(control) {}

    ConvertResult run() {
        result_.start_bytes = ops::process_memory().resident;
        if (options_.layout == ConvertLayout::diffusers) {
            write_folder();
        } else {
            write_files();
        }
        result_.seconds = timer_.seconds();
        result_.peak_bytes = ops::process_memory().peak_resident;
        return std::move(result_);
    }

private:
    // The adapters for the transformers of such a config.
    void find_adapters(const std::string& model, const nlohmann::json& config, bool two_experts) {
        adapters_ =
            find_adapter_files(options_.adapters, options_.lora_registry,
                               adapter_base(model, DitConfig::from_json(config), two_experts),
                               options_.lora_allow_unmatched);
    }

    OutputPart open_transformer(const std::string& name, const fs::path& path,
                                const nlohmann::json& config, AdapterExpert expert) {
        auto source = open_canonical(ComponentKind::dit, path);
        const Weights weights = check_layers<Dit>(name, source, DitConfig::from_json(config, name));
        std::vector<AdapterUse> uses;
        for (const AdapterFile& file : adapters_) {
            if (file.expert != AdapterExpert::both && file.expert != expert) continue;
            Adapter adapter = open_adapter(file.file, weights.params());
            check_matches(adapter, options_.lora_allow_unmatched);
            uses.push_back({std::move(adapter), file.strength});
        }
        OutputPart part{.name = name, .plan = {}, .config = config};
        std::optional<ComponentLayout> names;
        if (options_.layout == ConvertLayout::single_file) {
            names = detect_layout(ComponentKind::dit, *source);
            names->layout = Layout::original;
            names->prefix = kFilePrefix;
        }
        if (!uses.empty()) {
            const auto set = std::make_shared<const AdapterSet>(
                weights.params(), uses, AdapterSetOptions{.mode = AdapterMode::merged});
            part.adapter_bytes = set->bytes();
            source = merged_source(std::move(source), weights.params(), set);
        }
        part.plan =
            plan_component(ComponentKind::dit, std::move(source), names, options_.precision);
        part.plan.changed = !uses.empty();
        return part;
    }

    template <typename Layers, typename Config>
    OutputPart open_part(const std::string& name, ComponentKind kind, const fs::path& path,
                         const nlohmann::json& json, const Config& config) {
        auto source = open_canonical(kind, path);
        check_layers<Layers>(name, source, config);
        return {.name = name,
                .plan = plan_component(kind, std::move(source), std::nullopt, options_.precision),
                .config = json};
    }

    std::vector<OutputPart> open_all(const ModelFolder& model) {
        std::vector<OutputPart> parts;
        parts.push_back(open_transformer("transformer", model.transformer, model.transformer_config,
                                         AdapterExpert::high));
        if (model.transformer_2) {
            parts.push_back(open_transformer("transformer_2", *model.transformer_2,
                                             *model.transformer_2_config, AdapterExpert::low));
        }
        parts.push_back(open_part<Umt5Encoder>("text_encoder", ComponentKind::umt5,
                                               model.text_encoder, model.text_encoder_config,
                                               Umt5Config::from_json(model.text_encoder_config)));
        parts.push_back(open_part<Vae>("vae", ComponentKind::vae, model.vae, model.vae_config,
                                       VaeConfig::from_json(model.vae_config)));
        if (model.image_encoder) {
            const nlohmann::json json = model.image_encoder_config.value_or(nlohmann::json());
            parts.push_back(open_part<ClipVision>("image_encoder", ComponentKind::clip,
                                                  *model.image_encoder, json,
                                                  ClipVisionConfig::from_json(json)));
        }
        return parts;
    }

    void write_folder() {
        ZT_CHECK(options_.output.extension() != kFileEnd, bad_request,
                 "--output-path is '{}': --layout diffusers writes a folder, --layout single-file "
                 "a {} file",
                 options_.output.string(), kFileEnd);
        check_new(options_.output);
        const ModelFolder model = ModelFolder::open(options_.paths);
        check_diffusers_has(model);
        find_adapters(model.root.string(), model.transformer_config,
                      model.transformer_2.has_value());
        const std::vector<OutputPart> parts = open_all(model);
        const ParentFolders parents(options_.output);
        PartialFolder folder(options_.output);
        write_folder_files(model, folder.path());
        announce(parts);
        for (const OutputPart& part : parts) {
            const fs::path inside = folder.path() / part.name;
            const bool transformers = part.name == "text_encoder" || part.name == "image_encoder";
            fs::create_directory(inside);
            write_text(inside / "config.json",
                       config_text(part.config, transformers ? part.plan.main_dtype() : "",
                                   part.name.starts_with("transformer") ? options_.precision
                                                                        : Precision::as_stored));
            result_.bytes += write_sharded(part.plan, inside, transformers ? kTextStem : kStem,
                                           options_.max_shard_bytes, on_written());
        }
        folder.publish();
        result_.outputs = {options_.output};
    }

    void write_files() {
        ZT_CHECK(options_.output.extension() == kFileEnd, bad_request,
                 "--output-path is '{}': --layout single-file writes a {} file",
                 options_.output.string(), kFileEnd);
        const TransformerPaths found = find_transformer_paths(options_.paths);
        const nlohmann::json config = component_config(ComponentKind::dit, found.transformer);
        find_adapters(found.root.string(), config, found.transformer_2.has_value());
        std::vector<OutputPart> parts;
        std::vector<fs::path> files = {options_.output};
        if (found.transformer_2) {
            const fs::path stem = options_.output.parent_path() / options_.output.stem();
            files = {stem.string() + "_high_noise" + kFileEnd,
                     stem.string() + "_low_noise" + kFileEnd};
        }
        for (const fs::path& file : files) check_new(file);
        parts.push_back(
            open_transformer("transformer", found.transformer, config, AdapterExpert::high));
        if (found.transformer_2) {
            parts.push_back(open_transformer(
                "transformer_2", *found.transformer_2,
                component_config(ComponentKind::dit, *found.transformer_2), AdapterExpert::low));
        }
        const ParentFolders parents(options_.output);
        announce(parts);
        for (std::size_t i = 0; i < parts.size(); ++i) {
            const FileMetadata metadata = {{"format", "pt"},
                                           {std::string(kConfigKey), parts[i].config.dump()}};
            result_.bytes += write_component(parts[i].plan, files[i], metadata, on_written());
            result_.outputs.push_back(files[i]);
        }
    }

    // Tells what will be written and what memory it takes.
    void announce(const std::vector<OutputPart>& parts) {
        std::int64_t adapter_bytes = 0;
        for (const OutputPart& part : parts) {
            result_.tensors += static_cast<std::int64_t>(part.plan.tensors.size());
            all_bytes_ += part.plan.bytes();
            adapter_bytes += part.adapter_bytes;
            result_.predicted_bytes = std::max(result_.predicted_bytes, part.plan.working_bytes());
        }
        result_.predicted_bytes += adapter_bytes;
        progress_ = {.stage = Stage::write, .steps = static_cast<int>(result_.tensors)};
        writing_.emplace();
        control_.report(progress_);
        control_.throw_if_stopped();
    }

    TensorWritten on_written() {
        return [this](std::int64_t bytes) {
            written_bytes_ += bytes;
            progress_.step += 1;
            progress_.seconds = writing_->seconds();
            progress_.predicted_seconds_left =
                progress_.seconds * static_cast<double>(all_bytes_ - written_bytes_) /
                static_cast<double>(std::max<std::int64_t>(written_bytes_, 1));
            control_.report(progress_);
            control_.throw_if_stopped();
        };
    }

    const ConvertOptions& options_;
    const RunControl& control_;
    const Timer timer_;
    std::optional<Timer> writing_;  // since it began
    std::vector<AdapterFile> adapters_;
    ConvertResult result_;
    Progress progress_;
    std::int64_t all_bytes_ = 0, written_bytes_ = 0;
};

}  // namespace

ConvertLayout parse_convert_layout(std::string_view text) {
    return parse_choice(kLayouts, "--layout", text);
}

Precision parse_precision(std::string_view text) {
    return parse_choice(kPrecisions, "--dtype", text);
}

ConvertResult convert(const ConvertOptions& options, const RunControl& control) {
    const c10::InferenceMode inference;
    ops::prepare_process();
    ops::reset_peak_memory();
    return Conversion(options, control).run();
}

}  // namespace zoetrope
