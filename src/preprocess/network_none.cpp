// preprocess/network.h in a build without OpenVINO: every network is refused.
#include "base/error.h"
#include "preprocess/network.h"

namespace zoetrope::preprocess {

std::int64_t TensorInfo::elements() const { return 0; }

std::string openvino_version() { return ""; }

struct Network::Request::State {};
struct Network::Compiled {};

Network::Network(const std::filesystem::path& file, int, std::vector<std::int64_t>) {
    fail(ErrorKind::unsupported,
         "{} needs OpenVINO, and this program was built without it: run `make setup` and build "
         "again (docs/setup.md), or give prepared videos",
         file.filename().string());
}

Network::~Network() = default;
Network::Network(Network&&) noexcept = default;
Network& Network::operator=(Network&&) noexcept = default;

namespace {
[[noreturn]] void never() { fail(ErrorKind::internal, "a network without OpenVINO was used"); }
}  // namespace

const std::filesystem::path& Network::file() const { never(); }
const std::vector<TensorInfo>& Network::inputs() const { never(); }
const std::vector<TensorInfo>& Network::outputs() const { never(); }
std::size_t Network::output_of_size(std::int64_t, const char*) const { never(); }
Network::Request Network::request() { never(); }
Network::Request::Request(Request&& other) noexcept : state_(other.state_) {}
Network::Request::~Request() = default;
std::span<float> Network::Request::input(std::size_t) { never(); }
void Network::Request::run() { never(); }
std::span<const float> Network::Request::output(std::size_t) const { never(); }

}  // namespace zoetrope::preprocess
