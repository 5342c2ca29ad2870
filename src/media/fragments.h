// Long videos in pieces: runs of frames that are finished, each a file of its own, and the whole
// made of them.
//
// A fragment is written by an encoder of its own: it begins with a key frame, nothing in it refers
// to another fragment, and the same frames and options give the same bytes. Joining copies the
// encoded pictures and numbers them through; nothing is encoded again. PNG and GIF, whose palette
// goes through the whole video, are made from fragments that hold every pixel (FFV1). The whole is
// complete or absent. Functions without state, any thread.
#pragma once

#include "media/writer.h"

#include <filesystem>
#include <span>
#include <vector>

namespace zoetrope {

struct Fragment {
    std::filesystem::path file;
    int frames = 0;
};

// The name of a fragment in its folder, by the format of the whole: "segment-0003.mp4".
std::filesystem::path fragment_file(const std::filesystem::path& folder,
                                    const std::filesystem::path& target, int index);

// A writer of one fragment. options: those of the whole, whose metadata and sound go into the whole
// alone.
VideoWriter fragment_writer(const std::filesystem::path& file, const std::filesystem::path& target,
                            const WriteOptions& options);

// The whole of `fragments`, in that order -> what was written. Errors: io for a fragment that is
// not there, is damaged, has another number of frames or does not go with the first; those of
// VideoWriter.
std::vector<std::filesystem::path> join_fragments(const std::filesystem::path& target,
                                                  std::span<const Fragment> fragments,
                                                  const WriteOptions& options);

}  // namespace zoetrope
