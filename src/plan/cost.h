// What a segment costs: seconds from measured coefficients, bytes from shapes.
//
// A Workload turns a length into units of work; a CostModel turns work into seconds. Coefficients
// come from a calibration on the device (fit), stored in the cache folder, or from devices.h, whose
// defaults are called defaults wherever they are shown. Bytes are integers. Plain values and pure
// functions, any thread; only load_ and store_calibration touch files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope::plan {

// The sizes of a model that decide time and memory.
struct ModelShape {
    std::string name = {};
    std::int64_t layers = 40;  // of the transformer
    std::int64_t heads = 40;
    std::int64_t head_dim = 128;
    std::int64_t ffn_dim = 13824;
    std::int64_t control_layers = 0;  // VACE's side blocks
    std::int64_t face_layers = 0;     // Animate's face adapters
    bool image_attention = false;     // cross-attention over an image's embeddings too
    int reference_latents = 0;        // latent frames in front of the video's own (Animate: 1)
    int spatial_factor = 16;          // pixels per token and side: VAE's factor times the patch's
    int encoded_videos = 0;           // videos as long as the segment that the VAE encodes
    std::int64_t vae_dim = 96;        // channels of the VAE's first layer

    std::int64_t dim() const { return heads * head_dim; }
    std::int64_t parameters() const;  // of the transformer
};

// "wan2.2-animate-14b", ...: the released models. Errors: bad_request with the names there are.
ModelShape known_shape(std::string_view name);

struct Workload {
    ModelShape shape = {};
    int width = 1280;  // pixels
    int height = 720;
    int steps = 20;    // of denoising
    int branches = 1;  // passes of the transformer per step: 2 with guidance
    int outputs = 1;   // videos
};

// A segment in units of work.
struct Work {
    double attention = 0;  // 10^12 operations of self-attention: quadratic in the length
    double linear = 0;     // 10^12 operations of everything else in the transformer
    double vae = 0;        // 10^6 pixels decoded; an encoded pixel counts a half
};

Work work_of(const Workload& workload, int length);

// Seconds of a segment on r ranks: (attention, linear and VAE work and `shared`) / r + `serial`.
struct CostModel {
    double attention = 0;  // seconds per 10^12 operations
    double linear = 0;     // seconds per 10^12 operations
    double vae = 0;        // seconds per 10^6 pixels
    double shared = 0;     // seconds per segment, shared out over the ranks
    double serial = 0;     // seconds per segment, on every rank

    bool operator==(const CostModel&) const = default;
};

double predict_seconds(const CostModel& model, const Work& work, int ranks = 1);

// One measured segment.
struct Sample {
    int length = 0;  // frames
    Work work = {};
    int ranks = 1;
    double denoise_seconds = 0;
    std::optional<double> attention_seconds = {};  // of denoise_seconds, where operators were timed
    double vae_seconds = 0;
    double other_seconds = 0;  // conditioning, transfers, ...
};

// Non-negative least squares of relative errors, part by part. What does not grow with the work
// becomes `serial`, so that more ranks than were measured are never flattered. Errors: bad_request
// for fewer than two different lengths, and for seconds that are no positive numbers.
CostModel fit(std::span<const Sample> samples);

// The same, and where all samples have one length, which says too little: `otherwise`, scaled to
// them.
CostModel fit_or_scale(std::span<const Sample> samples, const CostModel& otherwise);

// The largest |predicted / measured - 1| of the samples' whole seconds.
double worst_error(const CostModel& model, std::span<const Sample> samples);

// The x >= 0 of least |A x - b|, A given by rows of equally many numbers (at most 8). Exact: tries
// every set of columns.
std::vector<double> non_negative_least_squares(std::span<const std::vector<double>> rows,
                                               std::span<const double> values);

// What a calibration holds for: a stored one is used for this and nothing else. Matrices of another
// size run at another speed, so the model's widths belong to it; its layers only add up.
struct CalibrationKey {
    std::string widths = {};  // "1536 in 12 heads, VAE 96"
    std::string device = {};  // "cpu, 8 threads", "cuda"
    std::string precision = "bf16";
    int ranks = 1;

    bool operator==(const CalibrationKey&) const = default;
};

// The key of a model's run: the device without its index ("cuda:1" -> "cuda"), on the CPU with its
// threads; the quantization where there is one, else the dtype.
CalibrationKey calibration_key(const ModelShape& shape, std::string_view device, int threads,
                               std::string_view dtype, std::string_view quantization, int ranks);

struct Calibration {
    CalibrationKey key = {};
    CostModel model = {};
    std::vector<Sample> samples = {};
};

// XDG_CACHE_HOME/zoetrope, else ~/.cache/zoetrope.
std::filesystem::path cache_folder();
// Writes folder/cost/<key>.json, complete or not at all. Errors: io.
void store_calibration(const Calibration& calibration,
                       const std::filesystem::path& folder = cache_folder());
// Nothing where none is stored for that key. Errors: io where the file is broken.
std::optional<Calibration> load_calibration(const CalibrationKey& key,
                                            const std::filesystem::path& folder = cache_folder());

// What decides the bytes of a rank.
struct MemoryOptions {
    double weight_bytes = 2;         // per parameter of the transformer
    int element_bytes = 2;           // of activations
    int sequence_ranks = 1;          // ranks that share the tokens
    int weight_ranks = 1;            // ranks that share the weights (FSDP, tensor parallel)
    bool layerwise_offload = false;  // two layers are on the device at a time
    bool text_encoder_on_device = true;
    int vae_ranks = 1;  // ranks that share the VAE's pixels
};

// An estimate of the most bytes on a rank, over the stages: text encoder, transformer, VAE. One
// part is on the device at a time.
std::int64_t peak_bytes(const Workload& workload, int length, const MemoryOptions& options);

// The longest 4k+1 up to `longest` whose peak is within `bytes`; 0 where none is.
int longest_within(const Workload& workload, std::int64_t bytes, int longest,
                   const MemoryOptions& options);

}  // namespace zoetrope::plan
