// Where a run's results go: file names, and the files themselves, complete or absent.
//
// Names are decided and checked before any work is done. Frames are encoded as they are decoded;
// the prompt, the seed and all settings stand in the file's metadata. A run of several segments
// has its finished ones on the disk, each as a part of its own, and the file is joined from them in
// the end. One thread at a time.
#pragma once

#include "engine/engine.h"

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace zoetrope {

struct OutputOptions {
    std::filesystem::path path = "outputs";  // a file (its ending picks the format) or a folder
    std::string file_name;                   // inside the folder; empty: made from prompt and seed
    // Where finished segments are kept; empty: in a hidden folder beside the output, which goes
    // with the Output.
    std::filesystem::path parts;
};

class Output {
public:
    // Errors: bad_request for an ending that does not fit the output type, a size or a rate that
    // the format cannot hold.
    Output(const OutputOptions& options, const ResolvedRequest& request, const Engine& engine);
    ~Output();

    // The file of each output; one file for all outputs where tensors are saved.
    const std::vector<std::filesystem::path>& paths() const { return paths_; }

    // To be given to Engine::generate(). Empty for latents, which need no decoding.
    FrameCallback callback();

    // The segment whose frames were handed over since the last call is finished: its part is on the
    // disk when this returns. (None is made of runs of one segment and of latents.) Errors: io.
    void end_segment();

    // Frames of each finished segment; a segment may have none.
    const std::vector<int>& parts() const { return parts_; }

    // Goes on behind the segments that an earlier process has finished with the same parts folder,
    // request and engine.
    void resume(std::vector<int> parts) { parts_ = std::move(parts); }

    // Ends the last file, joins the parts or writes the tensors. -> all files written. Errors: io.
    std::vector<std::filesystem::path> finish(const at::Tensor& latents);

private:
    struct State;
    void take(int output, const at::Tensor& frames);
    void take_part(int output, const at::Tensor& frames);
    void end_part();
    std::filesystem::path part_file(int output, std::size_t segment);
    void join_videos();
    void join_tensors();

    std::vector<std::filesystem::path> paths_;
    std::vector<int> parts_;
    std::unique_ptr<State> state_;
};

// Prompt, seed and every setting of a run, as JSON: the `comment` of its files.
std::string settings_json(const ResolvedRequest& request, const Engine& engine);

}  // namespace zoetrope
