#include "engine/output.h"

#include "base/error.h"
#include "base/partial_file.h"
#include "engine/preprocessing.h"
#include "engine/version.h"
#include "media/formats.h"
#include "media/fragments.h"
#include "media/writer.h"
#include "weights/safetensors_writer.h"
#include "weights/source.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cctype>
#include <numeric>
#include <utility>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kNameLength = 60;    // bytes of the prompt in a file's name
constexpr std::size_t kLongestName = 255;  // bytes: NAME_MAX of Linux's file systems
constexpr const char* kTensorEnding = ".safetensors";

std::string ending_of(const fs::path& path) {
    std::string ending = path.extension().string();
    std::transform(ending.begin(), ending.end(), ending.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    return ending;
}

bool has_known_ending(const fs::path& path) {
    const std::string ending = ending_of(path);
    const auto formats = video_formats();
    return ending == kTensorEnding ||
           std::any_of(formats.begin(), formats.end(),
                       [&ending](const VideoFormat& format) { return ending == format.ending; });
}

// Whether a path that is not there looks like a file's: "clip.avi", but not "run.2" or "clips/".
bool looks_like_file(const fs::path& path) {
    const std::string ending = ending_of(path);
    const auto is_letter = [](unsigned char c) { return std::isalpha(c) != 0; };
    const auto is_alphanumeric = [](unsigned char c) { return std::isalnum(c) != 0; };
    return ending.size() >= 2 && ending.size() <= 6 && is_letter(ending[1]) &&
           std::all_of(ending.begin() + 1, ending.end(), is_alphanumeric);
}

// "A red circle, moving" -> "a_red_circle_moving". Characters beyond ASCII stay as they are.
std::string name_from_prompt(const std::string& prompt) {
    std::string name;
    for (const char c : prompt) {
        const auto byte = static_cast<unsigned char>(c);
        const bool begins_character = byte < 128 || byte >= 192;  // of UTF-8
        if (name.size() >= kNameLength && begins_character) break;
        const bool keep = byte >= 128 || std::isalnum(byte);
        if (keep)
            name += static_cast<char>(byte < 128 ? std::tolower(byte) : byte);
        else if (!name.empty() && name.back() != '_')
            name += '_';
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
    std::error_code ignored;
    const bool is_folder = fs::is_directory(options.path, ignored);
    const bool is_file = has_known_ending(options.path) && !is_folder;
    ZT_CHECK(is_file || is_folder || !options.file_name.empty() || !looks_like_file(options.path),
             bad_request,
             "--output-path is '{}': accepted endings are {} and {}; for a folder of that name, "
             "end it with /",
             options.path.string(), video_endings(), kTensorEnding);
    fs::path file;
    if (is_file) {
        ZT_CHECK(options.file_name.empty(), bad_request,
                 "--output-path is the file {}, so --output-file-name {} has no folder to go to: "
                 "give one of them",
                 options.path.string(), options.file_name);
        file = options.path;
    } else {
        const fs::path name = options.file_name;
        ZT_CHECK(!name.has_parent_path() && name != "." && name != "..", bad_request,
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
        ZT_CHECK(ending_of(file) == kTensorEnding, bad_request,
                 "--output-type {} is saved as {}, not as {}",
                 request.request.output_type == OutputType::latent ? "latent" : "tensor",
                 kTensorEnding, file.string());
    } else {
        ZT_CHECK(ending_of(file) != kTensorEnding, bad_request,
                 "{} is for --output-type latent and tensor, and this one is video: accepted "
                 "endings are {}",
                 file.string(), video_endings());
        check_video_output(file, request.width, request.height, request.fps);
    }
    ZT_CHECK(file.filename().native().size() <= kLongestName, bad_request,
             "the output's name has {} bytes, accepted are {}: {}", file.filename().native().size(),
             kLongestName, file.filename().string());
    return file;
}

// Makes and removes a hidden file there, so that a place that cannot be written is told before any
// work is done.
void check_writable(const fs::path& given, const fs::path& file) {
    try {
        const ParentFolders folders(file);
        const PartialFile probe(file);
    } catch (const Error& error) {
        fail(ErrorKind::bad_request, "--output-path is '{}': {}", given.string(), error.what());
    }
}

fs::path numbered(const fs::path& file, int index) {
    return file.parent_path() /
           fmt::format("{}-{}{}", file.stem().string(), index, file.extension().string());
}

}  // namespace

struct Output::State {
    OutputType type;
    WriteOptions write;
    int outputs = 1;
    bool in_parts = false;  // a run of several segments
    fs::path parts;
    std::optional<ParentFolders> folders;  // outlives the folder in it
    std::optional<PartialFolder> hidden;   // outlives the files in it

    std::optional<VideoWriter> writer;
    int current = -1;                 // output that `writer` belongs to
    at::Tensor video;                 // [B, F, 3, H, W] fp32, for tensors of a run of one segment
    std::int64_t frames = 0;          // of `current` that are in `video`, or in the part
    std::vector<at::Tensor> tensors;  // [n, 3, H, W] fp32: a part's
    std::vector<fs::path> written;

    std::vector<std::pair<std::string, std::string>> metadata() const {
        return {write.metadata.begin(), write.metadata.end()};
    }
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
    State& state = *state_;
    state.type = request.request.output_type;
    if (outputs == 1 || state.type != OutputType::video) {
        paths_ = {file};
    } else {
        for (int i = 0; i < outputs; ++i) paths_.push_back(numbered(file, i));
    }
    for (const fs::path& path : paths_) {
        check_writable(options.path, path);
        remove_stale(path);
    }
    state.in_parts = request.segments.segments.size() > 1 && state.type != OutputType::latent;
    state.parts = options.parts;
    if (state.type == OutputType::tensor && !state.in_parts)
        state.video = at::empty({outputs, request.num_frames, 3, request.height, request.width});
    state.write.fps = request.fps;
    // The driving clip's sound.
    if (request.clip) state.write.audio = request.request.video;
    state.write.metadata = {{"title", request.request.prompt},
                            {"comment", settings_json(request, engine)}};
    state.outputs = outputs;
}

Output::~Output() = default;

FrameCallback Output::callback() {
    if (state_->type == OutputType::latent) return {};
    return [this](int output, const at::Tensor& frames) {
        state_->in_parts ? take_part(output, frames) : take(output, frames);
    };
}

void Output::take(int output, const at::Tensor& frames) {
    State& state = *state_;
    if (state.type == OutputType::tensor) {
        if (std::exchange(state.current, output) != output) state.frames = 0;
        state.video[output].narrow(0, state.frames, frames.size(1)).copy_(frames.transpose(0, 1));
        state.frames += frames.size(1);
        return;
    }
    if (state.current != output) {
        state.end_current();
        state.writer.emplace(paths_[static_cast<std::size_t>(output)], state.write);
        state.current = output;
    }
    for (const Frame& frame : to_frames(frames)) state.writer->write(frame);
}

fs::path Output::part_file(int output, std::size_t segment) {
    State& state = *state_;
    if (state.parts.empty()) {
        state.folders.emplace(paths_[0]);
        state.hidden.emplace(paths_[0]);
        state.parts = state.hidden->path();
    }
    const fs::path folder =
        state.outputs == 1 ? state.parts : state.parts / fmt::format("output-{}", output);
    if (state.type == OutputType::tensor)
        return folder / fmt::format("segment-{:04}{}", segment, kTensorEnding);
    return fragment_file(folder, paths_[static_cast<std::size_t>(output)],
                         static_cast<int>(segment));
}

void Output::take_part(int output, const at::Tensor& frames) {
    State& state = *state_;
    if (state.current != output) {
        end_part();
        state.current = output;
        state.frames = 0;
        if (state.type == OutputType::video) {
            state.writer.emplace(fragment_writer(part_file(output, parts_.size()),
                                                 paths_[static_cast<std::size_t>(output)],
                                                 state.write));
        }
    }
    state.frames += frames.size(1);
    if (state.type == OutputType::tensor) {
        state.tensors.push_back(frames.transpose(0, 1).contiguous());
        return;
    }
    for (const Frame& frame : to_frames(frames)) state.writer->write(frame);
}

void Output::end_part() {
    State& state = *state_;
    if (state.writer) {
        state.writer->finish();
        state.writer.reset();
    }
    if (state.tensors.empty()) return;
    const fs::path file = part_file(state.current, parts_.size());
    fs::create_directories(file.parent_path());
    const NamedTensor part{"video", at::cat(state.tensors)};
    state.tensors.clear();
    write_safetensors(file, std::span(&part, 1));
}

void Output::end_segment() {
    State& state = *state_;
    int frames = 0;
    if (state.in_parts) {
        end_part();
        if (std::exchange(state.current, -1) != -1) frames = static_cast<int>(state.frames);
    }
    parts_.push_back(frames);
}

void Output::join_videos() {
    for (int output = 0; output < state_->outputs; ++output) {
        std::vector<Fragment> fragments;
        for (std::size_t i = 0; i < parts_.size(); ++i) {
            if (parts_[i] > 0) fragments.push_back({part_file(output, i), parts_[i]});
        }
        const auto files =
            join_fragments(paths_[static_cast<std::size_t>(output)], fragments, state_->write);
        state_->written.insert(state_->written.end(), files.begin(), files.end());
    }
}

void Output::join_tensors() {
    std::optional<ParentFolders> folders;
    std::optional<SafetensorsWriter> whole;
    for (int output = 0; output < state_->outputs; ++output) {
        for (std::size_t i = 0; i < parts_.size(); ++i) {
            if (parts_[i] == 0) continue;
            const auto part = open_safetensors(part_file(output, i));
            ZT_CHECK(part->tensors().size() == 1 && part->tensors()[0].shape.size() == 4 &&
                         part->tensors()[0].shape[0] == parts_[i],
                     io, "the finished part '{}' is not what was written: [{}, 3, H, W] is wanted",
                     part->description(), parts_[i]);
            const at::Tensor video = part->read(0);
            if (!whole) {
                const std::int64_t frames =
                    std::accumulate(parts_.begin(), parts_.end(), std::int64_t{0});
                const TensorInfo info{"video",
                                      {state_->outputs, frames, 3, video.size(2), video.size(3)}};
                folders.emplace(paths_[0]);
                whole.emplace(paths_[0], std::span(&info, 1), state_->metadata());
            }
            whole->append(0, video);
        }
    }
    ZT_CHECK(whole.has_value(), bad_request, "cannot write '{}': there are no frames",
             paths_[0].string());
    whole->finish();
    state_->written = paths_;
}

std::vector<std::filesystem::path> Output::finish(const at::Tensor& latents) {
    State& state = *state_;
    if (state.in_parts) {
        state.type == OutputType::tensor ? join_tensors() : join_videos();
        return state.written;
    }
    if (state.type == OutputType::video) {
        state.end_current();
        return state.written;
    }
    const NamedTensor saved = state.type == OutputType::tensor ? NamedTensor{"video", state.video}
                                                               : NamedTensor{"latents", latents};
    if (paths_[0].has_parent_path()) fs::create_directories(paths_[0].parent_path());
    write_safetensors(paths_[0], std::span(&saved, 1), state.metadata());
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
        {"quantization", engine.quantization()},
    };
    if (request.boundary_ratio) {
        json["boundary_ratio"] = *request.boundary_ratio;
        json["guidance_scale_2"] = request.guidance_scale_2;
    }
    const Request& given = request.request;
    const auto add_file = [&json](const char* key, const std::filesystem::path& file) {
        if (!file.empty()) json[key] = file.filename().string();
    };
    add_file("image", given.image);
    add_file("last_image", given.last_image);
    for (const auto& file : given.reference_images)
        json["reference_images"].push_back(file.filename().string());
    add_file("video", given.video);
    add_file("mask_video", given.mask_video);
    if (request.clip)
        json["preprocessing"] = settings_of(given.preprocessing, request.task == Task::replace);
    if (request.task == Task::v2v) json["strength"] = request.strength;
    if (request.task == Task::vace) json["conditioning_scale"] = request.conditioning_scale;
    if (request.request.flow_shift) json["flow_shift"] = *request.request.flow_shift;
    if (request.request.sigma_schedule) json["sigma_schedule"] = *request.request.sigma_schedule;
    if (request.request.sigmas) json["sigmas"] = *request.request.sigmas;
    if (request.request.num_outputs > 1) json["num_outputs"] = request.request.num_outputs;
    if (request.segments.segments.size() > 1) {
        nlohmann::ordered_json& segments = json["segments"];
        segments = {{"lengths", nlohmann::ordered_json::array()},
                    {"overlap", request.segments.overlap},
                    {"carry", name_of(request.joins.carry)},
                    {"overlap_fusion", name_of(request.joins.fusion)},
                    {"color_match", request.joins.color_match}};
        for (const plan::Segment& segment : request.segments.segments)
            segments["lengths"].push_back(segment.length);
        if (!request.cuts.empty()) segments["cuts"] = request.cuts;
    }
    if (!engine.adapters().empty()) {
        json["lora_mode"] = engine.lora_mode();
        for (const AdapterFile& adapter : engine.adapters()) {
            json["adapters"].push_back({{"name", adapter.name},
                                        {"file", adapter.file.filename().string()},
                                        {"strength", adapter.strength},
                                        {"expert", name_of(adapter.expert)}});
        }
    }
    if (engine.model().embedded) {
        json["note"] = fmt::format("made by the small embedded model. It understands: {}",
                                   engine.model().embedded->understands);
    }
    // A folder's name may hold bytes that are not UTF-8: U+FFFD stands for them.
    return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace zoetrope
