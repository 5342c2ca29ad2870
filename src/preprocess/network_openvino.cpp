// preprocess/network.h by OpenVINO.
#include "base/error.h"
#include "preprocess/network.h"

#include <openvino/openvino.hpp>

#include <condition_variable>
#include <mutex>
#include <numeric>
#include <sstream>
#include <utility>

namespace zoetrope::preprocess {
namespace {

// Loading plugins and frontends takes a tenth of a second: once per process.
ov::Core& core() {
    static ov::Core one;
    return one;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// Runs work(); OpenVINO's exceptions become an Error that names the file.
template <typename Work>
auto guarded(const std::filesystem::path& file, const char* doing, Work&& work) {
    try {
        return std::forward<Work>(work)();
    } catch (const Error&) {
        throw;
    } catch (const std::bad_alloc&) {
        throw;
    } catch (const std::exception& error) {
        fail(ErrorKind::io, "{}: OpenVINO cannot {} this network: {}", file.string(), doing,
             first_line(error.what()));
    }
}

std::vector<std::int64_t> sizes_of(const ov::Shape& shape) { return {shape.begin(), shape.end()}; }

std::string name_of(const ov::Output<const ov::Node>& port) {
    return port.get_names().empty() ? port.get_node()->get_friendly_name() : port.get_any_name();
}

}  // namespace

std::int64_t TensorInfo::elements() const {
    return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::string openvino_version() { return ov::get_openvino_version().buildNumber; }

struct Network::Request::State {
    ov::InferRequest request;
    std::vector<ov::Tensor> inputs, outputs;
    Compiled* owner = nullptr;
};

// A network of several streams runs in threads of its own, and each inference waits for a core
// twice: to begin, and to be gone on behind. That costs small networks a quarter of two cores'
// speed. One of one stream runs in the thread that asks; so small networks are there once for each
// thread, copied when it first asks (a quarter of the time of compiling), and large ones have a
// stream for each.
struct Network::Compiled {
    static constexpr std::uintmax_t kSmall = 64 << 20;  // bytes of a file

    std::filesystem::path file;
    int threads = 1;
    ov::CompiledModel model;
    std::string copy;  // of small networks that are there for several threads: the model's bytes
    std::vector<TensorInfo> inputs, outputs;
    std::mutex mutex;  // of everything below
    std::condition_variable returned;
    int made = 0;  // or about to be
    std::vector<std::unique_ptr<Request::State>> states;
    std::vector<Request::State*> free;

    std::unique_ptr<Request::State> make_state(bool first);
};

namespace {

ov::AnyMap settings(int threads) {
    return {ov::hint::inference_precision(ov::element::f32), ov::inference_num_threads(threads),
            ov::num_streams(threads), ov::hint::enable_cpu_pinning(false)};
}

// Networks are read whatever their element type; this asks for fp32 at both ends and fixes open
// dimensions.
std::shared_ptr<ov::Model> read(const std::filesystem::path& file,
                                const std::vector<std::int64_t>& sizes) {
    auto model = core().read_model(file.string());
    std::map<std::size_t, ov::PartialShape> shapes;
    for (std::size_t i = 0; i < model->inputs().size(); ++i) {
        ov::PartialShape shape = model->input(i).get_partial_shape();
        ZT_CHECK(shape.rank().is_static(), io, "{}: input {} has no fixed number of dimensions",
                 file.string(), i);
        for (std::size_t k = 0; k < shape.size(); ++k) {
            const bool known = i == 0 && k < sizes.size();
            if (shape[k].is_dynamic()) shape[k] = known ? sizes[k] : 1;
        }
        shapes[i] = shape;
    }
    model->reshape(shapes);
    ov::preprocess::PrePostProcessor ends(model);
    for (std::size_t i = 0; i < model->inputs().size(); ++i)
        ends.input(i).tensor().set_element_type(ov::element::f32);
    for (std::size_t i = 0; i < model->outputs().size(); ++i)
        ends.output(i).tensor().set_element_type(ov::element::f32);
    return ends.build();
}

}  // namespace

Network::Network(const std::filesystem::path& file, int threads, std::vector<std::int64_t> sizes)
    : compiled_(std::make_unique<Compiled>()) {
    ZT_CHECK(std::filesystem::is_regular_file(file), not_found,
             "{}: there is no such network file (ONNX or TFLite)", file.string());
    compiled_->file = file;
    compiled_->threads = threads;
    guarded(file, "read", [&] {
        auto model = read(file, sizes);
        for (const auto& port : model->inputs())
            compiled_->inputs.push_back({name_of(port), sizes_of(port.get_shape())});
        for (const auto& port : model->outputs()) {
            const ov::PartialShape shape = port.get_partial_shape();
            compiled_->outputs.push_back({name_of(port), shape.is_static()
                                                             ? sizes_of(shape.to_shape())
                                                             : std::vector<std::int64_t>{-1}});
        }
        const bool small = std::filesystem::file_size(file) <= Compiled::kSmall;
        compiled_->model = core().compile_model(model, "CPU", settings(small ? 1 : threads));
        if (small && threads > 1) {
            std::ostringstream bytes;
            compiled_->model.export_model(bytes);
            compiled_->copy = std::move(bytes).str();
        }
    });
    request();  // what cannot be compiled is told now
}

std::unique_ptr<Network::Request::State> Network::Compiled::make_state(bool first) {
    return guarded(file, "use", [this, first] {
        auto state = std::make_unique<Request::State>();
        if (copy.empty() || first) {
            state->request = model.create_infer_request();
        } else {
            std::istringstream bytes(copy);
            state->request = core().import_model(bytes, "CPU", settings(1)).create_infer_request();
        }
        for (std::size_t k = 0; k < inputs.size(); ++k)
            state->inputs.push_back(state->request.get_input_tensor(k));
        state->owner = this;
        return state;
    });
}

Network::~Network() = default;
Network::Network(Network&&) noexcept = default;
Network& Network::operator=(Network&&) noexcept = default;

const std::filesystem::path& Network::file() const { return compiled_->file; }
const std::vector<TensorInfo>& Network::inputs() const { return compiled_->inputs; }
const std::vector<TensorInfo>& Network::outputs() const { return compiled_->outputs; }

std::size_t Network::output_of_size(std::int64_t elements, const char* what) const {
    std::size_t found = outputs().size();
    for (std::size_t i = 0; i < outputs().size(); ++i) {
        if (outputs()[i].elements() != elements) continue;
        ZT_CHECK(found == outputs().size(), io,
                 "{}: two outputs have {} numbers, one was expected "
                 "({})",
                 file().string(), elements, what);
        found = i;
    }
    ZT_CHECK(found < outputs().size(), io, "{}: no output has {} numbers ({})", file().string(),
             elements, what);
    return found;
}

Network::Request Network::request() {
    Compiled& network = *compiled_;
    std::unique_lock lock(network.mutex);
    if (network.free.empty() && network.made < network.threads) {
        const bool first = network.made++ == 0;
        lock.unlock();
        std::unique_ptr<Request::State> state;
        try {
            state = network.make_state(first);
        } catch (...) {
            lock.lock();
            --network.made;
            network.returned.notify_one();
            throw;
        }
        lock.lock();
        network.states.push_back(std::move(state));
        return Request(network.states.back().get());
    }
    network.returned.wait(lock, [&network] { return !network.free.empty(); });
    Request::State* state = network.free.back();
    network.free.pop_back();
    return Request(state);
}

Network::Request::Request(Request&& other) noexcept
    : state_(std::exchange(other.state_, nullptr)) {}

Network::Request::~Request() {
    if (state_ == nullptr) return;
    {
        const std::lock_guard lock(state_->owner->mutex);
        state_->owner->free.push_back(state_);
    }
    state_->owner->returned.notify_one();
}

std::span<float> Network::Request::input(std::size_t index) {
    ov::Tensor& tensor = state_->inputs.at(index);
    return {tensor.data<float>(), tensor.get_size()};
}

void Network::Request::run() {
    guarded(state_->owner->file, "run", [this] {
        state_->request.infer();
        state_->outputs.clear();
        for (std::size_t i = 0; i < state_->owner->outputs.size(); ++i)
            state_->outputs.push_back(state_->request.get_output_tensor(i));
    });
}

std::span<const float> Network::Request::output(std::size_t index) const {
    const ov::Tensor& tensor = state_->outputs.at(index);
    return {tensor.data<const float>(), tensor.get_size()};
}

}  // namespace zoetrope::preprocess
