#include "engine/output.h"

#include "base/error.h"
#include "engine/version.h"
#include "media/formats.h"
#include "media/writer.h"
#include "weights/source.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>

#include <nlohmann/json.hpp>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kNameLength = 60;  // bytes of the prompt in a file's name
constexpr const char* kTensorEnding = ".safetensors";

bool has_known_ending(const fs::path& path) {
    if (path.extension() == kTensorEnding) return true;
    for (const auto& format : video_formats()) {
        if (path.extension() == format.ending) return true;
    }
    return false;
}

// "A red circle, moving" -> "a_red_circle_moving". Characters beyond ASCII stay as they are.
std::string name_from_prompt(const std::string& prompt) {
    std::string name;
    for (const char c : prompt) {
        const auto byte = static_cast<unsigned char>(c);
        const bool keep = byte >= 128 || std::isalnum(byte);
        if (keep)
            name += static_cast<char>(byte < 128 ? std::tolower(byte) : byte);
        else if (!name.empty() && name.back() != '_')
            name += '_';
        if (name.size() >= kNameLength && (byte < 128 || byte >= 192)) break;
    }
    while (!name.empty() && name.back() == '_') name.pop_back();
    return name.empty() ? "video" : name;
}

// The file that the two flags name together.
fs::path target_of(const OutputOptions& options, const ResolvedRequest& request) {
    const bool tensors = request.request.output_type != OutputType::video;
    const std::string ending = tensors                     ? kTensorEnding
                               : request.task == Task::t2i ? ".png"
                                                           : ".mp4";
    const bool is_file = has_known_ending(options.path) && !fs::is_directory(options.path);
    fs::path file;
    if (is_file) {
        ZT_CHECK(options.file_name.empty(), bad_request,
                 "--output-path is the file {}, so --output-file-name {} has no folder to go to: "
                 "give one of them",
                 options.path.string(), options.file_name);
        file = options.path;
    } else {
        const fs::path name = options.file_name;
        ZT_CHECK(!name.has_parent_path(), bad_request,
                 "--output-file-name is '{}': a name without folders is wanted; --output-path is "
                 "the folder",
                 options.file_name);
        file = options.path /
               (name.empty() ? fs::path(fmt::format(
                                   "{}-{}", name_from_prompt(request.request.prompt), request.seed))
                             : name);
        if (!has_known_ending(file)) {
            ZT_CHECK(name.empty() || !name.has_extension() ||
                         name.extension().string().find(' ') != std::string::npos,
                     bad_request, "--output-file-name is '{}': accepted endings are {} and {}",
                     options.file_name, video_endings(), kTensorEnding);
            file += ending;
        }
    }
    if (tensors) {
        ZT_CHECK(file.extension() == kTensorEnding, bad_request,
                 "--output-type {} is saved as {}, not as {}",
                 request.request.output_type == OutputType::latent ? "latent" : "tensor",
                 kTensorEnding, file.string());
    } else {
        check_video_output(file, request.width, request.height, request.fps);
    }
    return file;
}

fs::path numbered(const fs::path& file, int index) {
    return file.parent_path() /
           fmt::format("{}-{}{}", file.stem().string(), index, file.extension().string());
}

}  // namespace

struct Output::State {
    OutputType type;
    WriteOptions write;
    std::optional<VideoWriter> writer;
    int current = -1;                             // output that `writer` belongs to
    std::vector<std::vector<at::Tensor>> chunks;  // by output, for tensors
    std::vector<fs::path> written;

    void end_current() {
        if (!writer) return;
        const auto files = writer->finish();
        written.insert(written.end(), files.begin(), files.end());
        writer.reset();
    }
};

Output::Output(const OutputOptions& options, const ResolvedRequest& request, const Engine& engine)
    : state_(std::make_unique<State>()) {
    const fs::path file = target_of(options, request);
    const int outputs = request.request.num_outputs;
    state_->type = request.request.output_type;
    if (outputs == 1 || state_->type != OutputType::video) {
        paths_ = {file};
    } else {
        for (int i = 0; i < outputs; ++i) paths_.push_back(numbered(file, i));
    }
    state_->chunks.resize(static_cast<std::size_t>(outputs));
    state_->write.fps = request.fps;
    state_->write.metadata = {{"title", request.request.prompt},
                              {"comment", settings_json(request, engine)}};
}

Output::~Output() = default;

FrameCallback Output::callback() {
    if (state_->type == OutputType::latent) return {};
    return [this](int output, const at::Tensor& frames) { take(output, frames); };
}

void Output::take(int output, const at::Tensor& frames) {
    State& state = *state_;
    if (state.type == OutputType::tensor) {
        state.chunks[static_cast<std::size_t>(output)].push_back(frames);
        return;
    }
    if (state.current != output) {
        state.end_current();
        state.writer.emplace(paths_[static_cast<std::size_t>(output)], state.write);
        state.current = output;
    }
    for (const Frame& frame : to_frames(frames)) state.writer->write(frame);
}

std::vector<std::filesystem::path> Output::finish(const at::Tensor& latents) {
    State& state = *state_;
    if (state.type == OutputType::video) {
        state.end_current();
        return state.written;
    }
    NamedTensor saved{"latents", latents};
    if (state.type == OutputType::tensor) {
        std::vector<at::Tensor> videos;
        for (const auto& chunks : state.chunks)
            videos.push_back(at::cat(chunks, 1).transpose(0, 1));
        saved = {"video", at::stack(videos)};  // [B, F, 3, H, W]
    }
    const std::vector<std::pair<std::string, std::string>> metadata(state.write.metadata.begin(),
                                                                    state.write.metadata.end());
    if (paths_[0].has_parent_path()) fs::create_directories(paths_[0].parent_path());
    write_safetensors(paths_[0], std::span(&saved, 1), metadata);
    return paths_;
}

std::string settings_json(const ResolvedRequest& request, const Engine& engine) {
    nlohmann::ordered_json json = {
        {"generator", fmt::format("zoetrope {}", version())},
        {"model", engine.model().embedded ? engine.model().embedded->name
                                          : engine.model().root.filename().string()},
        {"task", name_of(request.task)},
        {"prompt", request.request.prompt},
        {"negative_prompt", request.negative_prompt},
        {"height", request.height},
        {"width", request.width},
        {"num_frames", request.num_frames},
        {"fps", request.fps},
        {"num_inference_steps", request.num_inference_steps},
        {"guidance_scale", request.guidance_scale},
        {"scheduler", request.request.scheduler},
        {"seed", request.seed},
        {"dtype", engine.dtype()},
    };
    if (request.boundary_ratio) {
        json["boundary_ratio"] = *request.boundary_ratio;
        json["guidance_scale_2"] = request.guidance_scale_2;
    }
    if (request.request.flow_shift) json["flow_shift"] = *request.request.flow_shift;
    if (request.request.num_outputs > 1) json["num_outputs"] = request.request.num_outputs;
    if (engine.model().embedded) {
        json["note"] = fmt::format("made by the small embedded model, which understands {}",
                                   engine.model().embedded->understands);
    }
    return json.dump();
}

}  // namespace zoetrope
