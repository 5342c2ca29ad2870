#include "weights/source.h"

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <map>
#include <ranges>
#include <set>
#include <unordered_map>
#include <unordered_set>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

// Of Diffusers and of Transformers.
constexpr std::array<std::string_view, 2> kStems = {"diffusion_pytorch_model", "model"};
constexpr std::string_view kFileEnd = ".safetensors";
constexpr std::string_view kIndexEnd = ".safetensors.index.json";

class JoinedSource final : public TensorSource {
public:
    JoinedSource(std::vector<std::shared_ptr<const TensorSource>> sources, std::string description)
        : sources_(std::move(sources)), description_(std::move(description)) {
        std::unordered_map<std::string_view, std::size_t> owners;
        for (std::size_t s = 0; s < sources_.size(); ++s) {
            const auto tensors = sources_[s]->tensors();
            for (std::size_t i = 0; i < tensors.size(); ++i) {
                const auto [owner, inserted] = owners.emplace(tensors[i].name, s);
                ZT_CHECK(inserted, io, "tensor {} is in both {} and {}", tensors[i].name,
                         sources_[owner->second]->description(), sources_[s]->description());
                tensors_.push_back(tensors[i]);
                places_.push_back({s, i});
            }
        }
    }

    std::span<const TensorInfo> tensors() const override { return tensors_; }

    at::Tensor read(std::size_t index) const override {
        const Place& place = places_.at(index);
        return sources_[place.source]->read(place.index);
    }

    std::string description() const override { return description_; }

    // Of all sources; where two have the same key, the first one's.
    std::vector<std::pair<std::string, std::string>> metadata() const override {
        std::vector<std::pair<std::string, std::string>> pairs;
        std::unordered_set<std::string> keys;
        for (const auto& source : sources_) {
            for (auto& pair : source->metadata()) {
                if (keys.insert(pair.first).second) pairs.push_back(std::move(pair));
            }
        }
        return pairs;
    }

private:
    struct Place {
        std::size_t source;
        std::size_t index;
    };

    std::vector<std::shared_ptr<const TensorSource>> sources_;
    std::string description_;
    std::vector<TensorInfo> tensors_;
    std::vector<Place> places_;
};

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
        // A plain name: no folder, so nothing outside of the model is opened.
        ZT_CHECK(
            fs::path(name).filename() == name && name.ends_with(kFileEnd) &&
                name.find('\0') == std::string::npos,
            io,
            "{}: tensor {} is said to be in '{}', which is not the name of a .safetensors file "
            "in the same folder",
            index.string(), tensor, name);
        shards[name].push_back(tensor);
    }
    return shards;
}

std::shared_ptr<const TensorSource> open_index(const fs::path& index) {
    const auto shards = shards_of(index);
    std::vector<std::string> absent;
    for (const auto& [name, tensors] : shards) {
        if (!fs::exists(index.parent_path() / name)) absent.push_back(name);
    }
    ZT_CHECK(absent.empty(), not_found,
             "{} names {} files, of which are missing: {}. Download them", index.string(),
             shards.size(), fmt::join(absent, ", "));
    std::vector<std::shared_ptr<const TensorSource>> sources;
    for (const auto& [name, tensors] : shards) {
        const auto source = open_safetensors(index.parent_path() / name);
        std::unordered_set<std::string_view> held;
        for (const TensorInfo& info : source->tensors()) held.insert(info.name);
        for (const std::string& tensor : tensors) {
            ZT_CHECK(held.contains(tensor), io, "{} has no tensor {}, though {} says so",
                     source->description(), tensor, index.filename().string());
        }
        sources.push_back(source);
    }
    return join_sources(std::move(sources), index.parent_path().string());
}

std::shared_ptr<const TensorSource> open_file(const fs::path& path) {
    const std::string name = path.filename().string();
    if (name.ends_with(".json")) return open_index(path);
    ZT_CHECK(name.ends_with(kFileEnd), unsupported,
             "{} is not a weight file that can be read: accepted are .safetensors, and the "
             ".safetensors.index.json beside its shards",
             path.string());
    return open_safetensors(path);
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
    }
    const bool one_word = name.size() > 1 && name.starts_with('.') &&
                          name.substr(1).find_first_of(".-") == std::string_view::npos;
    return one_word ? std::string(name.substr(1)) : std::string();
}

// Where a folder has its weights in variants only: that one, or an error if there are several.
fs::path find_variant(const fs::path& folder) {
    std::set<fs::path> found;
    for (const auto& entry : fs::directory_iterator(folder)) {
        const fs::path name = entry.path().filename();
        if (name.extension() != ".safetensors" && name.extension() != ".json") continue;
        for (const std::string_view stem : kStems) {
            if (!variant_of(name.string(), stem).empty()) found.insert(entry.path());
        }
    }
    ZT_CHECK(found.size() <= 1, bad_request,
             "{} has its weights in several variants ({}): give the path of one of them",
             folder.string(),
             fmt::join(found | std::views::transform(
                                   [](const fs::path& path) { return path.filename().string(); }),
                       ", "));
    return found.empty() ? fs::path() : *found.begin();
}

}  // namespace

std::shared_ptr<const TensorSource> join_sources(
    std::vector<std::shared_ptr<const TensorSource>> sources, std::string description) {
    return std::make_shared<JoinedSource>(std::move(sources), std::move(description));
}

std::shared_ptr<const TensorSource> open_component(const fs::path& path) {
    ZT_CHECK(fs::exists(path), not_found, "there is no file or folder {}", path.string());
    if (!fs::is_directory(path)) return open_file(path);
    std::vector<std::string> tried;
    for (const std::string_view stem : kStems) {
        for (const std::string_view end : {kFileEnd, kIndexEnd}) {
            tried.push_back(fmt::format("{}{}", stem, end));
            if (fs::exists(path / tried.back())) return open_file(path / tried.back());
        }
    }
    const fs::path variant = find_variant(path);
    ZT_CHECK(!variant.empty(), not_found, "{} holds no weights: looked for {} and their variants",
             path.string(), fmt::join(tried, ", "));
    log::info("{} has its weights as {} only: taking that", path.string(),
              variant.filename().string());
    return open_file(variant);
}

}  // namespace zoetrope
