// The one place where a device is named: which devices there are, threads, streams and events.
//
// Streams and events are no-ops on the CPU, where work is done when a call returns (c10::Event
// throws there). Functions are safe from any thread; a Stream or Event object belongs to one
// thread.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope::ops {

// "cpu", "cuda:0", "xpu:1" -> device. Errors: bad_request for another form, unsupported where the
// LibTorch at hand has no such device (the message lists those found).
at::Device parse_device(std::string_view text);

struct DeviceInfo {
    at::Device device = at::kCPU;
    std::string name;               // "Intel(R) Xeon(R) ...", "NVIDIA H200"
    std::int64_t memory_bytes = 0;  // 0: unknown
};
std::vector<DeviceInfo> devices();

// Cores that this process may use: the least of affinity mask and cgroup quota, at least 1.
int usable_cores();
// Threads for tensor operators on the CPU, process-wide. 0: usable_cores().
void set_threads(int threads);
int threads();

// Version of the LibTorch that is linked: "2.13.0".
std::string libtorch_version();

// Memory of this process: highest resident set so far, and the same without pages that belong to
// mapped files (which the kernel may drop at any time), from /proc/self. Bytes.
struct ProcessMemory {
    std::int64_t peak_resident = 0;
    std::int64_t resident = 0;
    std::int64_t resident_anonymous = 0;
};
ProcessMemory process_memory();
// Seconds of this process's living threads together: on cores, and ready to run while none was
// free, from /proc/self/task. Zeros where the kernel does not count them.
struct ProcessTime {
    double running = 0, waiting = 0;
};
ProcessTime process_time();

// Sets the peak back to the current value where the kernel allows it; false where not.
bool reset_peak_memory();

// Waits until all work queued on the device is done. Nothing to do on the CPU.
void synchronize(at::Device device);

// Settings of the process; call it before the first tensor.
//
// malloc maps every tensor of 1 MiB and more by itself, so that its memory goes back to the system
// when the tensor dies (by default glibc keeps freed blocks of up to 32 MiB, and the resident set
// of a run grows to half as much again as its tensors), and LibTorch asks for huge pages, which
// make mapping cheap.
//
// LibTorch's float32 products (MKL) give the same bits wherever their operands lie. Not on their
// own on AMD's CPUs: a product of a few rows depends on whether a weight in a mapped file lies at a
// multiple of 16 bytes. Just as quick there; on Intel's no such difference was met.
void prepare_process();

// Gives memory cached by allocators and by malloc back to the system.
void release_cached_memory();

// bf16 where the device has instructions for it, fp32 where it would only be emulated.
at::ScalarType default_dtype(at::Device device);

// Throws Error{unsupported} unless the device computes in that dtype.
void check_dtype(at::Device device, at::ScalarType dtype);

// "bf16", "fp16", "fp32" <-> dtype. Errors: bad_request.
at::ScalarType parse_dtype(std::string_view text);
std::string_view name_of(at::ScalarType dtype);

}  // namespace zoetrope::ops
