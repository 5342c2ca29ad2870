#include "plan/cost.h"

#include "base/error.h"
#include "plan/segments.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>

namespace zoetrope::plan {
namespace {

constexpr double kTera = 1e12;
constexpr double kMega = 1e6;
constexpr double kTextTokens = 512;
constexpr double kImageTokens = 257;   // CLIP ViT-H's patches and class token
constexpr double kEncodedPixel = 0.5;  // of a decoded one: the encoder has half the layers

double tokens_of(const Workload& workload, int length) {
    const int factor = workload.shape.spatial_factor;
    const double latents = (length - 1) / 4 + 1 + workload.shape.reference_latents;
    return latents * (workload.width / factor) * (workload.height / factor);
}

// The released models, sizes from their config.json files.
const std::array<ModelShape, 7>& known_shapes() {
    static const std::array<ModelShape, 7> shapes = {{
        {.name = "wan2.1-t2v-1.3b", .layers = 30, .heads = 12, .ffn_dim = 8960},
        {.name = "wan2.1-t2v-14b"},
        {.name = "wan2.2-t2v-a14b"},
        {.name = "wan2.1-i2v-14b", .image_attention = true, .encoded_videos = 1},
        {.name = "wan2.2-ti2v-5b",
         .layers = 30,
         .heads = 24,
         .ffn_dim = 14336,
         .spatial_factor = 32,
         .vae_dim = 160},
        {.name = "wan2.1-vace-14b", .control_layers = 8, .encoded_videos = 2},
        {.name = "wan2.2-animate-14b",
         .face_layers = 8,
         .image_attention = true,
         .reference_latents = 1,
         .encoded_videos = 2},
    }};
    return shapes;
}

using Rows = std::vector<std::vector<double>>;

// Least squares on some columns by the normal equations and Gaussian elimination with pivots;
// nothing where the columns depend on each other.
std::optional<std::vector<double>> least_squares(std::span<const std::vector<double>> rows,
                                                 std::span<const double> values,
                                                 const std::vector<std::size_t>& columns) {
    const std::size_t n = columns.size();
    std::vector<double> scale(n, 0);  // columns of size one: coefficients differ by powers of ten
    for (std::size_t c = 0; c < n; ++c) {
        for (const auto& row : rows) scale[c] += row[columns[c]] * row[columns[c]];
        scale[c] = std::sqrt(scale[c]);
        if (scale[c] == 0) return std::nullopt;
    }
    Rows matrix(n, std::vector<double>(n + 1, 0));
    for (std::size_t r = 0; r < rows.size(); ++r) {
        for (std::size_t i = 0; i < n; ++i) {
            const double left = rows[r][columns[i]] / scale[i];
            for (std::size_t j = 0; j < n; ++j)
                matrix[i][j] += left * rows[r][columns[j]] / scale[j];
            matrix[i][n] += left * values[r];
        }
    }
    constexpr double kSingular = 1e-12;  // of a matrix whose diagonal is 1
    for (std::size_t i = 0; i < n; ++i) {
        std::size_t pivot = i;
        for (std::size_t k = i + 1; k < n; ++k) {
            if (std::abs(matrix[k][i]) > std::abs(matrix[pivot][i])) pivot = k;
        }
        std::swap(matrix[i], matrix[pivot]);
        if (std::abs(matrix[i][i]) < kSingular) return std::nullopt;
        for (std::size_t k = 0; k < n; ++k) {
            if (k == i) continue;
            const double factor = matrix[k][i] / matrix[i][i];
            for (std::size_t j = i; j <= n; ++j) matrix[k][j] -= factor * matrix[i][j];
        }
    }
    std::vector<double> solution(n);
    for (std::size_t i = 0; i < n; ++i) solution[i] = matrix[i][n] / matrix[i][i] / scale[i];
    return solution;
}

double squared_error(std::span<const std::vector<double>> rows, std::span<const double> values,
                     std::span<const double> solution) {
    double sum = 0;
    for (std::size_t r = 0; r < rows.size(); ++r) {
        double error = -values[r];
        for (std::size_t c = 0; c < solution.size(); ++c) error += rows[r][c] * solution[c];
        sum += error * error;
    }
    return sum;
}

// Seconds that a part took, on what it depends on: solved with every row divided by its seconds.
class PartFit {
public:
    void add(std::vector<double> factors, double seconds) {
        for (double& factor : factors) factor /= seconds;
        rows_.push_back(std::move(factors));
    }
    std::vector<double> solve() const {
        const std::vector<double> ones(rows_.size(), 1);
        return non_negative_least_squares(rows_, ones);
    }

private:
    Rows rows_;
};

void check_samples(std::span<const Sample> samples) {
    bool lengths_differ = false;
    for (const Sample& sample : samples) {
        const bool numbers = std::isfinite(sample.denoise_seconds) && sample.denoise_seconds > 0 &&
                             std::isfinite(sample.vae_seconds) && sample.vae_seconds >= 0 &&
                             std::isfinite(sample.other_seconds) && sample.other_seconds >= 0;
        const double attention = sample.attention_seconds.value_or(0);
        ZT_CHECK(
            numbers && attention >= 0 && attention <= sample.denoise_seconds && sample.ranks >= 1,
            bad_request,
            "the calibration's sample of {} frames took {} s to denoise, {} s in the VAE and "
            "{} s else: positive numbers are wanted",
            sample.length, sample.denoise_seconds, sample.vae_seconds, sample.other_seconds);
        lengths_differ |= sample.length != samples.front().length;
    }
    ZT_CHECK(lengths_differ, bad_request,
             "a calibration needs samples of at least two lengths, {} samples of one were given",
             samples.size());
}

}  // namespace

std::int64_t ModelShape::parameters() const {
    const std::int64_t square = dim() * dim();
    const std::int64_t block = (image_attention ? 10 : 8) * square + 2 * dim() * ffn_dim;
    const std::int64_t control = control_layers * (8 * square + 2 * dim() * ffn_dim + square);
    // Beside the blocks: embeddings of text (4096 channels), time and patches, and the head.
    const std::int64_t outer = 4096 * dim() + 8 * square;
    return layers * block + control + face_layers * 4 * square + outer;
}

ModelShape known_shape(std::string_view name) {
    std::vector<std::string_view> names;
    for (const ModelShape& shape : known_shapes()) {
        if (shape.name == name) return shape;
        names.push_back(shape.name);
    }
    fail(ErrorKind::bad_request, "'{}' is no known model: accepted are {}", name,
         fmt::join(names, ", "));
}

Work work_of(const Workload& workload, int length) {
    const ModelShape& shape = workload.shape;
    const double tokens = tokens_of(workload, length);
    const auto dim = static_cast<double>(shape.dim());
    const auto layers = static_cast<double>(shape.layers + shape.control_layers);
    const double context = kTextTokens + (shape.image_attention ? kImageTokens : 0);
    const double projections = 2 * dim * dim * (6 * tokens + 2 * context);
    const double cross_attention = 4 * tokens * context * dim;
    const double feed_forward = 4 * tokens * dim * static_cast<double>(shape.ffn_dim);
    const double faces = static_cast<double>(shape.face_layers) * 4 * dim * dim * tokens;
    const double passes =
        static_cast<double>(workload.steps) * workload.branches * workload.outputs;
    const double pixels =
        static_cast<double>(length) * workload.width * workload.height * workload.outputs;
    return {.attention = passes * layers * 4 * tokens * tokens * dim / kTera,
            .linear =
                passes * (layers * (projections + cross_attention + feed_forward) + faces) / kTera,
            .vae = pixels * (1 + kEncodedPixel * shape.encoded_videos) / kMega};
}

double predict_seconds(const CostModel& model, const Work& work, int ranks) {
    const double shared = model.attention * work.attention + model.linear * work.linear +
                          model.vae * work.vae + model.shared;
    return shared / ranks + model.serial;
}

std::vector<double> non_negative_least_squares(std::span<const std::vector<double>> rows,
                                               std::span<const double> values) {
    constexpr std::size_t kMostColumns = 8;
    const std::size_t n = rows.empty() ? 0 : rows.front().size();
    ZT_CHECK(n > 0 && n <= kMostColumns && rows.size() == values.size(), internal,
             "a least-squares problem of {} rows and {} columns", rows.size(), n);
    // The solution is the plain least squares on those of its columns that are above zero.
    std::vector<double> best(n, 0);
    double least = squared_error(rows, values, best);
    for (unsigned set = 1; set < 1u << n; ++set) {
        std::vector<std::size_t> columns;
        for (std::size_t c = 0; c < n; ++c) {
            if ((set >> c & 1u) != 0) columns.push_back(c);
        }
        const auto solution = least_squares(rows, values, columns);
        if (!solution || *std::min_element(solution->begin(), solution->end()) < 0) continue;
        std::vector<double> all(n, 0);
        for (std::size_t i = 0; i < columns.size(); ++i) all[columns[i]] = (*solution)[i];
        const double error = squared_error(rows, values, all);
        if (error >= least) continue;
        least = error;
        best = std::move(all);
    }
    return best;
}

CostModel fit(std::span<const Sample> samples) {
    check_samples(samples);
    const bool attention_timed =
        std::all_of(samples.begin(), samples.end(), [](const Sample& sample) {
            const double seconds = sample.attention_seconds.value_or(0);
            return seconds > 0 && seconds < sample.denoise_seconds;
        });
    PartFit attention, denoise, vae;
    double other = 0;
    bool vae_timed = false;
    for (const Sample& sample : samples) {
        const double quadratic = sample.work.attention / sample.ranks;
        const double linear = sample.work.linear / sample.ranks;
        if (attention_timed) {
            attention.add({quadratic}, *sample.attention_seconds);
            denoise.add({linear, 1}, sample.denoise_seconds - *sample.attention_seconds);
        } else {
            denoise.add({linear, 1, quadratic}, sample.denoise_seconds);
        }
        if (sample.vae_seconds > 0) {
            vae.add({sample.work.vae / sample.ranks, 1}, sample.vae_seconds);
            vae_timed = true;
        }
        other += sample.other_seconds / static_cast<double>(samples.size());
    }
    const std::vector<double> parts = denoise.solve();
    const std::vector<double> pixels = vae_timed ? vae.solve() : std::vector<double>{0, 0};
    return {.attention = attention_timed ? attention.solve()[0] : parts[2],
            .linear = parts[0],
            .vae = pixels[0],
            .shared = 0,
            .serial = parts[1] + pixels[1] + other};
}

CostModel fit_or_scale(std::span<const Sample> samples, const CostModel& otherwise) {
    const bool lengths_differ =
        std::any_of(samples.begin(), samples.end(),
                    [&](const Sample& sample) { return sample.length != samples.front().length; });
    if (lengths_differ) return fit(samples);
    double scale = 0;
    for (const Sample& sample : samples) {
        const double measured = sample.denoise_seconds + sample.vae_seconds + sample.other_seconds;
        scale += measured / predict_seconds(otherwise, sample.work, sample.ranks) /
                 static_cast<double>(samples.size());
    }
    return {.attention = otherwise.attention * scale,
            .linear = otherwise.linear * scale,
            .vae = otherwise.vae * scale,
            .shared = otherwise.shared * scale,
            .serial = otherwise.serial * scale};
}

double worst_error(const CostModel& model, std::span<const Sample> samples) {
    double worst = 0;
    for (const Sample& sample : samples) {
        const double measured = sample.denoise_seconds + sample.vae_seconds + sample.other_seconds;
        const double predicted = predict_seconds(model, sample.work, sample.ranks);
        worst = std::max(worst, std::abs(predicted / measured - 1));
    }
    return worst;
}

std::int64_t peak_bytes(const Workload& workload, int length, const MemoryOptions& options) {
    const ModelShape& shape = workload.shape;
    const std::int64_t element = options.element_bytes;
    const auto ceil_div = [](std::int64_t a, std::int64_t b) { return (a + b - 1) / b; };
    const auto tokens =
        ceil_div(static_cast<std::int64_t>(tokens_of(workload, length)), options.sequence_ranks);
    const std::int64_t dim = shape.dim();
    constexpr double kBeyondAll = 1e16;  // elements: no machine has them, and int64 ends near
    if (static_cast<double>(tokens) * static_cast<double>(dim) * workload.branches *
            workload.outputs >
        kBeyondAll)
        return std::numeric_limits<std::int64_t>::max();

    // UMT5-XXL's encoder without its table of words: 24 layers of 4096 channels, 10240 hidden ones.
    constexpr std::int64_t kTextParameters = 24LL * (4 * 4096 * 4096 + 3 * 4096 * 10240);
    const std::int64_t text = options.text_encoder_on_device ? kTextParameters * element : 0;

    // The transformer as denoise/ runs it: six tensors of all tokens in the compute dtype while it
    // attends, or the hidden channels of 4096 tokens at a time; a residual stream in float32; and
    // per branch the prompt's keys and values.
    constexpr std::int64_t kHiddenTokens = 4096;
    const std::int64_t attention = 6 * tokens * dim * element;
    const std::int64_t feed_forward =
        (2 * tokens * dim + std::min(tokens, kHiddenTokens) * shape.ffn_dim) * element;
    const std::int64_t branches = static_cast<std::int64_t>(workload.branches) * workload.outputs;
    const std::int64_t streams =
        branches *
            (tokens * dim * 4 + (shape.layers + shape.control_layers) * 2 * 512 * dim * element) +
        (shape.control_layers > 0 ? branches * tokens * dim * 4 : 0);
    const auto weights = static_cast<std::int64_t>(
        std::ceil(static_cast<double>(shape.parameters()) * options.weight_bytes));
    const std::int64_t held = options.layerwise_offload
                                  ? ceil_div(2 * weights, shape.layers + shape.control_layers)
                                  : ceil_div(weights, options.weight_ranks);
    const std::int64_t denoise = held + std::max(attention, feed_forward) + streams;

    // The VAE's widest: five maps of 96 channels of one latent frame's pixels.
    constexpr std::int64_t kVaeMaps = 5 * 96;
    const std::int64_t pixels = 4LL * workload.width * workload.height;
    const std::int64_t vae = ceil_div(kVaeMaps * pixels * element, options.vae_ranks);
    return std::max({text, denoise, vae});
}

int longest_within(const Workload& workload, std::int64_t bytes, int longest,
                   const MemoryOptions& options) {
    int low = 0;  // in units of four frames behind the first; peaks grow with the length
    int high = (round_down(longest) - 1) / 4;
    if (peak_bytes(workload, 1, options) > bytes) return 0;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (peak_bytes(workload, 1 + 4 * middle, options) <= bytes) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return 1 + 4 * low;
}

}  // namespace zoetrope::plan
