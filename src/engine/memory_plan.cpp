// What a run will hold in memory, stage by stage, from configs and shapes alone.
#include "base/error.h"
#include "engine/driving_clip.h"
#include "engine/parts.h"
#include "engine/segment_tail.h"

namespace zoetrope {
namespace {

struct PartBytes {
    std::int64_t weights = 0;   // resident when all that are kept are leased
    std::int64_t expanded = 0;  // of those that are not kept, while these parameters are leased
    std::int64_t largest =
        0;  // the largest single parameter, which is held twice while it is converted
};

PartBytes bytes_of(const Residency& residency, std::span<const Param> params) {
    PartBytes bytes;
    for (const Param& param : params) {
        // Of an embedding table only the rows that are looked up become resident.
        if (param.role == Role::embedding && !residency.packed(param)) continue;
        std::int64_t elements = 1;
        for (const std::int64_t n : param.shape) elements *= n;
        (residency.keeps(param) ? bytes.weights : bytes.expanded) += residency.bytes_of(param);
        bytes.largest = std::max(
            bytes.largest,
            elements * static_cast<std::int64_t>(c10::elementSize(residency.dtype_of(param))));
    }
    return bytes;
}

// Of frames that are held until the run ends.
std::int64_t bytes_of(const VisualInputs& inputs) {
    std::int64_t bytes = 0;
    for (const FrameSequence* video :
         {&inputs.video, &inputs.mask, &inputs.pose, &inputs.face, &inputs.background})
        bytes += video->most_bytes();
    for (const Frame& picture : inputs.reference_images)
        bytes += static_cast<std::int64_t>(picture.rgb.size());
    return bytes;
}

// Of a part that stays in memory and whose blocks are leased one after the other.
template <typename Layers>
PartBytes bytes_of_blocks(const Part<Layers>& part) {
    PartBytes bytes = bytes_of(*part.residency, part.layers.outer_params());
    std::int64_t largest_block = 0;
    for (std::int64_t i = 0; i < part.layers.num_blocks(); ++i) {
        const PartBytes block = bytes_of(*part.residency, part.layers.params(i));
        bytes.weights += block.weights;
        bytes.largest = std::max(bytes.largest, block.largest);
        largest_block = std::max(largest_block, block.expanded);
    }
    bytes.weights += bytes.expanded + largest_block;
    return bytes;
}

// Of a part of which one block at a time is in memory.
template <typename Layers>
std::int64_t largest_lease(const Part<Layers>& part) {
    const auto held = [&part](std::span<const Param> params) {
        const PartBytes bytes = bytes_of(*part.residency, params);
        return bytes.weights + bytes.expanded + bytes.largest;
    };
    std::int64_t most = held(part.layers.outer_params());
    for (std::int64_t i = 0; i < part.layers.num_blocks(); ++i)
        most = std::max(most, held(part.layers.params(i)));
    return most;
}

// The VAE between its leases, where it stays in memory: the weights that its layers keep packed.
std::int64_t held_vae_bytes(const Part<Vae>& part) {
    const PartBytes encoder = bytes_of(*part.residency, part.layers.encoder_params());
    const PartBytes decoder = bytes_of(*part.residency, part.layers.decoder_params());
    return encoder.weights + encoder.expanded + decoder.weights + decoder.expanded;
}

// Adds what the segment behind holds while the next is prepared and denoised: its frames, until
// they are written, or all that decoding it takes. plan: the stages, the last of which is "decode"
void add_segment_behind(MemoryPlan& plan, const ResolvedRequest& request) {
    auto& decode = plan.stages.back();
    const std::int64_t frames =
        3LL * 4 * request.height * request.width * most_frames_behind(request);
    if (!request.decode_behind) decode.parts["frames_behind"] = frames;
    if (request.segments.segments.size() == 1) return;
    const std::int64_t decoding =
        decode.total() - decode.parts["process"] - decode.parts["held_transformer"];
    for (auto& stage : plan.stages) {
        if (stage.stage != "denoise" && stage.stage != "encode_image") continue;
        if (request.decode_behind) {
            stage.parts["decode_behind"] = decoding;
        } else {
            stage.parts["frames_behind"] = frames;
        }
    }
}

}  // namespace

MemoryPlan::StageMemory Engine::Parts::plan_visual(const ResolvedRequest& request) {
    MemoryPlan::StageMemory stage{"encode_image", {{"process", process_bytes}}};
    std::int64_t clip = 0;
    if (dit_config.image_dim > 0) {
        const auto& part = open_image_encoder();
        const PartBytes bytes = bytes_of_blocks(part);
        clip = options.keep_resident ? bytes.weights + bytes.largest : largest_lease(part);
    }
    const auto& part = open_vae();
    const PartBytes bytes = bytes_of(*part.residency, part.layers.encoder_params());
    const std::int64_t encoding =
        bytes.weights + bytes.largest +
        part.layers.encode_peak_bytes(request.height, request.width, vae_compute);
    // One after the other, or both where parts stay.
    stage.parts["encoders"] = options.keep_resident ? clip + encoding : std::max(clip, encoding);
    return stage;
}

MemoryPlan Engine::plan_memory(const ResolvedRequest& request) const {
    Parts& parts = *parts_;
    const auto element = static_cast<std::int64_t>(c10::elementSize(parts.compute.compute_dtype));
    const LatentSize size{
        parts.latent_frames(request, request.segments.longest(request.num_frames)),
        request.height / parts.vae_config.scale_factor_spatial,
        request.width / parts.vae_config.scale_factor_spatial};
    const std::int64_t branches = request.guidance() ? 2 : 1;
    const std::int64_t latents = request.request.num_outputs * parts.dit_config.in_channels *
                                 size.frames * size.height * size.width * 4;
    const std::int64_t process = parts.process_bytes;
    // Parts stay from segment to segment: each stage has what the others loaded.
    const bool held = request.segments.segments.size() > 1;
    std::int64_t held_transformer = 0;
    MemoryPlan plan;

    {
        const auto& text = parts.open_text();
        const PartBytes bytes = bytes_of_blocks(text);
        plan.stages.push_back(
            {"encode_text",
             {{"process", process},
              {"weights", bytes.weights},
              {"conversion", bytes.largest},
              {"activations", text.layers.activation_bytes(kTextLength, element)}}});
    }
    if (held || (request.task != Task::t2v && request.task != Task::t2i))
        plan.stages.push_back(parts.plan_visual(request));
    {
        PartBytes bytes;
        std::int64_t adapters = 0;
        Dit::Memory memory;
        for (const bool low_noise : {false, true}) {
            if (low_noise && !request.boundary_ratio) continue;
            const auto& dit = parts.open_dit(low_noise);
            const PartBytes own = bytes_of_blocks(dit);
            // One expert is in memory at a time, or both where parts stay.
            bytes.weights = parts.options.keep_resident || held
                                ? bytes.weights + own.weights
                                : std::max(bytes.weights, own.weights);
            bytes.largest = std::max(bytes.largest, own.largest);
            adapters = std::max(adapters, dit.residency->adapter_bytes());
            memory = dit.layers.memory(size, kTextLength, element);
        }
        // Latents, the scheduler's history of up to three model outputs, velocities and their sum.
        constexpr std::int64_t kLatentCopies = 8;
        plan.stages.push_back({"denoise",
                               {{"process", process},
                                {"weights", bytes.weights},
                                {"conversion", bytes.largest},
                                {"adapters", adapters},
                                {"activations", memory.activations},
                                {"prompt_keys_and_values", branches * memory.per_branch},
                                {"latents", kLatentCopies * latents}}});
        if (held) {
            plan.stages.back().parts["held_vae"] = held_vae_bytes(parts.open_vae());
            held_transformer = bytes.weights + adapters;
            for (auto& stage : plan.stages) {
                if (stage.stage == "encode_image")
                    stage.parts["held_transformer"] = held_transformer;
            }
        }
    }
    if (held || request.request.output_type != OutputType::latent) {
        const auto& vae = parts.open_vae();
        const PartBytes bytes = bytes_of(*vae.residency, vae.layers.decoder_params());
        plan.stages.push_back({"decode",
                               {{"process", process},
                                {"weights", bytes.weights + bytes.expanded},
                                {"conversion", bytes.largest},
                                {"activations", vae.layers.decode_peak_bytes(
                                                    size.height, size.width, parts.vae_compute)},
                                {"frames", 3LL * 4 * request.height * request.width *
                                               parts.vae_config.scale_factor_temporal * 3},
                                {"latents", latents}}});
        if (held) {
            auto& decode = plan.stages.back().parts;
            decode["held_transformer"] = held_transformer;
            // The frames that segments share, of either segment and joined to a chunk; and four
            // more while a frame's colours are summed up.
            decode["joined_frames"] =
                3LL * 4 * request.height * request.width *
                (3 * request.segments.overlap + parts.vae_config.scale_factor_temporal + 4);
        }
        add_segment_behind(plan, request);
        if (request.request.output_type == OutputType::tensor) {
            // float32 frames of all outputs, held until they are written
            plan.stages.back().parts["tensors"] = 3LL * 4 * request.height * request.width *
                                                  request.num_frames * request.request.num_outputs;
        }
    }
    const std::int64_t pictures = bytes_of(request.inputs);
    const std::int64_t preprocessing = request.clip ? request.clip->working_bytes() : 0;
    for (auto& stage : plan.stages) {
        if (pictures > 0) stage.parts["pictures"] = pictures;
        if (preprocessing > 0) stage.parts["preprocessing"] = preprocessing;
    }
    return plan;
}

}  // namespace zoetrope
