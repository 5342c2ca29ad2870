#include "weights/safetensors_writer.h"

#include "base/error.h"
#include "base/sizes.h"
#include "weights/mapped_tensor.h"
#include "weights/safetensors_header.h"

#include <nlohmann/json.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <unordered_set>
#include <utility>

namespace zoetrope {
namespace {

using safetensors::Dtype;
using Metadata = std::span<const std::pair<std::string, std::string>>;

constexpr std::int64_t kLengthBytes = 8;  // of the header, before it
constexpr std::size_t kAlignment = 8;     // of the first tensor

Dtype dtype_of(const TensorInfo& info) {
    for (int i = 0; i <= static_cast<int>(Dtype::f64); ++i) {
        const auto dtype = static_cast<Dtype>(i);
        if (scalar_type_of(dtype) == info.dtype) return dtype;
    }
    fail(ErrorKind::unsupported, "tensor {} is {}, which the safetensors format does not have",
         info.name, c10::toString(info.dtype));
}

// Wide elements first: every tensor is then aligned to its dtype.
std::vector<std::size_t> order_of(std::span<const TensorInfo> tensors) {
    std::vector<std::size_t> order(tensors.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return c10::elementSize(tensors[a].dtype) > c10::elementSize(tensors[b].dtype);
    });
    return order;
}

// The JSON text, padded with spaces so that the data are aligned.
std::string header_text(std::span<const TensorInfo> tensors, const std::vector<std::size_t>& order,
                        Metadata metadata) {
    std::vector<std::string> items;
    if (!metadata.empty()) {
        nlohmann::json pairs = nlohmann::json::object();
        for (const auto& [key, value] : metadata) pairs[key] = value;
        items.push_back("\"__metadata__\":" + pairs.dump());
    }
    std::int64_t position = 0;
    for (const std::size_t index : order) {
        const TensorInfo& info = tensors[index];
        const std::int64_t end = position + info.bytes();
        items.push_back(
            fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                        nlohmann::json(info.name).dump(), name_of(dtype_of(info)),
                        fmt::join(info.shape, ","), position, end));
        position = end;
    }
    std::string text = fmt::format("{{{}}}", fmt::join(items, ","));
    text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
    return text;
}

[[noreturn]] void fail_write(const std::filesystem::path& file) {
    fail(ErrorKind::io, "cannot write '{}': {}", file.string(), std::strerror(errno));
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& file,
                                     std::span<const TensorInfo> tensors, Metadata metadata)
    : file_(file) {
    std::unordered_set<std::string_view> names = {"__metadata__"};
    for (const TensorInfo& info : tensors) {
        ZT_CHECK(names.insert(info.name).second, io,
                 "cannot write '{}': the tensor name '{}' is reserved or comes twice",
                 file.string(), info.name);
        places_.push_back({info});
    }
    const std::vector<std::size_t> order = order_of(tensors);
    std::string header;
    try {
        header = header_text(tensors, order, metadata);
    } catch (const nlohmann::json::type_error&) {
        fail(ErrorKind::io, "cannot write '{}': a name or metadata text is not UTF-8",
             file.string());
    }
    bytes_ = kLengthBytes + static_cast<std::int64_t>(header.size());
    for (const std::size_t index : order) {
        places_[index].begin = bytes_;
        bytes_ += places_[index].info.bytes();
    }
    open_file();
    std::array<unsigned char, kLengthBytes> length = {};
    for (std::size_t i = 0; i < length.size(); ++i)
        length[i] = static_cast<unsigned char>(header.size() >> (8 * i));
    write_at(0, length.data(), length.size());
    write_at(kLengthBytes, header.data(), header.size());
}

SafetensorsWriter::~SafetensorsWriter() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

void SafetensorsWriter::open_file() {
    descriptor_ = ::open(file_.path().c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor_ < 0) fail_write(file_.target());
    int taken = 0;
    do {
        taken = ::fallocate(descriptor_, 0, 0, bytes_);
    } while (taken != 0 && errno == EINTR);
    if (taken == 0) return;
    // File systems that cannot set room aside tell of a full disk when it is met.
    const bool unable = errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL;
    ZT_CHECK(unable, io, "cannot write '{}', which takes {}: {}", file_.target().string(),
             format_bytes(bytes_), std::strerror(errno));
    if (::ftruncate(descriptor_, bytes_) != 0) fail_write(file_.target());
}

void SafetensorsWriter::write_at(std::int64_t begin, const void* data, std::size_t size) const {
    const char* next = static_cast<const char*>(data);
    while (size > 0) {
        const ssize_t written = ::pwrite(descriptor_, next, size, begin);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) fail_write(file_.target());
        next += written;
        begin += written;
        size -= static_cast<std::size_t>(written);
    }
}

void SafetensorsWriter::write(std::size_t index, const at::Tensor& tensor) {
    const Place& place = places_.at(index);
    const TensorInfo& info = place.info;
    ZT_CHECK(tensor.scalar_type() == info.dtype && tensor.sizes() == at::IntArrayRef(info.shape),
             internal, "tensor {} is [{}] {}, and [{}] {} was announced", info.name,
             fmt::join(tensor.sizes(), ", "), c10::toString(tensor.scalar_type()),
             fmt::join(info.shape, ", "), c10::toString(info.dtype));
    ZT_CHECK(place.written == 0, internal, "tensor {} is written twice", info.name);
    append(index, tensor);
}

void SafetensorsWriter::append(std::size_t index, const at::Tensor& values) {
    Place& place = places_.at(index);
    const TensorInfo& info = place.info;
    ZT_CHECK(
        values.scalar_type() == info.dtype && place.written + values.numel() <= info.elements(),
        internal, "{} more {} behind the first {} of tensor {}, which has {}", values.numel(),
        c10::toString(values.scalar_type()), place.written, info.name, info.elements());
    const at::Tensor data = values.detach().cpu().contiguous();
    write_at(place.begin + place.written * data.element_size(), data.const_data_ptr(),
             data.nbytes());
    place.written += values.numel();
}

void SafetensorsWriter::finish() {
    for (const Place& place : places_)
        ZT_CHECK(place.written == place.info.elements(), internal,
                 "of tensor {} {} elements of {} were written", place.info.name, place.written,
                 place.info.elements());
    ::close(std::exchange(descriptor_, -1));
    file_.publish();
    sync_folder_of(file_.target());
}

void write_safetensors(const std::filesystem::path& file, std::span<const NamedTensor> tensors,
                       Metadata metadata) {
    std::vector<TensorInfo> infos;
    for (const auto& [name, tensor] : tensors)
        infos.push_back({name, tensor.sizes().vec(), tensor.scalar_type()});
    SafetensorsWriter writer(file, infos, metadata);
    for (std::size_t i = 0; i < tensors.size(); ++i) writer.write(i, tensors[i].tensor);
    writer.finish();
}

}  // namespace zoetrope
