#include "weights/torch_archive.h"

#include "base/error.h"
#include "weights/file_text.h"
#include "weights/pickle.h"
#include "weights/zip.h"

#include <algorithm>
#include <limits>
#include <unordered_map>

namespace zoetrope::torch_archive {
namespace {

constexpr std::string_view kZipBegin = "PK\x03\x04";
constexpr std::string_view kPickle = "/data.pkl";

std::string_view text_of(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The zip entry "NAME/data.pkl", NAME being one folder.
const zip::Entry& find_pickle(const std::vector<zip::Entry>& entries, std::string_view source) {
    const zip::Entry* pickle = nullptr;
    for (const zip::Entry& entry : entries) {
        if (!entry.name.ends_with(kPickle) ||
            entry.name.find('/') + kPickle.size() != entry.name.size())
            continue;
        ZT_CHECK(pickle == nullptr, io, "{}: the archive has two pickles, {} and {}", source,
                 shown(pickle->name), shown(entry.name));
        pickle = &entry;
    }
    ZT_CHECK(pickle != nullptr, unsupported,
             "{}: a zip file, but not one of torch.save: it has no data.pkl in its folder", source);
    return *pickle;
}

// Checks that every element lies in the storage of `size` bytes, which begins at `begin`.
Entry place(const pickle::Tensor& tensor, std::uint64_t begin, std::uint64_t size,
            std::string_view source) {
    const std::int64_t width = safetensors::bytes_of(tensor.dtype);
    const auto room = static_cast<std::int64_t>(size) / width;  // elements
    Entry entry{std::string(tensor.name), tensor.dtype, tensor.shape, tensor.strides, 0};
    // The last element's position and the number of elements, as far as they stay in the storage.
    std::int64_t last = tensor.offset;
    std::int64_t elements = 1;
    bool fits = true;
    for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
        const std::int64_t steps = tensor.shape[i] - 1;
        if (steps < 0) elements = 0;
        if (elements == 0 || !fits) continue;
        // Elements that share memory (a stride of 0) could make a small file a huge tensor.
        fits = tensor.shape[i] <= room / std::max<std::int64_t>(elements, 1) && last < room &&
               (steps == 0 || tensor.strides[i] <= (room - 1 - last) / steps);
        if (!fits) continue;
        last += steps * tensor.strides[i];
        elements *= tensor.shape[i];
    }
    if (elements == 0) {
        // Strides of nothing are free; the shape still has to be countable.
        std::int64_t product = width;
        for (const std::int64_t n : tensor.shape) {
            ZT_CHECK(n == 0 || product <= std::numeric_limits<std::int64_t>::max() / n, io,
                     "{}: tensor {} has a shape of more bytes than 64 bits can count: [{}]", source,
                     shown(tensor.name), fmt::join(tensor.shape, ", "));
            product *= std::max<std::int64_t>(n, 1);
        }
        return entry;
    }
    ZT_CHECK(
        fits && last < room, io,
        "{}: tensor {} of shape [{}], strides [{}] and offset {} does not fit into its storage "
        "{} of {} bytes",
        source, shown(tensor.name), fmt::join(tensor.shape, ", "), fmt::join(tensor.strides, ", "),
        tensor.offset, shown(tensor.storage.key), size);
    entry.begin = begin + static_cast<std::uint64_t>(tensor.offset * width);
    return entry;
}

}  // namespace

bool is_archive(std::span<const std::byte> file) { return text_of(file).starts_with(kZipBegin); }

bool is_bare_pickle(std::span<const std::byte> file) {
    constexpr std::byte kProto{0x80};  // then the protocol
    return file.size() >= 2 && file[0] == kProto && file[1] >= std::byte{2} &&
           file[1] <= std::byte{5};
}

std::int64_t elements_of(std::span<const std::int64_t> shape) {
    std::int64_t elements = 1;
    for (const std::int64_t n : shape) elements *= n;
    return elements;
}

bool is_contiguous(const Entry& entry) {
    std::int64_t stride = 1;
    for (std::size_t i = entry.shape.size(); i-- > 0;) {
        if (entry.shape[i] != 1 && entry.strides[i] != stride) return false;
        stride *= entry.shape[i];
    }
    return true;
}

std::vector<Entry> parse(std::span<const std::byte> file, std::string_view source) {
    const std::vector<zip::Entry> records = zip::parse(file, source);
    const zip::Entry& pickle = find_pickle(records, source);
    const std::string_view folder = pickle.name.substr(0, pickle.name.size() - kPickle.size() + 1);
    std::unordered_map<std::string_view, const zip::Entry*> storages;  // by key
    for (const zip::Entry& record : records) {
        if (!record.name.starts_with(folder)) continue;
        const std::string_view name = record.name.substr(folder.size());
        constexpr std::string_view kData = "data/";
        if (name.starts_with(kData)) storages.emplace(name.substr(kData.size()), &record);
        if (name == "byteorder") {
            ZT_CHECK(text_of(file.subspan(record.begin, record.size)) == "little", unsupported,
                     "{}: the file was written on a big-endian machine, which is not read", source);
        }
    }
    std::vector<Entry> entries;
    for (const pickle::Tensor& tensor :
         pickle::parse(file.subspan(pickle.begin, pickle.size), source)) {
        const auto found = storages.find(tensor.storage.key);
        ZT_CHECK(found != storages.end(), io,
                 "{}: tensor {} lies in the storage {}, which the file does not have", source,
                 shown(tensor.name), shown(tensor.storage.key));
        const std::uint64_t size = found->second->size;
        const auto width = static_cast<std::uint64_t>(safetensors::bytes_of(tensor.storage.dtype));
        ZT_CHECK(size % width == 0 &&
                     size / width == static_cast<std::uint64_t>(tensor.storage.elements),
                 io,
                 "{}: the storage {} of tensor {} has {} bytes, but {} elements of {} are said "
                 "to be in it",
                 source, shown(tensor.storage.key), shown(tensor.name), size,
                 tensor.storage.elements, name_of(tensor.storage.dtype));
        entries.push_back(place(tensor, found->second->begin, size, source));
    }
    return entries;
}

}  // namespace zoetrope::torch_archive
