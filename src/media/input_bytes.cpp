#include "media/input_bytes.h"

#include <cerrno>
#include <cstring>
#include <system_error>

namespace zoetrope::ffmpeg {

namespace fs = std::filesystem;

InputBytes::InputBytes(const fs::path& path) {
    std::error_code error;
    ZT_CHECK(fs::exists(path, error), not_found, "'{}' does not exist", path.string());
    ZT_CHECK(fs::is_regular_file(path, error), io, "cannot read '{}': it is not a file",
             path.string());
    size_ = static_cast<std::int64_t>(fs::file_size(path, error));
    file_ = std::fopen(path.c_str(), "rbe");
    ZT_CHECK(file_ != nullptr, io, "cannot read '{}': {}", path.string(), std::strerror(errno));
    constexpr int kBuffer = 64 << 10;
    auto* buffer = static_cast<std::uint8_t*>(av_malloc(kBuffer));
    context_ = buffer == nullptr
                   ? nullptr
                   : avio_alloc_context(buffer, kBuffer, 0, this, &read, nullptr, &seek);
    if (context_ == nullptr) {
        av_free(buffer);
        std::fclose(file_);
        fail(ErrorKind::out_of_memory, "FFmpeg could not allocate its buffers");
    }
}

InputBytes::~InputBytes() {
    av_freep(&context_->buffer);  // FFmpeg may have replaced ours
    avio_context_free(&context_);
    std::fclose(file_);
}

int InputBytes::last_byte() const {
    int last = 0;
    for (std::int64_t at = size_ - 1; at >= 0 && last == 0; --at) {
        if (::fseeko(file_, at, SEEK_SET) != 0) return 0;
        last = std::fgetc(file_);
    }
    return last;
}

int InputBytes::read(void* self, std::uint8_t* buffer, int size) {
    std::FILE* file = static_cast<InputBytes*>(self)->file_;
    const std::size_t count = std::fread(buffer, 1, static_cast<std::size_t>(size), file);
    if (count > 0) return static_cast<int>(count);
    return std::ferror(file) != 0 ? AVERROR(EIO) : AVERROR_EOF;
}

std::int64_t InputBytes::seek(void* self, std::int64_t offset, int whence) {
    auto* input = static_cast<InputBytes*>(self);
    if ((whence & AVSEEK_SIZE) != 0) return input->size_;
    if (::fseeko(input->file_, offset, whence & ~AVSEEK_FORCE) != 0) return AVERROR(errno);
    return ::ftello(input->file_);
}

namespace {

int refuse_other_files(AVFormatContext*, AVIOContext**, const char*, int, AVDictionary**) {
    return AVERROR(EPERM);
}

}  // namespace

InputContext open_input(InputBytes& bytes, const std::string& doing) {
    AVFormatContext* input = avformat_alloc_context();
    ZT_CHECK(input != nullptr, out_of_memory, "FFmpeg could not allocate its buffers");
    input->pb = bytes.context();
    input->io_open = refuse_other_files;
    input->protocol_whitelist = av_strdup("none");
    const int opened = avformat_open_input(&input, nullptr, nullptr, nullptr);  // frees on failure
    check(opened, ErrorKind::io, doing + ": it is no video or picture that FFmpeg knows");
    InputContext owned(input);
    check(avformat_find_stream_info(input, nullptr), ErrorKind::io, doing);
    return owned;
}

}  // namespace zoetrope::ffmpeg
