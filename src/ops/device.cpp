#include "ops/device.h"

#include "base/error.h"
#include "kernels/cpu.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/headeronly/version.h>

#include <malloc.h>
#include <sched.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace zoetrope::ops {
namespace {

// Kinds of device that are looked for, with the names that users type. PrivateUse1 is where vendors
// of NPUs register.
struct DeviceKind {
    std::string_view name;
    at::DeviceType type;
};
constexpr DeviceKind kAccelerators[] = {{"cuda", at::kCUDA}, {"xpu", at::kXPU}, {"mps", at::kMPS}};

int count_of(at::DeviceType type) {
    if (!c10::impl::hasDeviceGuardImpl(type)) return 0;
    return c10::impl::VirtualGuardImpl(type).deviceCount();
}

std::string cpu_name() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);) {
        if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
    }
    return "CPU";
}

// Cores of a cgroup quota (version 2, then 1), rounded up; 0 where there is none.
int cgroup_cores() {
    double quota = -1, period = 0;
    std::string text;
    if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> text >> period) {
        if (text != "max") quota = std::stod(text);
    } else {
        std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
        std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
    }
    return quota > 0 && period > 0 ? static_cast<int>(std::ceil(quota / period)) : 0;
}

// "VmHWM:   123 kB" -> bytes; 0 where the key is not there.
std::int64_t status_bytes(const std::string& status, std::string_view key) {
    const auto at = status.find(std::string(key) + ":");
    if (at == std::string::npos) return 0;
    return std::stoll(status.substr(at + key.size() + 1)) * 1024;
}

}  // namespace

std::vector<DeviceInfo> devices() {
    std::vector<DeviceInfo> found;
    const std::int64_t memory =
        static_cast<std::int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE);
    found.push_back({at::Device(at::kCPU), cpu_name(), memory});
    for (const auto& kind : kAccelerators) {
        for (int i = 0; i < count_of(kind.type); ++i) {
            const at::Device device(kind.type, static_cast<c10::DeviceIndex>(i));
            found.push_back({device, device.str(), 0});
        }
    }
    return found;
}

at::Device parse_device(std::string_view text) {
    if (text == "cpu") return at::kCPU;
    const auto colon = text.find(':');
    const std::string_view name = text.substr(0, colon);
    std::vector<std::string> names;
    for (const auto& info : devices()) names.push_back(info.device.str());
    for (const auto& kind : kAccelerators) {
        if (kind.name != name) continue;
        int index = 0;
        if (colon != std::string_view::npos) {
            const std::string digits(text.substr(colon + 1));
            const bool number = !digits.empty() && digits.size() < 4 &&
                                std::all_of(digits.begin(), digits.end(),
                                            [](char c) { return c >= '0' && c <= '9'; });
            ZT_CHECK(number, bad_request,
                     "'{}' is not a device: after the colon stands its number, as in cuda:0", text);
            index = std::stoi(digits);
        }
        ZT_CHECK(index < count_of(kind.type), unsupported,
                 "there is no device '{}' for the LibTorch {} that this program runs on; found: {}",
                 text, libtorch_version(), fmt::join(names, ", "));
        return at::Device(kind.type, static_cast<c10::DeviceIndex>(index));
    }
    fail(ErrorKind::bad_request,
         "'{}' is not a device: accepted are cpu, cuda:N and xpu:N; found here: {}", text,
         fmt::join(names, ", "));
}

int usable_cores() {
    cpu_set_t set;
    CPU_ZERO(&set);
    int cores = ::sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
    if (const int quota = cgroup_cores(); quota > 0) cores = std::min(cores, quota);
    return std::max(cores, 1);
}

void set_threads(int count) { at::set_num_threads(count > 0 ? count : usable_cores()); }

int threads() { return at::get_num_threads(); }

std::string libtorch_version() { return TORCH_VERSION; }

ProcessMemory process_memory() {
    std::ifstream file("/proc/self/status");
    std::stringstream text;
    text << file.rdbuf();
    const std::string status = text.str();
    return {status_bytes(status, "VmHWM"), status_bytes(status, "VmRSS"),
            status_bytes(status, "RssAnon")};
}

ProcessTime process_time() {
    namespace fs = std::filesystem;
    constexpr double kSecond = 1e9;  // in the file's nanoseconds
    ProcessTime time;
    std::error_code gone;  // threads end while they are listed
    for (fs::directory_iterator task("/proc/self/task", gone), end; !gone && task != end;
         task.increment(gone)) {
        std::ifstream file(task->path() / "schedstat");
        double running = 0, waiting = 0;
        if (!(file >> running >> waiting)) continue;
        time.running += running / kSecond;
        time.waiting += waiting / kSecond;
    }
    return time;
}

bool reset_peak_memory() {
    std::ofstream file("/proc/self/clear_refs");
    file << "5" << std::flush;
    return file.good();
}

void synchronize(at::Device device) {
    if (device.is_cpu()) return;
    c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

void prepare_process() {
    ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
    // Read by LibTorch's allocator and by MKL when they begin.
    ::setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/0);
    if (!kernels::made_by_intel()) ::setenv("MKL_CBWR", "AUTO", /*overwrite=*/0);
}

void release_cached_memory() { ::malloc_trim(0); }

at::ScalarType default_dtype(at::Device device) {
    const bool native = !device.is_cpu() || kernels::has(kernels::Isa::avx512bf16) ||
                        kernels::has(kernels::Isa::amx);
    return native ? at::kBFloat16 : at::kFloat;
}

void check_dtype(at::Device device, at::ScalarType dtype) {
    const bool known = dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf;
    ZT_CHECK(known, unsupported,
             "{} is not a dtype to compute in on {}: accepted are bf16, fp16, fp32",
             c10::toString(dtype), device.str());
}

at::ScalarType parse_dtype(std::string_view text) {
    if (text == "fp32" || text == "float32") return at::kFloat;
    if (text == "bf16" || text == "bfloat16") return at::kBFloat16;
    if (text == "fp16" || text == "float16") return at::kHalf;
    fail(ErrorKind::bad_request, "'{}' is not a dtype: accepted are bf16, fp16, fp32", text);
}

std::string_view name_of(at::ScalarType dtype) {
    switch (dtype) {
        case at::kFloat: return "fp32";
        case at::kBFloat16: return "bf16";
        case at::kHalf: return "fp16";
        default: return c10::toString(dtype);
    }
}

}  // namespace zoetrope::ops
