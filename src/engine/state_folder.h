// A folder that keeps a run's state, so that what was computed outlives the process.
//
//     lock                 held while a process works with the folder
//     run.json             what the run is, and in the end what became of it
//     loop.safetensors     tensors and values as they were at some moment, by save(): inside a
//     carried.safetensors  segment, and between two
//     segments/            finished parts of a long video, written by others
//
// Each file is complete or absent, whenever the process ends, and on the disk when the call that
// wrote it returns. One process at a time, one thread. Errors: bad_request for a folder that is in
// use or holds other things, io for one that is damaged or cannot be written.
#pragma once

#include "weights/source.h"

#include <ATen/core/Tensor.h>

#include <nlohmann/json.hpp>

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace zoetrope {

struct SavedState {
    std::map<std::string, at::Tensor> tensors;  // on the CPU, memory of their own
    nlohmann::json values;
};

class StateFolder {
public:
    static constexpr std::string_view kLoop = "loop.safetensors";
    static constexpr std::string_view kCarried = "carried.safetensors";

    // Makes the folder, where it is not there, and locks it.
    explicit StateFolder(std::filesystem::path folder);
    // Unlocks it; of a run of which nothing was saved nothing stays.
    ~StateFolder();
    StateFolder(const StateFolder&) = delete;
    StateFolder& operator=(const StateFolder&) = delete;

    const std::filesystem::path& path() const { return path_; }
    // Whether another process had begun with it before.
    bool was_used() const { return was_used_; }

    // What begin() was given, in this process or another; null where no run began.
    const nlohmann::json& run() const { return run_; }
    // What finish() was given; null while the run is unfinished.
    const nlohmann::json& result() const { return result_; }

    // Whether anything was saved of an unfinished run.
    bool has_progress() const;

    // A new run, in the place of all that is there.
    void begin(const nlohmann::json& run);
    // Keeps the result and removes the state.
    void finish(const nlohmann::json& result);

    // Replaces what was saved there. file: kLoop or kCarried
    void save(std::string_view file, std::span<const NamedTensor> tensors,
              const nlohmann::json& values);
    std::optional<SavedState> load(std::string_view file) const;

    // For the finished parts of a long video. Not there before the first one.
    std::filesystem::path segments() const;

private:
    void check_content() const;
    void lock();
    void read_run();
    void write_run() const;
    void remove_state();
    [[noreturn]] void damaged(std::string_view what) const;

    std::filesystem::path path_;
    bool made_ = false;
    bool was_used_ = false;
    int lock_ = -1;
    nlohmann::json run_, result_;
};

// Sentences on what differs between two descriptions of a run, "seed was 7 and is 8": the leaves of
// nested objects. Long values are cut.
std::vector<std::string> differences(const nlohmann::json& before, const nlohmann::json& now);

}  // namespace zoetrope
