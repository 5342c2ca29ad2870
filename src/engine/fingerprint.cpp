#include "engine/fingerprint.h"

#include "base/mapped_file.h"
#include "engine/output.h"
#include "engine/version.h"
#include "kernels/cpu.h"
#include "ops/device.h"
#include "ops/peak.h"
#include "preprocess/cache.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string whole_content(const fs::path& path) {
    preprocess::ContentHash hash;
    hash.add_file(path);
    return hash.hex();
}

bool is_part_of_model(const fs::path& file) {
    constexpr std::array<std::string_view, 7> kEndings{".safetensors", ".json", ".bin",  ".pth",
                                                       ".pt",          ".gguf", ".model"};
    return std::find(kEndings.begin(), kEndings.end(), file.extension().string()) != kEndings.end();
}

// A file, or those of a folder, by name.
json content_of_part(const fs::path& path) {
    if (!fs::is_directory(path)) return sampled_content(path);
    json files = json::object();
    for (const auto& entry : fs::directory_iterator(path)) {
        if (entry.is_regular_file() && is_part_of_model(entry.path()))
            files[entry.path().filename().string()] = sampled_content(entry.path());
    }
    return files;
}

json content_of_model(const ModelFolder& model) {
    json parts = {{"transformer", content_of_part(model.transformer)},
                  {"vae", content_of_part(model.vae)},
                  {"text_encoder", content_of_part(model.text_encoder)},
                  {"tokenizer", content_of_part(model.tokenizer)},
                  {"scheduler", model.scheduler}};
    if (model.transformer_2) parts["transformer_2"] = content_of_part(*model.transformer_2);
    if (model.image_encoder) parts["image_encoder"] = content_of_part(*model.image_encoder);
    if (model.image_processor) parts["image_processor"] = *model.image_processor;
    return parts;
}

json content_of_inputs(const Request& request) {
    json inputs = json::object();
    const auto add = [&inputs](const char* flag, const fs::path& path) {
        if (!path.empty()) inputs[flag] = whole_content(path);
    };
    add("image", request.image);
    add("last_image", request.last_image);
    for (std::size_t i = 0; i < request.reference_images.size(); ++i)
        add(fmt::format("reference_image {}", i + 1).c_str(), request.reference_images[i]);
    add("video", request.video);
    add("mask_video", request.mask_video);
    add("pose_video", request.pose_video);
    add("face_video", request.face_video);
    add("background_video", request.background_video);
    add("latents", request.latents);
    return inputs;
}

}  // namespace

std::string sampled_content(const fs::path& file) {
    constexpr std::size_t kHead = 64 << 10, kPiece = 4 << 10, kPieces = 256;
    const auto mapped = MappedFile::open(file);
    const auto bytes = mapped->bytes();
    preprocess::ContentHash hash;
    const auto add = [&](std::size_t begin, std::size_t length) {
        begin = std::min(begin, bytes.size());
        length = std::min(length, bytes.size() - begin);
        hash.add({reinterpret_cast<const char*>(bytes.data()) + begin, length});
    };
    add(0, kHead);
    for (std::size_t i = 1; i <= kPieces; ++i)
        add(bytes.size() / kPieces * i - std::min(kPiece, bytes.size() / kPieces), kPiece);
    return fmt::format("{} bytes, {}", bytes.size(), hash.hex());
}

nlohmann::json fingerprint(const ResolvedRequest& request, const Engine& engine,
                           const fs::path& output) {
    json segments = json::array();
    for (const plan::Segment& segment : request.segments.segments)
        segments.push_back({segment.start, segment.length, segment.carried_frames,
                            segment.padded_frames, segment.restart});
    const Request& given = request.request;
    const auto flag = [](const auto& value) { return value ? json(*value) : json(); };
    const json segment_flags = {{"policy", flag(given.segment_policy)},
                                {"length", flag(given.segment_length)},
                                {"max_length", flag(given.segment_max_length)},
                                {"overlap", flag(given.segment_overlap)}};
    json adapters = json::array();
    for (const AdapterFile& adapter : engine.adapters())
        adapters.push_back(sampled_content(adapter.file));
    json computed_with = {{"threads", ops::threads()},
                          {"device", engine.device()},
                          {"libtorch", ops::libtorch_version()},
                          {"instruction_set", kernels::name_of(kernels::isa())}};
    if (engine.dtype() != "fp32")
        computed_with["products"] = kernels::name_of(ops::fastest_bf16_products());
    constexpr std::array kTypes{"video", "latent", "tensor"};
    return {{"settings", json::parse(settings_json(request, engine))},
            {"segment", segment_flags},
            {"segments", segments},
            {"steps", {request.first_step, request.last_step}},
            {"output",
             {{"type", kTypes[static_cast<std::size_t>(request.request.output_type)]},
              {"format", output.extension().string()}}},
            {"inputs", content_of_inputs(request.request)},
            {"model", content_of_model(engine.model())},
            {"adapters", adapters},
            {"program", version()},
            {"computed_with", computed_with}};
}

std::string processor_name() {
    const auto devices = ops::devices();
    return devices.empty() ? "" : devices.front().name;
}

}  // namespace zoetrope
