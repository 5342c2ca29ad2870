// The devices a plan can be made for without having them: memory, peak, and default cost
// coefficients.
//
// Defaults, not measurements of this machine: a stored calibration (cost.h) replaces them. The
// source of each number stands in its row in devices.cpp. Plain values, any thread. Errors:
// bad_request.
#pragma once

#include "plan/cost.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace zoetrope::plan {

struct Device {
    std::string_view name;          // "h200"
    std::string_view title;         // "NVIDIA H200 SXM"
    std::int64_t memory_bytes = 0;  // the data sheet's, decimal
    double peak_tflops = 0;         // dense bf16
    double attention_fraction = 0;  // of the peak that self-attention reaches
    double linear_fraction = 0;     // of the peak that the rest of the transformer reaches
    std::string_view source;        // of memory and peak
    std::string_view fractions;     // where the fractions come from
};

// What --gpu takes, and "reference": the unnamed GPU of Wan-Animate's published figures.
std::span<const Device> devices();
const Device& find_device(std::string_view name);
inline constexpr std::string_view kReferenceDevice = "reference";

// Part of a device's memory that a run may plan with: the rest goes to its runtime and to
// fragments.
inline constexpr double kUsableMemory = 0.92;

// Seconds that others published for Wan-Animate on one GPU, for a segment of that many frames.
struct PublishedSegment {
    int length = 0;
    double seconds = 0;
};
std::span<const PublishedSegment> published_segments();

// Coefficients of a named device; for the reference, fitted to published_segments().
CostModel default_cost(const Device& device);

// Coefficients of a CPU: our own kernels with bf16 weights on an Emerald Rapids Xeon, shared out
// over so many cores.
CostModel default_cpu_cost(int cores);

// Preprocessing of a driving video for Wan-Animate: frames / cores * per_frame + overhead. The
// defaults go through two published points of a 308-frame clip, 120 s on 18 cores and 79 s on 36
// (229 s before frames were shared out, on the same 18). A simulation: nothing here was timed.
struct PreprocessModel {
    double seconds_per_frame = 1476.0 / 308;  // on one core
    double overhead = 38;                     // seconds
};
double predict_preprocess(int frames, int cores, const PreprocessModel& model = {});

}  // namespace zoetrope::plan
