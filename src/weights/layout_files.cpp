// Which files of a folder hold a component, whatever layout the folder is in.
#include "weights/layouts.h"

#include "base/error.h"
#include "weights/weights_file.h"

#include <algorithm>
#include <array>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 7> kEndings = {".safetensors", ".gguf", ".pth", ".pt",
                                                      ".ckpt",        ".bin",  ".sft"};

// What the original repositories call a component's file.
std::string_view stem_of(ComponentKind kind) {
    switch (kind) {
        case ComponentKind::dit: return "diffusion_pytorch_model";
        case ComponentKind::vae: return "Wan2.";
        case ComponentKind::umt5: return "models_t5";
        case ComponentKind::clip: return "models_clip";
    }
    return {};
}

// Files of the folder whose name begins so, by name.
std::vector<fs::path> files_of(const fs::path& folder, std::string_view begin) {
    std::vector<fs::path> files;
    for (fs::path& file : weight_files(folder)) {
        if (file.filename().string().starts_with(begin)) files.push_back(std::move(file));
    }
    return files;
}

// "model-00002-of-00007.safetensors" and its like: parts of one component.
bool is_shard(const fs::path& file) {
    const std::string stem = file.stem().string();
    const std::size_t of = stem.rfind("-of-");
    return of != std::string::npos && of > 0 && of + 4 < stem.size();
}

std::shared_ptr<const TensorSource> open_all(const std::vector<fs::path>& files,
                                             const fs::path& folder) {
    if (files.size() == 1) return open_weights_file(files.front());
    ZT_CHECK(std::all_of(files.begin(), files.end(), is_shard), bad_request,
             "{} has several files of weights ({} and {} more): give the path of one of them",
             folder.string(), files.front().filename().string(), files.size() - 1);
    std::vector<std::shared_ptr<const TensorSource>> shards;
    for (const fs::path& file : files) shards.push_back(open_as_stored(file));
    return unscale_fp8(join_sources(std::move(shards), folder.string()));
}

// Whether open_component() finds its way there: Diffusers' or Transformers' names, or an index.
bool has_plain_names(const fs::path& folder) {
    for (const char* stem : {"diffusion_pytorch_model", "model"}) {
        for (const char* end : {".safetensors", ".safetensors.index.json"}) {
            std::error_code ignored;
            if (fs::exists(fs::symlink_status(folder / (std::string(stem) + end), ignored)))
                return true;
        }
    }
    return false;
}

std::shared_ptr<const TensorSource> open_folder(ComponentKind kind, const fs::path& folder) {
    const auto own = files_of(folder, stem_of(kind));
    if (kind != ComponentKind::dit && !own.empty()) return open_all(own, folder);
    if (has_plain_names(folder)) return open_component(folder);
    const bool shards = !own.empty() && std::all_of(own.begin(), own.end(), is_shard);
    if (shards) return open_all(own, folder);
    const auto all = weight_files(folder);
    const bool variants = std::any_of(all.begin(), all.end(), [](const fs::path& file) {
        const std::string name = file.filename().string();
        return file.extension() == ".safetensors" &&
               (name.starts_with("model.") || name.starts_with("diffusion_pytorch_model."));
    });
    if (all.empty() || variants) return open_component(folder);
    return open_all(own.empty() ? all : own, folder);
}

}  // namespace

bool is_weight_file(const fs::path& file) {
    const std::string name = file.filename().string();
    return std::any_of(kEndings.begin(), kEndings.end(), [&](std::string_view ending) {
        return name.size() > ending.size() && name.ends_with(ending);
    });
}

std::vector<fs::path> weight_files(const fs::path& folder) {
    std::vector<fs::path> files;
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
        std::error_code ignored;
        if (is_weight_file(entry->path()) && fs::is_regular_file(entry->path(), ignored))
            files.push_back(entry->path());
    }
    std::sort(files.begin(), files.end());
    return files;
}

std::shared_ptr<const TensorSource> open_stored(ComponentKind kind, const fs::path& path) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    ZT_CHECK(fs::exists(status), not_found, "cannot open {}: {}", path.string(), error.message());
    if (fs::is_directory(status)) return open_folder(kind, path);
    return path.extension() == ".json" ? open_component(path) : open_weights_file(path);
}

std::shared_ptr<const TensorSource> open_canonical(ComponentKind kind, const fs::path& path) {
    return canonical_source(kind, open_stored(kind, path));
}

}  // namespace zoetrope
