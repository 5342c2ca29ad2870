#include "engine/adapters.h"

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "denoise/dit.h"
#include "engine/known_models.h"
#include "engine/model_search.h"
#include "net/hub_cache.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kExperts[] = {"both", "high", "low"};
constexpr const char* kRegistryName = "lora-registry.json";
constexpr std::string_view kFileEnd = ".safetensors";
// Of PEFT and of Diffusers: taken where a folder has other files too.
constexpr std::string_view kUsualNames[] = {"pytorch_lora_weights.safetensors",
                                            "adapter_model.safetensors"};

std::string lower(std::string_view text) {
    std::string out(text);
    std::transform(out.begin(), out.end(), out.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    return out;
}

// The released models that this one can be: the one that its path names, or those of its sizes.
std::vector<std::string> models_of(const AdapterBase& base) {
    const std::string path = lower(base.path);
    std::string named;
    std::vector<std::string> alike;
    for (const KnownModel& model : known_models()) {
        if (model.dim != base.dim || model.layers != base.layers ||
            model.in_channels != base.in_channels || model.two_experts != base.two_experts)
            continue;
        const std::string name = alike.emplace_back(model.repository());
        if (path.find(lower(name)) != std::string::npos && name.size() > named.size()) named = name;
    }
    return named.empty() ? alike : std::vector{named};
}

std::string describe(const AdapterBase& base) {
    const auto names = models_of(base);
    return names.empty() ? fmt::format("a model of dim {}, {} layers and {} input channels",
                                       base.dim, base.layers, base.in_channels)
                         : fmt::format("{}", fmt::join(names, " or "));
}

std::optional<AdapterExpert> find_expert(std::string_view text) {
    const auto* found = std::find(std::begin(kExperts), std::end(kExperts), text);
    if (found == std::end(kExperts)) return std::nullopt;
    return static_cast<AdapterExpert>(found - std::begin(kExperts));
}

std::optional<double> find_number(std::string_view text) {
    double number = 0;
    if (text.starts_with('+')) text.remove_prefix(1);
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || rest != text.data() + text.size()) return std::nullopt;
    return number;
}

// Beside the embedded models; empty where there are none, since files are found without it.
fs::path default_registry() {
    try {
        const fs::path file = embedded_models_folder() / kRegistryName;
        return is_there(file) ? file : fs::path();
    } catch (const Error&) {
        return {};
    }
}

// One row of the registry.
class Row {
public:
    Row(std::string name, const nlohmann::json& json, const fs::path& file)
        : name_(std::move(name)), json_(json), file_(file) {
        ZT_CHECK(json_.is_object(), io, "{}: {} is not a JSON object", file_.string(), name_);
    }

    const std::string& name() const { return name_; }

    std::string text(const char* key) const {
        const auto found = json_.find(key);
        if (found == json_.end() || found->is_null()) return {};
        ZT_CHECK(found->is_string(), io, "{}: {} of {} is {}, wanted is a text", file_.string(),
                 key, name_, found->dump());
        return found->get<std::string>();
    }

    std::vector<std::string> texts(const char* key) const {
        const auto found = json_.find(key);
        if (found == json_.end()) return {};
        const auto is_text = [](const nlohmann::json& value) { return value.is_string(); };
        ZT_CHECK(found->is_array() && std::all_of(found->begin(), found->end(), is_text), io,
                 "{}: {} of {} is {}, wanted is a list of texts", file_.string(), key, name_,
                 found->dump());
        return found->get<std::vector<std::string>>();
    }

    // A value, or the one of an expert where there are two.
    const nlohmann::json* value(const char* key, AdapterExpert expert) const {
        const auto found = json_.find(key);
        if (found == json_.end() || found->is_null()) return nullptr;
        if (!found->is_object()) return &*found;
        const auto own = found->find(name_of(expert));
        return own == found->end() ? nullptr : &*own;
    }

    double strength(AdapterExpert expert) const {
        const nlohmann::json* found = value("strength", expert);
        if (found == nullptr) return 1;
        ZT_CHECK(found->is_number(), io, "{}: strength of {} is {}, wanted is a number",
                 file_.string(), name_, found->dump());
        return found->get<double>();
    }

    std::string file(AdapterExpert expert) const {
        const nlohmann::json* found = value("file", expert);
        if (found == nullptr) return {};
        ZT_CHECK(found->is_string(), io, "{}: file of {} is {}, wanted is a text", file_.string(),
                 name_, found->dump());
        return found->get<std::string>();
    }

    bool is_pair() const {
        const auto found = json_.find("file");
        return found != json_.end() && found->is_object();
    }

    // What it should be run with, as flags.
    std::string recommendation() const {
        std::string text;
        for (const auto& [key, flag] : {std::pair{"scheduler", "--scheduler"},
                                        {"steps", "--num-inference-steps"},
                                        {"guidance_scale", "--guidance-scale"},
                                        {"flow_shift", "--flow-shift"}}) {
            const auto found = json_.find(key);
            if (found == json_.end() || found->is_null()) continue;
            text += fmt::format(" {} {}", flag,
                                found->is_string() ? found->get<std::string>() : found->dump());
        }
        if (!text.empty()) text = " is made for" + text;
        if (const auto words = texts("trigger_words"); !words.empty())
            text += fmt::format("{} is triggered by \"{}\"", text.empty() ? "" : ", and",
                                fmt::join(words, "\", \""));
        return text;
    }

private:
    std::string name_;
    const nlohmann::json& json_;
    const fs::path& file_;
};

class Finder {
public:
    Finder(const fs::path& registry, const AdapterBase& base, bool any_base)
        : base_(base), any_base_(any_base) {
        file_ = registry.empty() ? default_registry() : registry;
        if (file_.empty()) return;
        registry_ = read_json(file_);
        const auto rows = registry_.is_object() ? registry_.find("adapters") : registry_.end();
        ZT_CHECK(rows != registry_.end() && rows->is_object(), io,
                 "{} is no registry of adapters: an object \"adapters\" is wanted", file_.string());
        for (const auto& [name, row] : rows->items()) rows_.emplace_back(name, row, file_);
    }

    void find(const AdapterChoice& choice, FoundAdapters& found) const {
        if (is_there(choice.path)) {
            add(choice, file_in(choice.path, choice.path), nullptr, AdapterExpert::both, found);
        } else if (const Row* row = find_row(choice.path)) {
            check_base(*row);
            find_files(choice, *row, found);
            if (const std::string text = row->recommendation(); !text.empty())
                found.sentences.push_back(row->name() + text);
        } else {
            add(choice, file_in_repository(choice.path), nullptr, AdapterExpert::both, found);
        }
    }

private:
    // By its name, or by its repository where that has one row.
    const Row* find_row(const std::string& name) const {
        const Row* found = nullptr;
        for (const Row& row : rows_) {
            if (row.name() == name) return &row;
        }
        for (const Row& row : rows_) {
            if (row.text("repository") != name) continue;
            if (found != nullptr) return nullptr;
            found = &row;
        }
        return found;
    }

    void check_base(const Row& row) const {
        const auto bases = row.texts("base");
        const auto names = models_of(base_);
        const bool fits = bases.empty() ||
                          std::any_of(bases.begin(), bases.end(), [&](const std::string& wanted) {
                              return std::find(names.begin(), names.end(), wanted) != names.end();
                          });
        ZT_CHECK(
            fits || any_base_, bad_request,
            "the adapter {} is for {}, and this model is {}; --lora-allow-unmatched takes what "
            "fits all the same",
            row.name(), fmt::join(bases, " or "), describe(base_));
    }

    void find_files(const AdapterChoice& choice, const Row& row, FoundAdapters& found) const {
        std::string place = row.text("path");
        const bool local = !place.empty();
        if (!local) place = row.text("repository");
        ZT_CHECK(!place.empty(), io, "{}: {} has neither a repository nor a path", file_.string(),
                 row.name());
        std::vector<AdapterExpert> experts = {AdapterExpert::both};
        if (row.is_pair()) experts = {AdapterExpert::high, AdapterExpert::low};
        for (const AdapterExpert expert : experts) {
            const bool wanted = !row.is_pair() || !choice.expert ||
                                *choice.expert == AdapterExpert::both || *choice.expert == expert;
            if (!wanted) continue;
            const std::string name = row.file(expert);
            if (local) {
                fs::path path = file_.parent_path() / place;
                if (!name.empty()) path /= name;
                ZT_CHECK(is_there(path), not_found, "{} of the registry {} is not there: {}",
                         row.name(), file_.string(), path.string());
                add(choice, file_in(path, row.name()), &row, expert, found);
            } else {
                add(choice, file_in_repository(name.empty() ? place : place + "/" + name), &row,
                    expert, found);
            }
        }
    }

    void add(const AdapterChoice& choice, fs::path file, const Row* row, AdapterExpert expert,
             FoundAdapters& found) const {
        AdapterFile adapter{.name = choice.path, .file = std::move(file), .expert = expert};
        adapter.strength = choice.strength.value_or(row == nullptr ? 1 : row->strength(expert));
        if (expert == AdapterExpert::both) {
            const std::string own = row == nullptr ? "" : row->text("expert");
            const auto by_row = own.empty() ? AdapterExpert::both : find_expert(own);
            ZT_CHECK(by_row, io, "{}: expert of {} is '{}', accepted are {}", file_.string(),
                     row->name(), own, fmt::join(kExperts, ", "));
            adapter.expert = choice.expert.value_or(*by_row);
        }
        ZT_CHECK(base_.two_experts || adapter.expert == AdapterExpert::both, bad_request,
                 "--lora-path {} is for the expert of {} noise, and this model has one transformer "
                 "for all: leave the expert out",
                 choice.path, name_of(adapter.expert));
        found.files.push_back(std::move(adapter));
    }

    // The file itself, or the only one of a folder.
    static fs::path file_in(const fs::path& place, const std::string& name) {
        if (!fs::is_directory(place)) return place;
        std::vector<std::string> files;
        for (const auto& entry : fs::directory_iterator(place)) {
            const std::string file = entry.path().filename().string();
            if (file.ends_with(kFileEnd)) files.push_back(file);
        }
        std::sort(files.begin(), files.end());
        for (const std::string_view usual : kUsualNames) {
            if (std::find(files.begin(), files.end(), usual) != files.end()) return place / usual;
        }
        ZT_CHECK(!files.empty(), not_found, "--lora-path is '{}': the folder has no {} file", name,
                 kFileEnd);
        ZT_CHECK(files.size() == 1, bad_request,
                 "--lora-path is '{}': the folder has several adapters, give one of them: {}", name,
                 fmt::join(files, ", "));
        return place / files.front();
    }

    // "org/name" or "org/name/file".
    fs::path file_in_repository(const std::string& text) const {
        const auto slash = text.find('/');
        const auto second = slash == std::string::npos ? slash : text.find('/', slash + 1);
        const std::string repository = text.substr(0, second);
        const bool is_name = slash != std::string::npos && slash > 0 && slash + 1 < text.size() &&
                             text.front() != '.' && text.front() != '~';
        if (is_name) {
            const fs::path snapshot = find_snapshot(repository);
            if (!snapshot.empty() && second == std::string::npos) return file_in(snapshot, text);
            const fs::path file =
                snapshot.empty() ? fs::path() : snapshot / text.substr(second + 1);
            if (!file.empty() && is_there(file)) return file_in(file, text);
        }
        std::vector<std::string> names;
        for (const Row& row : rows_) names.push_back(row.name());
        const std::string known =
            names.empty() ? "" : fmt::format(" or registry name ({})", fmt::join(names, ", "));
        fail(ErrorKind::not_found, "--lora-path is '{}': there is no such file{}{}", text, known,
             is_name ? fmt::format(", and no such repository or file in the Hugging Face cache; "
                                   "download it there with `hf download {}`",
                                   repository)
                     : "; behind a colon a strength is taken, then high, low or both");
    }

    const AdapterBase& base_;
    const bool any_base_;
    fs::path file_;
    nlohmann::json registry_;
    std::vector<Row> rows_;
};

}  // namespace

std::string_view name_of(AdapterExpert expert) {
    return kExperts[static_cast<std::size_t>(expert)];
}

AdapterChoice parse_adapter_choice(const std::string& text) {
    AdapterChoice choice{.path = text, .strength = {}, .expert = {}};
    if (is_there(text)) return choice;
    const auto take_last = [&choice] {
        const auto colon = choice.path.rfind(':');
        return colon == std::string::npos ? std::string() : choice.path.substr(colon + 1);
    };
    const auto drop_last = [&choice] { choice.path.resize(choice.path.rfind(':')); };
    if (const auto expert = find_expert(take_last())) {
        choice.expert = expert;
        drop_last();
    }
    if (const auto strength = is_there(choice.path) ? std::nullopt : find_number(take_last())) {
        ZT_CHECK(std::isfinite(*strength), bad_request,
                 "--lora-path is '{}': the strength is not a finite number", text);
        choice.strength = strength;
        drop_last();
    }
    ZT_CHECK(!choice.path.empty(), bad_request,
             "--lora-path is '{}': a file, a repository or a name of the registry is wanted before "
             "the first colon",
             text);
    return choice;
}

FoundAdapters find_adapters(std::span<const AdapterChoice> choices,
                            const std::filesystem::path& registry, const AdapterBase& base,
                            bool any_base) {
    FoundAdapters found;
    if (choices.empty() && registry.empty()) return found;
    const Finder finder(registry, base, any_base);
    for (const AdapterChoice& choice : choices) finder.find(choice, found);
    return found;
}

AdapterBase adapter_base(const std::string& path, const DitConfig& config, bool two_experts) {
    return {.path = path,
            .dim = config.dim(),
            .layers = config.num_layers,
            .in_channels = config.in_channels,
            .two_experts = two_experts};
}

std::vector<AdapterFile> find_adapter_files(std::span<const AdapterChoice> choices,
                                            const fs::path& registry, const AdapterBase& base,
                                            bool any_base) {
    FoundAdapters found = find_adapters(choices, registry, base, any_base);
    for (const std::string& sentence : found.sentences) log::info("{}", sentence);
    return found.files;
}

}  // namespace zoetrope
