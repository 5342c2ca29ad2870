#include "weights/source.h"

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "weights/weights_file.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <unordered_set>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

// Of Diffusers and of Transformers.
constexpr std::array<std::string_view, 2> kStems = {"diffusion_pytorch_model", "model"};
constexpr std::string_view kFileEnd = ".safetensors";
constexpr std::string_view kIndexEnd = ".safetensors.index.json";
// The same as Pickle files.
constexpr std::array<std::string_view, 2> kBinStems = {"diffusion_pytorch_model", "pytorch_model"};
constexpr std::string_view kBinEnd = ".bin";
constexpr std::string_view kBinIndexEnd = ".bin.index.json";
// Files of other programs, under any name.
constexpr std::array<std::string_view, 3> kLoneEnds = {".gguf", ".pth", ".pt"};

// Whether the name is taken; a link to nothing counts, and is reported when it is opened.
bool is_present(const fs::path& path) {
    std::error_code ignored;
    return fs::exists(fs::symlink_status(path, ignored));
}

// The name of a weight file without a folder, so that nothing outside of the model is opened.
bool is_plain_name(const std::string& name) {
    return (name.ends_with(kFileEnd) || name.ends_with(kBinEnd)) &&
           std::none_of(name.begin(), name.end(),
                        [](unsigned char c) { return c == '/' || std::iscntrl(c) != 0; });
}

// The shards that an index names, each of which must lie in its folder, and what must be in each.
std::map<std::string, std::vector<std::string>> shards_of(const fs::path& index) {
    const nlohmann::json json = read_json(index);
    const auto map = json.is_object() ? json.find("weight_map") : json.end();
    ZT_CHECK(map != json.end() && map->is_object() && !map->empty(), io,
             "{} has no weight_map from tensors to files", index.string());
    std::map<std::string, std::vector<std::string>> shards;
    for (const auto& [tensor, file] : map->items()) {
        ZT_CHECK(file.is_string(), io, "{}: the file of tensor {} is not a text", index.string(),
                 tensor);
        const auto& name = file.get_ref<const std::string&>();
        ZT_CHECK(is_plain_name(name), io,
                 "{}: tensor {} is said to be in {}, which is not the name of a .safetensors or "
                 ".bin file in the same folder",
                 index.string(), tensor, file.dump());
        shards[name].push_back(tensor);
    }
    return shards;
}

std::shared_ptr<const TensorSource> open_index(const fs::path& index) {
    const auto shards = shards_of(index);
    std::vector<std::string> absent;
    for (const auto& [name, tensors] : shards) {
        std::error_code ignored;
        if (!fs::exists(index.parent_path() / name, ignored)) absent.push_back(name);
    }
    ZT_CHECK(absent.empty(), not_found,
             "{} names {} files, of which are missing: {}. Download them", index.string(),
             shards.size(), fmt::join(absent, ", "));
    std::vector<std::shared_ptr<const TensorSource>> sources;
    for (const auto& [name, tensors] : shards) {
        const auto source = open_as_stored(index.parent_path() / name);
        std::unordered_set<std::string_view> held;
        for (const TensorInfo& info : source->tensors()) held.insert(info.name);
        for (const std::string& tensor : tensors) {
            ZT_CHECK(held.contains(tensor), io, "{} has no tensor {}, though {} says so",
                     source->description(), tensor, index.filename().string());
        }
        sources.push_back(source);
    }
    return unscale_fp8(join_sources(std::move(sources), index.parent_path().string()));
}

std::shared_ptr<const TensorSource> open_file(const fs::path& path) {
    const bool is_index = path.filename().string().ends_with(".json");
    return is_index ? open_index(path) : open_weights_file(path);
}

// "fp16" for model.fp16.safetensors, model.safetensors.index.fp16.json and (older)
// model.fp16.safetensors.index.json; empty where the name is not of that form.
std::string variant_of(std::string_view name, std::string_view stem) {
    if (!name.starts_with(stem)) return {};
    name.remove_prefix(stem.size());
    constexpr std::string_view kIndexBegin = ".safetensors.index";
    constexpr std::string_view kJson = ".json";
    if (name.ends_with(kIndexEnd)) {
        name.remove_suffix(kIndexEnd.size());
    } else if (name.ends_with(kFileEnd)) {
        name.remove_suffix(kFileEnd.size());
    } else if (name.starts_with(kIndexBegin) && name.ends_with(kJson)) {
        name.remove_prefix(kIndexBegin.size());
        name.remove_suffix(kJson.size());
    } else {
        return {};
    }
    const bool one_word = name.size() > 1 && name.starts_with('.') &&
                          name.substr(1).find_first_of(".-") == std::string_view::npos;
    return one_word ? std::string(name.substr(1)) : std::string();
}

std::vector<std::string> names_in(const fs::path& folder) {
    std::vector<std::string> names;
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
        names.push_back(entry->path().filename().string());
    }
    ZT_CHECK(!error, io, "cannot list {}: {}", folder.string(), error.message());
    std::sort(names.begin(), names.end());
    return names;
}

// Where a folder has its weights in variants only: the name of that file, or an error if there are
// several; empty if there is none.
std::string find_variant(const fs::path& folder) {
    std::vector<std::string> found;
    for (const std::string& name : names_in(folder)) {
        const bool is_variant =
            std::any_of(kStems.begin(), kStems.end(),
                        [&](std::string_view stem) { return !variant_of(name, stem).empty(); });
        if (is_variant) found.push_back(name);
    }
    ZT_CHECK(found.size() <= 1, bad_request,
             "{} has its weights in several variants ({}): give the path of one of them",
             folder.string(), fmt::join(found, ", "));
    return found.empty() ? std::string() : found.front();
}

// The only file of that ending in the folder; empty if there is none, an error if there are
// several.
std::string find_lone(const fs::path& folder, std::string_view ending) {
    std::vector<std::string> found;
    for (const std::string& name : names_in(folder)) {
        if (name.ends_with(ending)) found.push_back(name);
    }
    ZT_CHECK(found.size() <= 1, bad_request, "{} has several {} files ({}): give the path of one",
             folder.string(), ending, fmt::join(found, ", "));
    return found.empty() ? std::string() : found.front();
}

// What a folder without .safetensors files has: Pickle files of Diffusers and Transformers, or one
// file of another program. Empty if there is none.
std::string find_other(const fs::path& folder) {
    for (const std::string_view stem : kBinStems) {
        for (const std::string_view end : {kBinEnd, kBinIndexEnd}) {
            std::string name = fmt::format("{}{}", stem, end);
            if (is_present(folder / name)) return name;
        }
    }
    for (const std::string_view ending : kLoneEnds) {
        if (std::string name = find_lone(folder, ending); !name.empty()) return name;
    }
    return {};
}

}  // namespace

std::shared_ptr<const TensorSource> open_component(const fs::path& path) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    ZT_CHECK(fs::exists(status), not_found, "cannot open {}: {}", path.string(), error.message());
    if (!fs::is_directory(status)) return open_file(path);
    std::vector<std::string> tried;
    for (const std::string_view stem : kStems) {
        for (const std::string_view end : {kFileEnd, kIndexEnd}) {
            tried.push_back(fmt::format("{}{}", stem, end));
            if (is_present(path / tried.back())) return open_file(path / tried.back());
        }
    }
    std::string name = find_variant(path);
    if (name.empty()) name = find_other(path);
    ZT_CHECK(
        !name.empty(), not_found,
        "{} holds no weights: looked for {} and their variants, the same as .bin, and one .gguf, "
        ".pth or .pt file",
        path.string(), fmt::join(tried, ", "));
    log::info("{} has its weights as {} only: taking that", path.string(), name);
    return open_file(path / name);
}

}  // namespace zoetrope
