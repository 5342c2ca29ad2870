// A neural network in an ONNX or TFLite file, run by OpenVINO on the CPU in fp32.
//
// A Network owns the compiled network and at most as many inference requests as threads were asked
// for, each of which computes with one thread: so many inferences run at once, one per core. Any
// thread may call request(); it waits until one is free. A Request belongs to one thread, is given
// back by its destructor, and must not outlive its Network. Weights are never computed in bf16,
// OpenVINO's default on some CPUs, which moves landmarks by pixels. Errors: not_found, io (no
// network that OpenVINO reads, or shapes that are open), unsupported (built without OpenVINO).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace zoetrope::preprocess {

struct TensorInfo {
    std::string name;
    std::vector<std::int64_t> shape;

    std::int64_t elements() const;
};

// Whether this program was built with OpenVINO, and its version; empty where it was not.
std::string openvino_version();

class Network {
public:
    // sizes: what the first input's dimensions become where the file leaves them open; without it,
    // and for other inputs, 1.
    Network(const std::filesystem::path& file, int threads, std::vector<std::int64_t> sizes = {});
    ~Network();
    Network(Network&&) noexcept;
    Network& operator=(Network&&) noexcept;

    const std::filesystem::path& file() const;
    const std::vector<TensorInfo>& inputs() const;   // float32
    const std::vector<TensorInfo>& outputs() const;  // read as float32

    // The output of that many elements; `what` names it in the message. Errors: io where there is
    // none or more than one.
    std::size_t output_of_size(std::int64_t elements, const char* what) const;

    class Request {
    public:
        ~Request();
        Request(Request&&) noexcept;
        Request& operator=(Request&&) = delete;

        std::span<float> input(std::size_t index = 0);
        void run();
        std::span<const float> output(std::size_t index) const;  // until the next run()

    private:
        friend class Network;
        struct State;
        explicit Request(State* state) : state_(state) {}
        State* state_;
    };

    Request request();

private:
    struct Compiled;
    std::unique_ptr<Compiled> compiled_;
};

}  // namespace zoetrope::preprocess
