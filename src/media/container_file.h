// One video stream into a container file through libavformat: header, packets, trailer; complete or
// absent; with the sound that the options name. Inside media only.
//
// Owns the hidden file and removes it unless finish() published it. One thread. Errors: io,
// unsupported (an FFmpeg without the muxer), with the target's name.
#pragma once

#include "base/partial_file.h"
#include "media/audio.h"
#include "media/ffmpeg.h"
#include "media/formats.h"
#include "media/writer.h"

#include <filesystem>
#include <optional>
#include <string>

namespace zoetrope::ffmpeg {

// Options of FFmpeg's functions by name.
class Options {
public:
    Options() = default;
    ~Options() { av_dict_free(&dictionary_); }
    Options(const Options&) = delete;
    Options& operator=(const Options&) = delete;
    void set(const char* key, const std::string& value) {
        check(av_dict_set(&dictionary_, key, value.c_str(), 0), ErrorKind::out_of_memory, key);
    }
    AVDictionary** get() { return &dictionary_; }

private:
    AVDictionary* dictionary_ = nullptr;
};

class ContainerFile {
public:
    // Creates the hidden file. `format` and `options` live longer than this object.
    ContainerFile(const std::filesystem::path& target, const VideoFormat& format,
                  const WriteOptions& options);
    ~ContainerFile();
    ContainerFile(const ContainerFile&) = delete;
    ContainerFile& operator=(const ContainerFile&) = delete;

    // Whether the stream's parameter sets belong in the header, and not before each key frame.
    bool wants_global_header();

    // The header for a stream of frames of that kind, numbered from 0 in units of 1/rate.
    void begin(const AVCodecParameters& parameters, AVRational rate);

    // A packet of one frame: pts and dts are frame numbers. Takes what the packet refers to.
    void write(AVPacket& packet);

    // The trailer; then the file gets its name.
    std::filesystem::path finish();

    // "cannot write 'x.mp4'"
    std::string doing() const { return "cannot write '" + file_.target().string() + "'"; }

private:
    struct FreeOutput {
        void operator()(AVFormatContext* output) const {
            if (output->pb != nullptr) avio_closep(&output->pb);
            avformat_free_context(output);
        }
    };

    AVFormatContext& output();

    const VideoFormat& format_;
    const WriteOptions& options_;
    ParentFolders folders_;  // outlives the file in it
    PartialFile file_;
    std::unique_ptr<AVFormatContext, FreeOutput> output_;  // closed before the file is removed
    AVRational frame_ = {0, 1};                            // seconds of a frame
    std::optional<AudioTrack> audio_;
    std::int64_t frames_ = 0;  // that were written
    bool trailer_due_ = false;
};

}  // namespace zoetrope::ffmpeg
