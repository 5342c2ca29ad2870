// The file formats that videos are written in: one table, chosen by the file's ending.
//
// Pure functions over constant data, any thread. Errors: bad_request, with a sentence that lists
// what is accepted.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace zoetrope {

struct VideoFormat {
    std::string_view ending;   // ".mp4", lower case
    std::string_view muxer;    // FFmpeg's name of the container; empty: a file per picture
    std::string_view encoder;  // FFmpeg's name of the encoder
    bool even_size;            // 4:2:0 chroma: width and height must be even
    double max_fps;            // frames per second
    int default_crf;           // constant rate factor, lower is better; -1: the format has none
    int max_crf;
    std::string_view description;
};

std::span<const VideoFormat> video_formats();

// What holds every pixel as it is, for files that this program reads again: FFV1 in Matroska. Not
// in the list.
const VideoFormat& lossless_format();

// ".mp4, .webm, ...": for messages and help texts.
std::string video_endings();

// The format that the ending of `path` names, in either case.
const VideoFormat& video_format_of(const std::filesystem::path& path);

// What a VideoWriter would refuse at its first frame, known before any work is done: an unknown
// ending, an odd size where the format needs an even one, a frame rate that it cannot hold.
void check_video_output(const std::filesystem::path& path, int width, int height, double fps);
// The same of a format that is known.
void check_video_output(const std::filesystem::path& path, const VideoFormat& format, int width,
                        int height, double fps);

}  // namespace zoetrope
