#include "benchmark/verify.h"

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "engine/output.h"
#include "engine/version.h"
#include "ops/device.h"
#include "ops/trace.h"
#include "weights/source.h"

#include <ATen/ops/cat.h>
#include <c10/core/InferenceMode.h>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

namespace zoetrope::benchmark {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// tools/verify/reference.py in the source tree or beside the program.
fs::path reference_script() {
    std::error_code ignored;
    const fs::path program = fs::read_symlink("/proc/self/exe", ignored).parent_path();
    for (const char* beside : {"tools/verify", "../tools/verify", "../../tools/verify"}) {
        const fs::path script = program / beside / "reference.py";
        if (fs::exists(script)) return script;
    }
    fail(ErrorKind::not_found,
         "tools/verify/reference.py was not found beside the program: run zoetrope from the source "
         "tree or from the folder of its archive");
}

// Runs the program with its output in `log`. -> its exit code
int run_program(const std::vector<std::string>& words, const fs::path& log) {
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(),
                                     O_WRONLY | O_CREAT | O_TRUNC, 0644);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    pid_t child = 0;
    const int failure =
        posix_spawnp(&child, words[0].c_str(), &actions, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    ZT_CHECK(failure == 0, not_found, "--python is '{}': it cannot be started", words[0]);
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Everything that a module took or gave, by name.
class Tensors {
public:
    void add(std::string name, const at::Tensor& tensor) {
        if (tensor.defined()) all_.push_back({std::move(name), tensor.to(at::kFloat).cpu()});
    }
    void write(const fs::path& file) const { write_safetensors(file, all_); }

private:
    std::vector<NamedTensor> all_;
};

Tensors run_stages(Engine& engine, const ResolvedRequest& request, const RunControl& control,
                   Report& report) {
    const c10::InferenceMode inference;
    Tensors tensors;
    const TextEmbeddings text = engine.encode_text(request, control, report);
    tensors.add("prompt", text.prompt);
    tensors.add("negative", text.negative);
    const VisualConditions visual = engine.encode_visual(request, control, report);
    tensors.add("image", visual.image);
    tensors.add("channels", visual.channels);
    tensors.add("known_frames", visual.known_frames);
    tensors.add("control", visual.control);
    tensors.add("source", visual.source);
    at::Tensor latents = engine.draw_noise(request);
    tensors.add("latents.0", latents);
    for (int step = request.first_step; step < request.last_step; ++step) {
        const ops::Recording recording("velocity");
        latents = engine.denoise(request, text, visual, step, step + 1, latents, control, report);
        for (const auto& [name, velocity] : recording.tensors())
            tensors.add(fmt::format("step.{}.{}", step, name), velocity);
        tensors.add(fmt::format("latents.{}", step + 1 - request.first_step), latents);
    }
    std::vector<at::Tensor> chunks;
    engine.decode(
        latents, [&chunks](int, const at::Tensor& frames) { chunks.push_back(frames); }, control,
        report);
    tensors.add("video", at::cat(chunks, 1));
    return tensors;
}

Json machine() {
    Json json = {{"program", version_text()}, {"cpu", ops::devices().front().name}};
    json["threads"] = ops::threads();
    return json;
}

}  // namespace

nlohmann::ordered_json verify(const VerifyOptions& options, const RunControl& control) {
    const fs::path script = options.compare ? reference_script() : fs::path();
    Engine engine(ModelFolder::open(options.paths), options.engine);
    const ResolvedRequest request = engine.resolve(options.request);
    fs::create_directories(options.output);
    Report report;
    log::info("running {} here: {}x{}, {} frames, {} steps, {}", engine.model().root.string(),
              request.width, request.height, request.num_frames, request.num_inference_steps,
              engine.dtype());
    run_stages(engine, request, control, report).write(options.output / "ours.safetensors");

    const fs::path reference = options.reference.empty() ? engine.model().root : options.reference;
    Json json = {{"model", engine.model().root.string()},
                 {"reference", reference.string()},
                 {"settings", Json::parse(settings_json(request, engine))},
                 {"task", name_of(request.task)},
                 {"machine", machine()},
                 {"report", to_json(report)}};
    const auto add_path = [&json](const char* key, const fs::path& path) {
        if (!path.empty()) json["inputs"][key] = fs::absolute(path).string();
    };
    add_path("image", request.request.image);
    add_path("last_image", request.request.last_image);
    std::ofstream(options.output / "request.json") << json.dump(2) << '\n';
    if (!options.compare) return json;

    log::info("running Diffusers on the same inputs, module by module");
    const fs::path log_file = options.output / "reference.log";
    const int code =
        run_program({options.python, script.string(), options.output.string()}, log_file);
    constexpr int kNoDiffusers = 3;  // reference.py's code for a missing package
    ZT_CHECK(code != kNoDiffusers, not_found,
             "{} has no Diffusers: install diffusers and transformers for it, or name another with "
             "--python; our side is in {}",
             options.python, (options.output / "ours.safetensors").string());
    ZT_CHECK(code == 0 || code == 1, io, "the reference failed (exit code {}): see {}", code,
             log_file.string());
    return Json::parse(read_json(options.output / "report.json").dump());
}

}  // namespace zoetrope::benchmark
