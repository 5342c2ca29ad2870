#include "weights/adapter_file.h"

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "weights/adapter_names.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <c10/core/ScalarType.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <optional>

namespace zoetrope {
namespace {

namespace fs = std::filesystem;
using enum AdapterPiece;

constexpr std::size_t kKeysInMessage = 10;
constexpr const char* kPeftStem = "adapter_model";  // of the file that PEFT writes
constexpr const char* kPeftConfig = "adapter_config.json";

std::string list_of(const std::vector<std::string>& names) {
    const std::size_t shown = std::min(names.size(), kKeysInMessage);
    std::string text = fmt::format("{}", fmt::join(names.begin(), names.begin() + shown, ", "));
    if (names.size() > shown) text += fmt::format(" and {} more", names.size() - shown);
    return text;
}

// What a file says of alpha where its modules have no key of their own.
struct Scaling {
    std::optional<double> alpha;
    std::map<std::string, double> patterns;  // of modules whose names end so
    bool rank_stabilised = false;            // alpha / sqrt(rank) (rsLoRA, Kalajdzievski 2023)

    double of(const std::string& module, double rank) const {
        double value = alpha.value_or(rank);
        for (const auto& [end, own] : patterns) {
            if (module == end || module.ends_with("." + end)) value = own;
        }
        return value / (rank_stabilised ? std::sqrt(rank) : rank);
    }
};

double number_of(const nlohmann::json& json, const std::string& key, std::string_view source) {
    ZT_CHECK(json.is_number() && std::isfinite(json.get<double>()), io,
             "{}: {} is {}, wanted is a finite number", source, key, json.dump());
    return json.get<double>();
}

// A PEFT configuration; Diffusers' metadata has "transformer." before each key.
Scaling scaling_of(const nlohmann::json& config, std::string_view source) {
    ZT_CHECK(config.is_object(), io, "{}: the adapter's configuration is not a JSON object",
             source);
    const auto find = [&config](const std::string& key) {
        const auto found = config.find(key);
        return found == config.end() ? config.find("transformer." + key) : found;
    };
    Scaling scaling;
    if (const auto alpha = find("lora_alpha"); alpha != config.end() && !alpha->is_null())
        scaling.alpha = number_of(*alpha, "lora_alpha", source);
    if (const auto patterns = find("alpha_pattern");
        patterns != config.end() && patterns->is_object()) {
        for (const auto& [module, alpha] : patterns->items())
            scaling.patterns[module] = number_of(alpha, "alpha_pattern of " + module, source);
    }
    if (const auto rs = find("use_rslora"); rs != config.end() && rs->is_boolean())
        scaling.rank_stabilised = rs->get<bool>();
    return scaling;
}

Scaling scaling_of(const TensorSource& source, const std::string& config) {
    for (const auto& [key, value] : source.metadata()) {
        if (key == "lora_adapter_metadata")
            return scaling_of(parse_json(value, source.description()), source.description());
        if (key == "lora_alpha") {
            Scaling scaling;
            scaling.alpha =
                number_of(parse_json(value, source.description()), key, source.description());
            return scaling;
        }
    }
    return config.empty() ? Scaling{} : scaling_of(parse_json(config, kPeftConfig), kPeftConfig);
}

// Rows of a parameter, and numbers in each.
std::pair<std::int64_t, std::int64_t> matrix_size(const Param& param) {
    std::int64_t elements = 1;
    for (const std::int64_t n : param.shape) elements *= n;
    return {param.shape[0], elements / param.shape[0]};
}

std::vector<std::int64_t> without_ones(at::IntArrayRef shape) {
    std::vector<std::int64_t> rest;
    std::copy_if(shape.begin(), shape.end(), std::back_inserter(rest),
                 [](std::int64_t n) { return n != 1; });
    return rest;
}

// " (Wan2.1 1.3B)": the released models of that width.
std::string_view model_of_dim(std::int64_t dim) {
    return dim == 1536   ? " (Wan2.1 1.3B)"
           : dim == 3072 ? " (Wan2.2 5B)"
           : dim == 5120 ? " (Wan 14B)"
                         : "";
}

class Reader {
public:
    Reader(const TensorSource& source, std::span<const Param> params, const std::string& config)
        : source_(source),
          file_(source.description()),
          scaling_(scaling_of(source, config)),
          index_(params) {}

    Adapter read() {
        adapter_.name = file_;
        const auto tensors = source_.tensors();
        std::map<std::string, Pieces> modules;
        for (std::size_t i = 0; i < tensors.size(); ++i) {
            const auto key = parse_adapter_key(tensors[i].name);
            if (!key) {
                adapter_.unmatched.push_back(tensors[i].name);
                continue;
            }
            ZT_CHECK(key->piece != refused, unsupported,
                     "{}: {} belongs to {}, which is not built: LoRA, DoRA, LoKr and whole "
                     "differences (.diff, .diff_b, .diff_m) are read",
                     file_, tensors[i].name, key->method);
            const auto [place, inserted] = modules[key->module].emplace(key->piece, i);
            ZT_CHECK(inserted, io, "{}: {} and {} are the same piece of an adapter", file_,
                     tensors[place->second].name, tensors[i].name);
        }
        for (const auto& [module, pieces] : modules) read_module(module, pieces);
        if (!wrong_size_.empty()) fail(ErrorKind::bad_request, "{}", wrong_size_);
        return std::move(adapter_);
    }

private:
    using Pieces = std::map<AdapterPiece, std::size_t>;  // -> position in the source

    const std::string& name_of(std::size_t position) const {
        return source_.tensors()[position].name;
    }

    // A tensor of floating-point numbers; undefined where there is none.
    at::Tensor tensor(const Pieces& pieces, AdapterPiece piece) const {
        const auto found = pieces.find(piece);
        if (found == pieces.end()) return {};
        const TensorInfo& info = source_.tensors()[found->second];
        ZT_CHECK(c10::isFloatingType(info.dtype), io,
                 "{}: {} is of type {}, and numbers with a fraction are wanted", file_, info.name,
                 c10::toString(info.dtype));
        ZT_CHECK(info.elements() > 0, io, "{}: {} is empty", file_, info.name);
        return source_.read(found->second);
    }

    void read_module(const std::string& module, const Pieces& pieces) {
        const bool low_rank = pieces.contains(down) || pieces.contains(up);
        const bool kronecker = std::any_of(pieces.begin(), pieces.end(), [](const auto& piece) {
            return piece.first >= lokr_w1 && piece.first <= lokr_t2;
        });
        if (low_rank || kronecker || pieces.contains(magnitude)) {
            const AdapterPiece main = low_rank ? down : lokr_w1;
            if (const Param* param = index_.find(module, main)) {
                add_product(*param, module, pieces, kronecker);
            } else {
                for (const auto& [piece, position] : pieces) {
                    if (piece != alpha && !is_difference(piece)) note_unmatched(module, position);
                }
            }
        }
        for (const auto& [piece, position] : pieces) {
            if (is_difference(piece)) add_difference(module, piece, pieces, position);
        }
    }

    static bool is_difference(AdapterPiece piece) {
        return piece == difference || piece == difference_bias || piece == difference_modulation ||
               piece == up_bias;
    }

    void note_unmatched(const std::string& module, std::size_t position) {
        (is_optional_part(module) ? adapter_.lacking : adapter_.unmatched)
            .push_back(name_of(position));
    }

    void add_difference(const std::string& module, AdapterPiece piece, const Pieces& pieces,
                        std::size_t position) {
        const Param* param = index_.find(module, piece);
        if (param == nullptr) return note_unmatched(module, position);
        AdapterDelta delta{.param = *param, .key = name_of(position)};
        delta.difference = tensor(pieces, piece);
        if (without_ones(delta.difference.sizes()) != without_ones(param->shape)) {
            const std::int64_t rows = delta.difference.dim() == 0 ? 1 : delta.difference.size(0);
            if (is_other_input(*param, rows)) return note_lacking(delta.key);
            return note_wrong_size(delta, rows, delta.difference.numel() / rows);
        }
        // A bias beside `up` is scaled as PEFT scales the whole.
        if (piece == up_bias && pieces.contains(down))
            delta.scale = scale_of(module, pieces, tensor(pieces, down).size(0));
        adapter_.deltas.push_back(std::move(delta));
    }

    void add_product(const Param& param, const std::string& module, const Pieces& pieces,
                     bool kronecker) {
        AdapterDelta delta{.param = param, .key = module};
        if (!(kronecker ? set_kronecker(delta, module, pieces)
                        : set_low_rank(delta, module, pieces)))
            return;
        const auto [rows, columns] = matrix_size(param);
        delta.magnitude = tensor(pieces, magnitude);
        if (delta.magnitude.defined()) {
            ZT_CHECK(delta.magnitude.size(0) == rows && delta.magnitude.numel() == rows,
                     unsupported,
                     "{}: the magnitudes (DoRA) of {} are [{}], and one for each of {} rows are "
                     "what is read",
                     file_, module, fmt::join(delta.magnitude.sizes(), ", "), rows);
        }
        adapter_.deltas.push_back(std::move(delta));
    }

    // False where the sizes are not this model's, which is noted.
    bool set_low_rank(AdapterDelta& delta, const std::string& module, const Pieces& pieces) {
        const auto [rows, columns] = matrix_size(delta.param);
        delta.down = tensor(pieces, down);
        delta.up = tensor(pieces, up);
        ZT_CHECK(delta.down.defined() && delta.up.defined(), io,
                 "{}: {} has one of the two matrices lora_A and lora_B (lora_down and lora_up), "
                 "and both are wanted",
                 file_, module);
        ZT_CHECK(delta.down.dim() >= 2 && delta.up.dim() >= 2, io,
                 "{}: the matrices of {} are [{}] and [{}], wanted are [rank, in] and [out, rank]",
                 file_, module, fmt::join(delta.down.sizes(), ", "),
                 fmt::join(delta.up.sizes(), ", "));
        const std::int64_t rank = delta.down.size(0), out = delta.up.size(0);
        const std::int64_t in = delta.down.numel() / rank;
        ZT_CHECK(delta.up.numel() == out * rank, io,
                 "{}: the matrices of {} are [{}] and [{}], which are not of one rank", file_,
                 module, fmt::join(delta.down.sizes(), ", "), fmt::join(delta.up.sizes(), ", "));
        if (in != columns || out != rows) {
            if (is_other_input(delta.param, out)) {
                note_lacking(module);
            } else {
                note_wrong_size(delta, out, in);
            }
            return false;
        }
        ZT_CHECK(rank <= std::max(rows, columns), io,
                 "{}: {} is of rank {}, more than its matrix of {} x {} can have", file_, module,
                 rank, rows, columns);
        delta.scale = scale_of(module, pieces, rank);
        adapter_.rank = std::max(adapter_.rank, rank);
        return true;
    }

    // A product of that size is made only where it can be a factor of the parameter: a file may ask
    // for any.
    void check_factor(const AdapterDelta& delta, std::int64_t rows, std::int64_t columns) const {
        const auto [most_rows, most_columns] = matrix_size(delta.param);
        ZT_CHECK(rows <= most_rows && columns <= most_columns, bad_request,
                 "{}: {} has a factor of {} x {}, and {} of this model is {} x {}", file_,
                 delta.key, rows, columns, delta.param.name, most_rows, most_columns);
    }

    // A factor of a Kronecker product: whole, or two matrices.
    at::Tensor factor(const AdapterDelta& delta, const Pieces& pieces, AdapterPiece whole,
                      AdapterPiece first, AdapterPiece second, std::int64_t& rank) {
        const std::string& module = delta.key;
        if (const at::Tensor given = tensor(pieces, whole); given.defined())
            return given.to(at::kFloat);
        const at::Tensor a = tensor(pieces, first), b = tensor(pieces, second);
        const bool fits =
            a.defined() && b.defined() && a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(0);
        ZT_CHECK(fits, io,
                 "{}: {} has no whole lokr_w1 or lokr_w2, and its parts _a and _b do not make one",
                 file_, module);
        check_factor(delta, a.size(0), b.size(1));
        rank = b.size(0);
        return at::matmul(a.to(at::kFloat), b.to(at::kFloat));
    }

    // w2 of a convolution in Tucker's form: sum over i, j of core[i, j, ...] a[i, out] b[j, in].
    at::Tensor tucker(const AdapterDelta& delta, const at::Tensor& core, const Pieces& pieces,
                      std::int64_t& rank) {
        const std::string& module = delta.key;
        const at::Tensor a = tensor(pieces, lokr_w2_a), b = tensor(pieces, lokr_w2_b);
        const bool fits = a.defined() && b.defined() && core.dim() >= 2 && a.dim() == 2 &&
                          b.dim() == 2 && core.size(0) == a.size(0) && core.size(1) == b.size(0);
        ZT_CHECK(fits, io, "{}: the parts of lokr_w2 of {} do not fit its core lokr_t2", file_,
                 module);
        check_factor(delta, a.size(1), b.size(1) * core.numel() / (core.size(0) * core.size(1)));
        rank = b.size(0);
        std::vector<std::int64_t> shape = {a.size(1), b.size(1)};
        shape.insert(shape.end(), core.sizes().begin() + 2, core.sizes().end());
        const at::Tensor wide = core.to(at::kFloat);
        const at::Tensor outer = at::matmul(a.to(at::kFloat).t(), wide.flatten(1));  // [out, j ...]
        const at::Tensor split = outer.view({a.size(1), core.size(1), -1}).transpose(1, 2);
        return at::matmul(split, b.to(at::kFloat)).transpose(1, 2).reshape(shape);
    }

    bool set_kronecker(AdapterDelta& delta, const std::string& module, const Pieces& pieces) {
        const auto [rows, columns] = matrix_size(delta.param);
        std::int64_t rank = 0;
        delta.left = factor(delta, pieces, lokr_w1, lokr_w1_a, lokr_w1_b, rank);
        const at::Tensor core = tensor(pieces, lokr_t2);
        delta.right = core.defined() ? tucker(delta, core, pieces, rank)
                                     : factor(delta, pieces, lokr_w2, lokr_w2_a, lokr_w2_b, rank);
        ZT_CHECK(delta.left.dim() == 2 && delta.right.dim() >= 2, io,
                 "{}: the factors of {} are [{}] and [{}], and matrices are wanted", file_, module,
                 fmt::join(delta.left.sizes(), ", "), fmt::join(delta.right.sizes(), ", "));
        delta.right = delta.right.flatten(1);
        const std::int64_t out = delta.left.size(0) * delta.right.size(0);
        const std::int64_t in = delta.left.size(1) * delta.right.size(1);
        if (out != rows || in != columns) {
            note_wrong_size(delta, out, in);
            return false;
        }
        // Whole factors are not scaled.
        if (rank > 0) delta.scale = scale_of(module, pieces, rank);
        adapter_.rank = std::max(adapter_.rank, rank);
        return true;
    }

    double scale_of(const std::string& module, const Pieces& pieces, std::int64_t rank) const {
        const auto own = pieces.find(alpha);
        if (own == pieces.end()) return scaling_.of(module, static_cast<double>(rank));
        const TensorInfo& info = source_.tensors()[own->second];
        ZT_CHECK(info.elements() == 1, io, "{}: {} has {} numbers, and one is wanted", file_,
                 info.name, info.elements());
        const double value = source_.read(own->second).to(at::kDouble).item<double>();
        ZT_CHECK(std::isfinite(value), io, "{}: {} is {}, and a finite number is wanted", file_,
                 info.name, value);
        return value / static_cast<double>(rank);
    }

    // The patches of models with other inputs (a picture's latents beside the noise) are wider.
    static bool is_other_input(const Param& param, std::int64_t rows) {
        return param.name == "patch_embedding.weight" && rows == param.shape[0];
    }

    void note_lacking(const std::string& key) { adapter_.lacking.push_back(key); }

    // The first one of attention tells most: both of its sizes are the model's width.
    void note_wrong_size(const AdapterDelta& delta, std::int64_t out, std::int64_t in) {
        const bool tells = delta.param.name.find(".attn") != std::string::npos;
        if (!wrong_size_.empty() && (!tells || wrong_size_tells_)) return;
        const auto [rows, columns] = matrix_size(delta.param);
        wrong_size_tells_ = tells;
        wrong_size_ =
            fmt::format("{}: {} changes a matrix of {} x {}, and {} of this model is {} x {}",
                        file_, delta.key, out, in, delta.param.name, rows, columns);
        if (tells && out != rows) {
            wrong_size_ += fmt::format(
                ": this adapter is for dim {}{}, the model has {}{}; give one that was trained on "
                "this model",
                out, model_of_dim(out), rows, model_of_dim(rows));
        }
    }

    const TensorSource& source_;
    const std::string file_;
    const Scaling scaling_;
    const ModuleIndex index_;
    Adapter adapter_;
    std::string wrong_size_;
    bool wrong_size_tells_ = false;
};

}  // namespace

Adapter read_adapter(const TensorSource& source, std::span<const Param> params,
                     const std::string& config) {
    return Reader(source, params, config).read();
}

Adapter open_adapter(const std::filesystem::path& file, std::span<const Param> params) {
    const auto source = open_weights_file(file);
    std::string config;
    if (file.stem() == kPeftStem) {
        std::ifstream beside(file.parent_path() / kPeftConfig);
        config.assign(std::istreambuf_iterator<char>(beside), {});
    }
    return read_adapter(*source, params, config);
}

void check_matches(const Adapter& adapter, bool allow) {
    if (!adapter.lacking.empty()) {
        log::warning("{}: this model lacks the parts of {} keys, which are left out: {}",
                     adapter.name, adapter.lacking.size(), list_of(adapter.lacking));
    }
    const auto& unmatched = adapter.unmatched;
    ZT_CHECK(unmatched.empty() || allow, bad_request,
             "{}: {} keys match nothing in this model: {}; --lora-allow-unmatched leaves them out",
             adapter.name, unmatched.size(), list_of(unmatched));
    if (!unmatched.empty()) {
        log::warning("{}: {} keys match nothing in this model and are left out: {}", adapter.name,
                     unmatched.size(), list_of(unmatched));
    }
    ZT_CHECK(!adapter.deltas.empty(), bad_request, "{}: nothing in it is for this model",
             adapter.name);
}

}  // namespace zoetrope
