// Where a run's results go: file names, and the files themselves, complete or absent.
//
// Names are decided and checked before any work is done. Frames are encoded as they are decoded;
// the prompt, the seed and all settings stand in the file's metadata. One thread at a time.
#pragma once

#include "engine/engine.h"

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace zoetrope {

struct OutputOptions {
    std::filesystem::path path = "outputs";  // a file (its ending picks the format) or a folder
    std::string file_name;                   // inside the folder; empty: made from prompt and seed
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

    // Ends the last file, or writes the tensors. -> all files written. Errors: io.
    std::vector<std::filesystem::path> finish(const at::Tensor& latents);

private:
    struct State;
    void take(int output, const at::Tensor& frames);

    std::vector<std::filesystem::path> paths_;
    std::unique_ptr<State> state_;
};

// Prompt, seed and every setting of a run, as JSON: the `comment` of its files.
std::string settings_json(const ResolvedRequest& request, const Engine& engine);

}  // namespace zoetrope
