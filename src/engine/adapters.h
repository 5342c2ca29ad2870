// Adapters as a user names them: a file, a repository of the Hugging Face cache or a short name of
// the registry, how strongly and for which expert; and the files that these are.
//
// The registry is a JSON file (models/lora-registry.json, or the user's own):
//   {"adapters": {"NAME": {"repository": "org/name" or "path": "folder or file",
//       "file": "a.safetensors" or {"high": "a.safetensors", "low": "b.safetensors"},
//       "base": ["Wan2.1-T2V-14B", ...], "strength": 1.0 or {"high": 1.0, "low": 0.8},
//       "trigger_words": [...], "expert": "both", "scheduler": "euler", "steps": 4,
//       "guidance_scale": 1.0, "flow_shift": 5.0}}}
// of which all but repository or path may be left out. Plain values and pure functions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope {

// Of Wan2.2's two: the transformer of high noise levels, that of low ones.
enum class AdapterExpert { both, high, low };
std::string_view name_of(AdapterExpert expert);

struct AdapterChoice {
    std::string path;  // file, folder, repository name with or without a file, name of the registry
    std::optional<double> strength;       // unset: the registry's, or 1
    std::optional<AdapterExpert> expert;  // unset: the registry's, or both

    bool operator==(const AdapterChoice&) const = default;
};

// "PATH[:STRENGTH[:high|low|both]]". What is a file or folder as a whole has neither. Errors:
// bad_request.
AdapterChoice parse_adapter_choice(const std::string& text);

// What decides whether an adapter is for a model.
struct DitConfig;

struct AdapterBase {
    std::string path;  // of the model: often has its name
    std::int64_t dim = 0;
    std::int64_t layers = 0;
    std::int64_t in_channels = 0;
    bool two_experts = false;
};

struct AdapterFile {
    std::string name;  // as the user gave it
    std::filesystem::path file;
    double strength = 1;
    AdapterExpert expert = AdapterExpert::both;
};

struct FoundAdapters {
    std::vector<AdapterFile> files;      // a name of the registry may stand for two
    std::vector<std::string> sentences;  // what the registry recommends
};

// registry: a file, or empty for the default one. any_base: an adapter that the registry has for
// other models is taken all the same. Errors: not_found with what was looked for; bad_request for a
// wrong base or expert; io for a broken registry.
FoundAdapters find_adapters(std::span<const AdapterChoice> choices,
                            const std::filesystem::path& registry, const AdapterBase& base,
                            bool any_base);

// What adapters are matched against: the model at `path` with such transformers, one or two.
AdapterBase adapter_base(const std::string& path, const DitConfig& config, bool two_experts);

// The files alone; what the registry recommends is logged.
std::vector<AdapterFile> find_adapter_files(std::span<const AdapterChoice> choices,
                                            const std::filesystem::path& registry,
                                            const AdapterBase& base, bool any_base);

}  // namespace zoetrope
