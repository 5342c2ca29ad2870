// A model's parts without a model_index.json: by content, near the transformer.
#include "engine/model_search.h"

#include "base/error.h"
#include "base/log.h"
#include "engine/model_json.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <span>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

constexpr int kFoldersUp = 3;  // ComfyUI's diffusion_models/wan/HighNoise/ is so far inside

// Folders that hold a part, beside the transformer's: Diffusers' and ComfyUI's names.
std::vector<std::string> folders_of(ComponentKind kind) {
    switch (kind) {
        case ComponentKind::dit: return {"diffusion_models", "unet", "checkpoints"};
        case ComponentKind::vae: return {"vae"};
        case ComponentKind::umt5: return {"text_encoder", "text_encoders", "clip"};
        case ComponentKind::clip: return {"image_encoder", "clip_vision"};
    }
    return {};
}

// What a released file of the kind has in its name, and what speaks against it (Qwen's picture VAE
// has the layers of Wan's).
bool is_named_so(ComponentKind kind, const fs::path& file) {
    std::string name = file.filename().string();
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const auto has = [&name](std::string_view word) { return name.find(word) != name.npos; };
    switch (kind) {
        case ComponentKind::vae: return has("wan");
        case ComponentKind::umt5: return has("umt5");
        default: return true;
    }
}

// Lower case, letters and digits only: names are spelt HIGH_, -high- and HighNoise.
std::string bare(const std::string& text) {
    std::string result;
    for (const unsigned char c : text) {
        if (c < 128 && std::isalnum(c)) result += static_cast<char>(std::tolower(c));
    }
    return result;
}

// Folder and file name, which say together which expert a file is.
std::string expert_name(const fs::path& file) {
    return bare(file.parent_path().filename().string()) + "/" + bare(file.stem().string()) +
           file.extension().string();
}

// Whether a name has the word, with no letter before and behind it ("slow" has no "low").
bool has_word(const std::string& name, std::string_view word) {
    std::string text = name;
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const auto is_letter = [&text](std::size_t at) {
        return at < text.size() && std::isalpha(static_cast<unsigned char>(text[at])) != 0;
    };
    for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
        if (!(at > 0 && is_letter(at - 1)) && !is_letter(at + word.size())) return true;
    }
    return false;
}

// Whether file or folder are named after the expert: "high" or "high_noise", however spelt.
bool names_expert(const fs::path& file, const std::string& word) {
    const std::string name = file.stem().string();
    const std::string folder = file.parent_path().filename().string();
    return has_word(name, word) || bare(name).find(word + "noise") != std::string::npos ||
           bare(folder).find(word + "noise") != std::string::npos || bare(folder) == word;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
    for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at))
        text.replace(at, from.size(), to);
    return text;
}

std::vector<fs::path> subfolders(const fs::path& folder) {
    std::vector<fs::path> found;
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
        std::error_code ignored;
        if (fs::is_directory(entry->path(), ignored)) found.push_back(entry->path());
    }
    std::sort(found.begin(), found.end());
    return found;
}

bool has_index(const fs::path& folder) {
    for (const char* stem : {"diffusion_pytorch_model", "model"}) {
        if (is_there(folder / (std::string(stem) + ".safetensors.index.json"))) return true;
    }
    return false;
}

// Files of weights in a folder (as one, where an index joins them) and in its subfolders.
std::vector<fs::path> weights_in(const fs::path& folder, int depth) {
    if (has_index(folder)) return {folder};
    std::vector<fs::path> found = weight_files(folder);
    if (depth == 0) return found;
    for (const fs::path& inner : subfolders(folder)) {
        const auto more = weights_in(inner, depth - 1);
        found.insert(found.end(), more.begin(), more.end());
    }
    return found;
}

// What a file that may be anything holds; nothing where it cannot be read as weights.
std::vector<ComponentLayout> components_in(const fs::path& path) {
    try {
        const auto source = fs::is_directory(path) ? open_component(path) : open_weights_file(path);
        return detect_layouts(*source);
    } catch (const Error&) {
        return {};
    }
}

bool holds(ComponentKind kind, const fs::path& path) {
    const auto found = components_in(path);
    return std::any_of(found.begin(), found.end(),
                       [kind](const ComponentLayout& layout) { return layout.kind == kind; });
}

bool fits(const Wanted& wanted, const fs::path& path) {
    if (!holds(wanted.kind, path)) return false;
    if (wanted.key == nullptr) return true;
    try {
        const auto config = component_config(wanted.kind, path);
        return config.value(wanted.key, nlohmann::json()) == wanted.value;
    } catch (const Error&) {
        return false;
    }
}

std::uintmax_t size_of(const fs::path& path) {
    std::error_code error;
    const std::uintmax_t size = fs::file_size(path, error);
    return error ? 0 : size;
}

// Those that fit, best first: named as released files are, then the most precise, which is largest.
std::vector<fs::path> fitting(const Wanted& wanted, const std::vector<fs::path>& files) {
    std::vector<fs::path> found;
    for (const fs::path& file : files)
        if (fits(wanted, file)) found.push_back(file);
    std::stable_sort(found.begin(), found.end(), [&](const fs::path& a, const fs::path& b) {
        const bool a_named = is_named_so(wanted.kind, a), b_named = is_named_so(wanted.kind, b);
        if (a_named != b_named) return a_named;
        return size_of(a) > size_of(b);
    });
    return found;
}

// Says which one was taken where there was a choice.
const fs::path& choose(const Wanted& wanted, const std::vector<fs::path>& found) {
    if (found.size() > 1) {
        log::info("{} fit as {}: taking {} ({} chooses)", found.size(), name_of(wanted.kind),
                  found.front().string(), wanted.flag);
    }
    return found.front();
}

// `folder`, the one above it, and so on.
std::vector<fs::path> folders_up(const fs::path& folder) {
    std::vector<fs::path> found = {folder};
    for (int i = 0; i < kFoldersUp && found.back() != found.back().parent_path(); ++i)
        found.push_back(found.back().parent_path());
    return found;
}

fs::path folder_of(const fs::path& path) {
    const fs::path whole = fs::absolute(path).lexically_normal();
    return fs::is_directory(whole) ? whole : whole.parent_path();
}

bool is_tokenizer(const fs::path& folder) {
    return is_there(folder / "tokenizer.json") || is_there(folder / "spiece.model");
}

// Of files that are transformers, the one that is meant, with its other expert.
LooseTransformers choose_transformer(const fs::path& root, std::vector<fs::path> files) {
    std::erase_if(files, [](const fs::path& file) { return !holds(ComponentKind::dit, file); });
    ZT_CHECK(!files.empty(), not_found,
             "{} is not the folder of a model: it has no model_index.json (Diffusers), no "
             "diffusion_pytorch_model files (the Wan repositories) and no other file of a "
             "transformer",
             root.string());
    const fs::path other = find_other_expert(files.front());
    std::erase_if(files, [&](const fs::path& file) { return file == other; });
    ZT_CHECK(files.size() == 1, bad_request,
             "{} has several transformers ({} and {}): give the path of one of them", root.string(),
             files[0].string(), files[1].string());
    return {.transformer = files.front(), .transformer_2 = {}, .near = folder_of(files.front())};
}

LooseTransformers in_folder(const fs::path& root) {
    const fs::path near = folder_of(root);
    const fs::path high = near / "high_noise_model", low = near / "low_noise_model";
    if (fs::is_directory(high) && fs::is_directory(low)) {
        return {.transformer = high,
                .transformer_2 = low,
                .near = near,
                .layout = ModelLayout::original};
    }
    std::vector<fs::path> files = weight_files(near);
    const bool original =
        has_index(near) || std::any_of(files.begin(), files.end(), [](auto& file) {
            return file.filename().string().starts_with("diffusion_pytorch_model");
        });
    if (original) {
        return {.transformer = near,
                .transformer_2 = {},
                .near = near,
                .layout = ModelLayout::original};
    }
    for (const std::string& name : folders_of(ComponentKind::dit)) {
        const auto more = weights_in(near / name, 1);
        files.insert(files.end(), more.begin(), more.end());
    }
    return choose_transformer(root, std::move(files));
}

}  // namespace

bool is_there(const fs::path& path) {
    std::error_code ignored;
    return fs::exists(path, ignored);
}

nlohmann::json component_config(ComponentKind kind, const fs::path& path) {
    const bool folder = fs::is_directory(path);
    const fs::path file = (folder ? path : path.parent_path()) / "config.json";
    nlohmann::json found;
    if (is_there(file)) found = read_json_object(file);
    if (folder && found.is_object() && !is_original_config(found)) return found;
    const auto source = open_canonical(kind, path);
    // What the file says of itself holds before what lies beside it.
    for (const auto& [key, text] : source->metadata()) {
        if (kind != ComponentKind::dit || key != kConfigKey) continue;
        const auto own = nlohmann::json::parse(text, nullptr, false);
        if (own.is_object()) found = own;
    }
    return config_of(kind, *source, found);
}

bool is_high_noise(const fs::path& file) { return names_expert(file, "high"); }

bool is_low_noise(const fs::path& file) {
    return !is_high_noise(file) && names_expert(file, "low");
}

fs::path find_other_expert(const fs::path& file) {
    const bool high = is_high_noise(file);
    if (!high && !is_low_noise(file)) return {};
    const std::string wanted =
        replaced(expert_name(file), high ? "high" : "low", high ? "low" : "high");
    const fs::path folder = folder_of(file);
    std::vector<fs::path> files = weight_files(folder);
    for (const fs::path& beside : subfolders(folder.parent_path())) {
        const auto more = weight_files(beside);
        files.insert(files.end(), more.begin(), more.end());
    }
    for (const fs::path& candidate : files) {
        if (expert_name(candidate) == wanted) return candidate;
    }
    return {};
}

LooseTransformers find_transformers(const fs::path& root, const ModelPaths& paths) {
    LooseTransformers found;
    if (!paths.transformer.empty()) {
        found = {.transformer = paths.transformer, .transformer_2 = {}, .near = folder_of(root)};
    } else if (fs::is_directory(root)) {
        found = in_folder(root);
    } else {
        ZT_CHECK(is_weight_file(root), unsupported,
                 "{} is '{}': a single file must be one of weights, going by its ending: "
                 ".safetensors, .gguf, .pth, .pt, .ckpt or .bin",
                 paths.asked_by, root.string());
        found = {.transformer = root, .transformer_2 = {}, .near = folder_of(root)};
    }
    if (!paths.transformer_2.empty()) found.transformer_2 = paths.transformer_2;
    if (found.transformer_2 || fs::is_directory(found.transformer)) return found;
    const fs::path other = find_other_expert(found.transformer);
    if (is_high_noise(found.transformer)) {
        ZT_CHECK(!other.empty(), not_found,
                 "{} is the high-noise expert of two, going by its name, and there is no file "
                 "beside it that differs in \"low\" only: give the other with "
                 "--transformer-2-path",
                 found.transformer.string());
        found.transformer_2 = other;
    } else if (!other.empty()) {
        found.transformer_2 = std::exchange(found.transformer, other);
    }
    return found;
}

fs::path find_part(const Wanted& wanted, const fs::path& near, const fs::path& model) {
    if (fs::is_regular_file(model) && fits(wanted, model)) return model;
    for (const fs::path& folder : folders_up(near)) {
        std::vector<fs::path> files;
        for (const std::string& name : folders_of(wanted.kind)) {
            const auto more = weights_in(folder / name, 2);
            files.insert(files.end(), more.begin(), more.end());
        }
        if (folder == near) {
            const auto more = weight_files(folder);
            files.insert(files.end(), more.begin(), more.end());
        }
        if (const auto found = fitting(wanted, files); !found.empty()) return choose(wanted, found);
    }
    const std::string looked = fmt::format("{}", fmt::join(folders_of(wanted.kind), "/, "));
    const std::string fit =
        wanted.key == nullptr ? "" : fmt::format(" with {} {}", wanted.key, wanted.value);
    fail(ErrorKind::not_found,
         "no {}{} was found in {} or in the folders {}/ beside it and above it: give it with {}",
         name_of(wanted.kind), fit, near.string(), looked, wanted.flag);
}

fs::path find_tokenizer(const fs::path& near, const fs::path& text_encoder) {
    std::vector<fs::path> places = folders_up(near);
    for (const fs::path& folder : folders_up(folder_of(text_encoder))) places.push_back(folder);
    for (const fs::path& folder : places) {
        for (const char* name : {"tokenizer", "google/umt5-xxl", "umt5-xxl", "umt5_xxl"}) {
            if (is_tokenizer(folder / name)) return folder / name;
        }
    }
    if (is_tokenizer(folder_of(text_encoder))) return folder_of(text_encoder);
    if (is_tokenizer(near)) return near;
    if (carries_tokenizer(text_encoder)) return text_encoder;
    fail(ErrorKind::not_found,
         "no tokenizer was found: looked for tokenizer/ and google/umt5-xxl/ (with tokenizer.json "
         "or spiece.model) in {} and above, and for a tokenizer inside {}; give the folder "
         "with --tokenizer-path",
         near.string(), text_encoder.string());
}

bool carries_tokenizer(const fs::path& file) {
    if (!fs::is_regular_file(file) || !is_weight_file(file)) return false;
    const auto source = open_weights_file(file);
    for (const auto& [key, value] : source->metadata())
        if (key == "tokenizer.ggml.tokens") return true;
    const auto tensors = source->tensors();
    return std::any_of(tensors.begin(), tensors.end(), [](const TensorInfo& info) {
        return info.name == "spiece_model" || info.name.ends_with(".spiece_model");
    });
}

}  // namespace zoetrope
