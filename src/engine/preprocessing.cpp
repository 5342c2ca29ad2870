#include "engine/preprocessing.h"

#include "base/error.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>
#include <system_error>
#include <thread>

namespace zoetrope {

namespace fs = std::filesystem;

fs::path pose_models_folder() {
    if (const char* given = std::getenv("ZOETROPE_POSE_MODELS"); given != nullptr) {
        ZT_CHECK(fs::is_directory(given), not_found,
                 "ZOETROPE_POSE_MODELS is '{}': there is no such folder", given);
        return given;
    }
    std::error_code ignored;
    const fs::path program = fs::read_symlink("/proc/self/exe", ignored).parent_path();
    for (const char* beside : {"pose-models", "../pose-models", "../share/zoetrope/pose-models"}) {
        if (fs::is_directory(program / beside)) return fs::canonical(program / beside);
    }
    fail(ErrorKind::not_found,
         "the pose networks were not found (pose-models/ beside the program): run `make setup` and "
         "build again, set ZOETROPE_POSE_MODELS to their folder, or give --det-model and "
         "--pose-model");
}

void complete(preprocess::Options& options, int threads) {
    const bool outlines = options.replace && options.segmenter.empty();
    if (options.detector.empty() || outlines) options.mediapipe = pose_models_folder();
    const auto cores = static_cast<int>(std::max(std::thread::hardware_concurrency(), 1U));
    options.threads = threads > 0 ? threads : cores;
}

nlohmann::json settings_of(const preprocess::Options& options, bool replace) {
    using preprocess::PersonChoice;
    constexpr std::array kPeople{"largest", "center"};
    constexpr std::array kBadFrames{"hold", "interpolate", "stop"};
    const auto name = [](const fs::path& file) { return file.filename().string(); };
    const bool counted = options.person.kind == PersonChoice::Kind::nth;
    nlohmann::json settings = {
        {"person", counted ? std::to_string(options.person.nth)
                           : kPeople.at(static_cast<std::size_t>(options.person.kind))},
        {"on_bad_frame", kBadFrames.at(static_cast<std::size_t>(options.bad_frames))},
        {"retarget", options.retarget},
        {"resolution_area", options.area}};
    if (!options.edited_reference.empty())
        settings["edited_reference"] = name(options.edited_reference);
    if (!options.detector.empty())
        settings["networks"] = {name(options.detector), name(options.pose)};
    if (!replace) return settings;
    settings["mask"] = {{"iterations", options.mask.iterations},
                        {"k", options.mask.kernel},
                        {"w_len", options.mask.columns},
                        {"h_len", options.mask.rows}};
    if (!options.segmenter.empty()) settings["segmenter"] = name(options.segmenter);
    return settings;
}

nlohmann::json to_json(const preprocess::Report& report) {
    const auto& pipeline = report.pipeline;
    nlohmann::json json = {
        {"frames", report.frames},
        {"fps", report.fps},
        {"width", report.width},
        {"height", report.height},
        {"networks", report.networks},
        {"from_cache", report.from_cache},
        {"seconds", pipeline.seconds},
        {"frames_per_second",
         pipeline.seconds > 0 ? static_cast<double>(report.frames) / pipeline.seconds : 0},
        {"idle_seconds", pipeline.idle_seconds},
        {"cuts", report.cuts},
        {"crowded_frames", report.crowded_frames},
        {"bad_frames", nlohmann::json::array()},
        {"filled_frames", report.filled_frames},
        {"empty_frames", report.empty_frames},
        {"stages", nlohmann::json::object()},
        {"outputs", nlohmann::json::array()},
    };
    for (const auto& stage : pipeline.stages)
        json["stages"][stage.name == "source" ? "decode" : stage.name] = stage.seconds;
    for (const auto& bad : report.bad_frames)
        json["bad_frames"].push_back({{"frame", bad.frame}, {"reason", bad.reason}});
    for (const auto& file : report.files) json["outputs"].push_back(file.string());
    if (!report.damage.empty()) json["damage"] = report.damage;
    return json;
}

}  // namespace zoetrope
