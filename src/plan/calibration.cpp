// Calibrations as JSON files in the cache folder.
#include "base/error.h"
#include "base/json.h"
#include "base/partial_file.h"
#include "plan/cost.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <system_error>

namespace zoetrope::plan {
namespace {

namespace fs = std::filesystem;

constexpr int kFormat = 2;  // of the files; others are ignored

fs::path file_of(const CalibrationKey& key, const fs::path& folder) {
    std::string name = fmt::format("{}-{}-{}-{}", key.widths, key.device, key.precision, key.ranks);
    for (char& c : name) {
        if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-' && c != '.') c = '_';
    }
    return folder / "cost" / (name + ".json");
}

nlohmann::json to_json(const Sample& sample) {
    nlohmann::json json = {{"length", sample.length},
                           {"attention_tflop", sample.work.attention},
                           {"linear_tflop", sample.work.linear},
                           {"vae_megapixels", sample.work.vae},
                           {"ranks", sample.ranks},
                           {"denoise_seconds", sample.denoise_seconds},
                           {"vae_seconds", sample.vae_seconds},
                           {"other_seconds", sample.other_seconds}};
    if (sample.attention_seconds) json["attention_seconds"] = *sample.attention_seconds;
    return json;
}

Sample sample_of(const nlohmann::json& json) {
    Sample sample{.length = json.at("length"),
                  .work = {.attention = json.at("attention_tflop"),
                           .linear = json.at("linear_tflop"),
                           .vae = json.at("vae_megapixels")},
                  .ranks = json.at("ranks"),
                  .denoise_seconds = json.at("denoise_seconds"),
                  .vae_seconds = json.at("vae_seconds"),
                  .other_seconds = json.at("other_seconds")};
    if (json.contains("attention_seconds"))
        sample.attention_seconds = json.at("attention_seconds").get<double>();
    return sample;
}

Calibration calibration_of(const nlohmann::json& json) {
    const nlohmann::json& model = json.at("seconds");
    Calibration calibration{.key = {.widths = json.at("widths"),
                                    .device = json.at("device"),
                                    .precision = json.at("precision"),
                                    .ranks = json.at("ranks")},
                            .model = {.attention = model.at("per_attention_tflop"),
                                      .linear = model.at("per_linear_tflop"),
                                      .vae = model.at("per_vae_megapixel"),
                                      .shared = model.at("per_segment_shared"),
                                      .serial = model.at("per_segment")}};
    for (const nlohmann::json& sample : json.at("samples"))
        calibration.samples.push_back(sample_of(sample));
    return calibration;
}

bool is_usable(const CostModel& model) {
    const double parts[] = {model.attention, model.linear, model.vae, model.shared, model.serial};
    return std::all_of(std::begin(parts), std::end(parts),
                       [](double part) { return std::isfinite(part) && part >= 0; });
}

}  // namespace

CalibrationKey calibration_key(const ModelShape& shape, std::string_view device, int threads,
                               std::string_view dtype, std::string_view quantization, int ranks) {
    const std::string kind(device.substr(0, device.find(':')));
    return {
        .widths = fmt::format("{} in {} heads, VAE {}", shape.dim(), shape.heads, shape.vae_dim),
        .device = kind == "cpu" ? fmt::format("cpu, {} threads", threads) : kind,
        .precision = std::string(quantization == "none" ? dtype : quantization),
        .ranks = ranks};
}

fs::path cache_folder() {
    const auto variable = [](const char* name) -> std::string {
        const char* value = std::getenv(name);
        return value == nullptr ? "" : value;
    };
    // The specification has relative values ignored.
    if (const fs::path cache = variable("XDG_CACHE_HOME"); cache.is_absolute())
        return cache / "zoetrope";
    const std::string home = variable("HOME");
    return fs::path(home.empty() ? fs::temp_directory_path().string() : home) / ".cache" /
           "zoetrope";
}

void store_calibration(const Calibration& calibration, const fs::path& folder) {
    const fs::path file = file_of(calibration.key, folder);
    const CostModel& model = calibration.model;
    nlohmann::json json = {{"format", kFormat},
                           {"widths", calibration.key.widths},
                           {"device", calibration.key.device},
                           {"precision", calibration.key.precision},
                           {"ranks", calibration.key.ranks},
                           {"seconds",
                            {{"per_attention_tflop", model.attention},
                             {"per_linear_tflop", model.linear},
                             {"per_vae_megapixel", model.vae},
                             {"per_segment_shared", model.shared},
                             {"per_segment", model.serial}}},
                           {"samples", nlohmann::json::array()}};
    for (const Sample& sample : calibration.samples) json["samples"].push_back(to_json(sample));
    std::error_code error;
    fs::create_directories(file.parent_path(), error);
    try {
        write_whole_file(file, json.dump(2) + '\n');
    } catch (const Error&) {
        fail(ErrorKind::io,
             "the calibration cannot be written to {}: make the folder writable or set "
             "XDG_CACHE_HOME",
             file.string());
    }
}

std::optional<Calibration> load_calibration(const CalibrationKey& key, const fs::path& folder) {
    const fs::path file = file_of(key, folder);
    std::error_code ignored;
    if (!fs::exists(file, ignored)) return std::nullopt;
    const nlohmann::json json = read_json(file);
    Calibration calibration;
    try {
        if (json.at("format") != kFormat) return std::nullopt;
        calibration = calibration_of(json);
    } catch (const nlohmann::json::exception&) {
        calibration.model.serial = -1;
    }
    ZT_CHECK(is_usable(calibration.model), io,
             "{} is not a calibration: delete it and calibrate anew", file.string());
    if (calibration.key != key) return std::nullopt;  // another key with the same file name
    return calibration;
}

}  // namespace zoetrope::plan
