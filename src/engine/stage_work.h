// One stage of a real model's shape on random weights, ready to be called: what the bench times and
// the plan fits.
//
// The weights are made when the work is made (they take the memory that the real ones would) and
// live in it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace zoetrope {

struct StageOptions {
    std::string shape = "wan2.1-t2v-1.3b";
    std::string stage = "dit";  // text, dit, vae-encode, vae-decode
    int height = 480;           // pixels
    int width = 832;
    int num_frames = 81;
    int layers = 1;   // of the DiT or the text encoder; 0: all
    int tokens = 30;  // real tokens of the prompt, stage text
    std::string dtype = "auto";
    std::string quantization = "none";  // of the DiT's matrices
    int lora_rank = 0;                  // of an adapter on each of them; 0: none
};

struct StageWork {
    std::function<void()> run;  // the stage once
    double flop = 0;            // operations in it
    std::int64_t layers = 0;
    std::string dtype;
};

std::vector<std::string> shape_names();

// Errors: bad_request with the names accepted; unsupported for shapes and stages that are not
// built.
StageWork make_stage_work(const StageOptions& options);

}  // namespace zoetrope
