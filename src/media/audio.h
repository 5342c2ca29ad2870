// The sound of one file in another that is written. Inside media only.
//
// An AudioTrack adds a stream to an output before its header is written and then hands the sound
// over in pieces, as far as the pictures have come. Time 0 is the source's first picture. Packets
// are copied where the container takes their codec, else decoded and encoded anew: AAC, in WebM
// Opus; more than two channels become two. A source without sound, and a container that holds none
// (GIF), give no stream. A source that breaks off falls silent, with a warning: the pictures are
// worth more. Borrows the output. One thread. Errors: io where the output cannot be written.
#pragma once

#include "media/ffmpeg.h"

#include <filesystem>
#include <memory>

namespace zoetrope::ffmpeg {

class AudioTrack {
public:
    AudioTrack(const std::filesystem::path& source, AVFormatContext& output);
    ~AudioTrack();
    AudioTrack(const AudioTrack&) = delete;
    AudioTrack& operator=(const AudioTrack&) = delete;

    // Whether a stream was added.
    bool exists() const { return work_ != nullptr; }

    // Writes what begins before that time, in seconds. To be called before each picture's packet:
    // else the muxer keeps pictures in memory until the sound is there.
    void write_until(double seconds);

    // Writes the rest up to the end of the pictures; nothing sounds after it.
    void finish(double seconds);

    class Work;

private:
    std::unique_ptr<Work> work_;  // empty: no sound
};

}  // namespace zoetrope::ffmpeg
