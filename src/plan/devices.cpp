#include "plan/devices.h"

#include "base/error.h"

#include <array>
#include <vector>

namespace zoetrope::plan {
namespace {

constexpr std::int64_t kGigabyte = 1'000'000'000;

// Solved from Wan2.2's published table (comp_effic.png: T2V-A14B, 81 frames, 40 steps with
// guidance, at 480P and 720P): seconds = attention / a + rest / b + 20.
constexpr std::string_view kWanTable = "Wan2.2's table of seconds for T2V-A14B";
constexpr std::string_view kWanTable5B = "Wan2.2's table of seconds for TI2V-5B, one point";
constexpr std::string_view kAsH100 = "assumed: those of an H100";
constexpr std::string_view kAsRtx4090 = "assumed: those of an RTX 4090";
constexpr std::string_view kGuess = "assumed: no figure of Wan on it was at hand";
constexpr std::string_view kNvidia = "NVIDIA's data sheet, dense, float32 sums";
constexpr std::string_view kAmd = "AMD's data sheet, dense";

constexpr Device kDevices[] = {
    {"reference", "the GPU of Wan-Animate's published figures", 80 * kGigabyte, 0, 0, 0, "assumed",
     "fitted to those figures"},
    {"h200", "NVIDIA H200 SXM", 141 * kGigabyte, 989.4, 0.68, 0.32, kNvidia, kAsH100},
    {"h100", "NVIDIA H100 SXM", 80 * kGigabyte, 989.4, 0.68, 0.32, kNvidia, kWanTable},
    {"h20", "NVIDIA H20", 96 * kGigabyte, 148, 0.98, 0.71, kNvidia, kWanTable},
    {"a100", "NVIDIA A100 SXM 80GB", 80 * kGigabyte, 312, 0.72, 0.46, kNvidia, kWanTable},
    {"b200", "NVIDIA B200", 180 * kGigabyte, 2250, 0.68, 0.32, kNvidia, kAsH100},
    {"l40s", "NVIDIA L40S", 48 * kGigabyte, 362, 0.68, 0.68, kNvidia, kAsRtx4090},
    {"rtx4090", "NVIDIA GeForce RTX 4090", 24 * kGigabyte, 165.2, 0.68, 0.68, kNvidia, kWanTable5B},
    {"rtx5090", "NVIDIA GeForce RTX 5090", 32 * kGigabyte, 209.5, 0.68, 0.68, kNvidia, kAsRtx4090},
    {"mi300x", "AMD Instinct MI300X", 192 * kGigabyte, 1307.4, 0.4, 0.25, kAmd, kGuess},
    {"mi325x", "AMD Instinct MI325X", 256 * kGigabyte, 1307.4, 0.4, 0.25, kAmd, kGuess},
    {"mi355x", "AMD Instinct MI355X", 288 * kGigabyte, 2516.6, 0.4, 0.25, kAmd, kGuess},
};

// 81 frames of 832x480 decoded in 2.63 s on an H200 (SGLang, pull request 27875); other devices by
// their peak.
constexpr double kVaeSeconds = 2.63 / (81 * 832 * 480 / 1e6);  // per 10^6 pixels
constexpr double kVaePeak = 989.4;
// What the table's seconds on 1, 4 and 8 GPUs do not share out, VAE taken off: 11 s at 480P, 32 s
// at 720P.
constexpr double kSerialSeconds = 20;

// Totals over the segments that a fixed window needs: windows of 77, 41 and 21 took 448, 383 and
// 574 s, which one curve explains for a clip of about 160 frames (3, 4 and 8 segments) together
// with the next two; a clip of 308 frames took 726 s in 5 windows of 77 and 556 s in 3 of 97.
constexpr PublishedSegment kPublished[] = {
    {77, 448.0 / 3}, {41, 383.0 / 4}, {21, 574.0 / 8}, {77, 726.0 / 5}, {97, 556.0 / 3}};

// Neither size nor steps of those runs are known here: 1280x720 and 20 steps, as a plan has them
// that is told nothing. At that size and that many steps they would exceed the peak of an H200, so
// smaller frames or fewer steps were run: read the reference's seconds as ratios. What does not
// grow with the length is shared out, since two GPUs took less than half (268 to 339 s).
CostModel published_cost() {
    const Workload workload{.shape = known_shape("wan2.2-animate-14b")};
    std::vector<std::vector<double>> rows;
    std::vector<double> rest;
    for (const auto& [length, seconds] : kPublished) {
        const Work work = work_of(workload, length);
        rows.push_back({work.attention / seconds, work.linear / seconds, 1 / seconds});
        rest.push_back(1 - kVaeSeconds * work.vae / seconds);
    }
    const std::vector<double> found = non_negative_least_squares(rows, rest);
    return {.attention = found[0],
            .linear = found[1],
            .vae = kVaeSeconds,
            .shared = found[2],
            .serial = 0};
}

}  // namespace

std::span<const Device> devices() { return kDevices; }

std::span<const PublishedSegment> published_segments() { return kPublished; }

const Device& find_device(std::string_view name) {
    std::vector<std::string_view> names;
    for (const Device& device : kDevices) {
        if (device.name == name) return device;
        names.push_back(device.name);
    }
    fail(ErrorKind::bad_request, "--gpu is '{}': accepted are {}", name, fmt::join(names, ", "));
}

CostModel default_cost(const Device& device) {
    if (device.name == kReferenceDevice) return published_cost();
    return {.attention = 1 / (device.peak_tflops * device.attention_fraction),
            .linear = 1 / (device.peak_tflops * device.linear_fraction),
            .vae = kVaeSeconds * kVaePeak / device.peak_tflops,
            .shared = 0,
            .serial = kSerialSeconds};
}

CostModel default_cpu_cost(int cores) {
    // docs/performance.md, two cores: a layer of the 1.3B model at 832x480 and 81 frames, 11.1 s of
    // attention and 6.6 s of the rest; 5 frames of 832x480 decoded in 28.7 s.
    constexpr double kMeasuredCores = 2;
    constexpr double kAttention = 11.1 / 6.59;             // seconds per 10^12 operations
    constexpr double kLinear = 6.6 / 2.84;                 // the same
    constexpr double kVae = 28.7 / (5 * 832 * 480 / 1e6);  // seconds per 10^6 pixels
    const double share = kMeasuredCores / cores;
    return {.attention = kAttention * share,
            .linear = kLinear * share,
            .vae = kVae * share,
            .shared = 0,
            .serial = 0};
}

double predict_preprocess(int frames, int cores, const PreprocessModel& model) {
    ZT_CHECK(frames >= 1 && cores >= 1, bad_request,
             "preprocessing {} frames on {} cores: one and more are wanted", frames, cores);
    return model.seconds_per_frame * frames / cores + model.overhead;
}

}  // namespace zoetrope::plan
