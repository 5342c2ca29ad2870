#include "weights/safetensors_header.h"
#include "weights/source.h"

#include "base/error.h"
#include "base/mapped_file.h"
#include "weights/mapped_tensor.h"

#include <nlohmann/json.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <unordered_set>

namespace zoetrope {
namespace {

using safetensors::Dtype;

Dtype dtype_of(const NamedTensor& named) {
    for (int i = 0; i <= static_cast<int>(Dtype::f64); ++i) {
        const auto dtype = static_cast<Dtype>(i);
        if (scalar_type_of(dtype) == named.tensor.scalar_type()) return dtype;
    }
    fail(ErrorKind::unsupported, "tensor {} is {}, which the safetensors format does not have",
         named.name, c10::toString(named.tensor.scalar_type()));
}

class SafetensorsFile final : public TensorSource {
public:
    explicit SafetensorsFile(const std::filesystem::path& path)
        : file_(MappedFile::open(path)),
          header_(safetensors::parse(file_->bytes(), path.string())) {
        tensors_.reserve(header_.entries.size());
        for (const auto& entry : header_.entries) {
            tensors_.push_back({entry.name, entry.shape, scalar_type_of(entry.dtype)});
        }
    }

    std::span<const TensorInfo> tensors() const override { return tensors_; }

    at::Tensor read(std::size_t index) const override {
        return mapped_tensor(file_, header_.entries.at(index).begin, tensors_[index].shape,
                             tensors_[index].dtype);
    }

    std::string description() const override { return file_->path().string(); }

    std::vector<std::pair<std::string, std::string>> metadata() const override {
        return header_.metadata;
    }

private:
    std::shared_ptr<const MappedFile> file_;
    safetensors::Header header_;
    std::vector<TensorInfo> tensors_;
};

// A new file beside its final path; removed unless commit() is reached.
class TemporaryFile {
public:
    explicit TemporaryFile(const std::filesystem::path& path) : path_(path) {
        for (int attempt = 0; fd_ < 0 && attempt < 100; ++attempt) {
            temporary_ = path_.string() + fmt::format(".{}-{}.partial", ::getpid(), attempt);
            fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
            if (fd_ < 0 && errno != EEXIST) break;
        }
        check(fd_ >= 0);
    }
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;
    ~TemporaryFile() {
        if (fd_ >= 0) ::close(fd_);
        if (!committed_) ::unlink(temporary_.c_str());
    }

    void write(const void* data, std::size_t size) {
        const char* next = static_cast<const char*>(data);
        while (size > 0) {
            const ssize_t written = ::write(fd_, next, size);
            if (written < 0 && errno == EINTR) continue;
            check(written > 0);
            next += written;
            size -= static_cast<std::size_t>(written);
        }
    }

    void commit() {
        check(::fsync(fd_) == 0);
        check(::rename(temporary_.c_str(), path_.c_str()) == 0);
        committed_ = true;
        // The rename itself lasts once the folder is on disk, where the file system can say so.
        const auto parent = path_.has_parent_path() ? path_.parent_path() : ".";
        const int folder = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (folder >= 0) {
            ::fsync(folder);
            ::close(folder);
        }
    }

private:
    void check(bool succeeded) const {
        ZT_CHECK(succeeded, io, "cannot write {}: {}", path_.string(), std::strerror(errno));
    }

    std::filesystem::path path_;
    std::string temporary_;
    int fd_ = -1;
    bool committed_ = false;
};

// The JSON text, padded with spaces so that the data begin at a multiple of 8.
std::string header_text(std::span<const NamedTensor* const> tensors,
                        std::span<const std::pair<std::string, std::string>> metadata) {
    const auto quoted = [](const std::string& text) { return nlohmann::json(text).dump(); };
    std::vector<std::string> items;
    if (!metadata.empty()) {
        nlohmann::json pairs = nlohmann::json::object();
        for (const auto& [key, value] : metadata) pairs[key] = value;
        items.push_back("\"__metadata__\":" + pairs.dump());
    }
    std::size_t position = 0;
    for (const NamedTensor* named : tensors) {
        const std::size_t end = position + named->tensor.numel() * named->tensor.element_size();
        items.push_back(fmt::format(
            "{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", quoted(named->name),
            name_of(dtype_of(*named)), fmt::join(named->tensor.sizes(), ","), position, end));
        position = end;
    }
    std::string text = fmt::format("{{{}}}", fmt::join(items, ","));
    text.resize((text.size() + 7) / 8 * 8, ' ');
    return text;
}

}  // namespace

std::shared_ptr<const TensorSource> open_safetensors(const std::filesystem::path& file) {
    return std::make_shared<SafetensorsFile>(file);
}

void write_safetensors(const std::filesystem::path& file, std::span<const NamedTensor> tensors,
                       std::span<const std::pair<std::string, std::string>> metadata) {
    std::unordered_set<std::string_view> names = {"__metadata__"};
    std::vector<const NamedTensor*> order;
    for (const NamedTensor& named : tensors) {
        ZT_CHECK(names.insert(named.name).second, io,
                 "cannot write {}: the tensor name '{}' is reserved or comes twice", file.string(),
                 named.name);
        order.push_back(&named);
    }
    // Wide elements first: every tensor is then aligned to its dtype.
    std::stable_sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
        return a->tensor.element_size() > b->tensor.element_size();
    });
    std::string header;
    try {
        header = header_text(order, metadata);
    } catch (const nlohmann::json::type_error&) {
        fail(ErrorKind::io, "cannot write {}: a name or metadata text is not UTF-8", file.string());
    }
    TemporaryFile temporary(file);
    std::array<unsigned char, 8> length = {};
    for (std::size_t i = 0; i < length.size(); ++i) {
        length[i] = static_cast<unsigned char>(header.size() >> (8 * i));
    }
    temporary.write(length.data(), length.size());
    temporary.write(header.data(), header.size());
    for (const NamedTensor* named : order) {
        const at::Tensor data = named->tensor.detach().cpu().contiguous();
        temporary.write(data.const_data_ptr(), data.nbytes());
    }
    temporary.commit();
}

}  // namespace zoetrope
