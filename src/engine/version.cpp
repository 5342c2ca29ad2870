#include "engine/version.h"

#include "base/error.h"
#include "base/sizes.h"
#include "kernels/cpu.h"
#include "ops/device.h"

namespace zoetrope {
namespace {

std::string instruction_sets() {
    std::vector<std::string_view> found;
    for (const kernels::Isa isa : kernels::available()) found.push_back(kernels::name_of(isa));
    try {
        return fmt::format("{} (in use: up to {})", fmt::join(found, ", "),
                           kernels::name_of(kernels::isa()));
    } catch (const std::runtime_error& error) {
        fail(ErrorKind::bad_request, "{}", error.what());
    }
}

}  // namespace

std::string version() { return ZT_VERSION; }

std::string version_text() {
    std::string text =
        fmt::format("zoetrope {}\nLibTorch: {}\ninstruction sets: {}\nthreads: {}\n", version(),
                    ops::libtorch_version(), instruction_sets(), ops::usable_cores());
    for (const auto& info : ops::devices()) {
        text += fmt::format("device {}: {}", info.device.str(), info.name);
        if (info.memory_bytes > 0) text += fmt::format(", {}", format_bytes(info.memory_bytes));
        text += '\n';
    }
    return text;
}

}  // namespace zoetrope
