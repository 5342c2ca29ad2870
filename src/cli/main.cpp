// The program: finds the subcommand, turns signals into a stop request and errors into exit codes.
#include "base/error.h"
#include "base/log.h"
#include "cli/commands.h"
#include "engine/version.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <new>
#include <thread>
#include <vector>

#include <pthread.h>
#include <unistd.h>

namespace zoetrope::cli {
namespace {

constexpr int kInterrupted = 130;  // 128 + SIGINT, as shells have it

struct Subcommand {
    std::string_view name;
    std::string_view usage;
    std::string_view summary;
    int (*run)(Words words, std::stop_token stop);
};

constexpr Subcommand kCommands[] = {
    {"generate", "generate --prompt \"...\"", "make a video", generate},
    {"plan", "plan --num-frames N", "say how it would be cut, its time and memory",
     [](Words words, std::stop_token) { return plan(words); }},
    {"preprocess", "preprocess --video CLIP", "make the videos that drive Wan-Animate",
     preprocess_clip},
    {"convert", "convert --output-path PATH", "write a model in another layout or precision",
     convert},
    {"inspect", "inspect PATH", "say what a model, a weights file or an output holds",
     [](Words words, std::stop_token) { return inspect(words); }},
    {"sheet", "sheet VIDEO...", "show frames of videos in one picture",
     [](Words words, std::stop_token) { return sheet(words); }},
    {"pull", "pull NAME", "download a model repository", pull},
    {"verify", "verify MODEL", "compare with Diffusers on a model's own weights", verify},
    {"bench", "bench model --shape NAME", "measure this machine on a model's real shape", bench},
};
// Of the command line's contract, not built yet.
constexpr std::string_view kNotBuilt[] = {"serve"};

std::string usage_text() {
    std::string text = "zoetrope: the Wan video models, quickly and on any machine\n\n";
    for (const Subcommand& command : kCommands)
        text += fmt::format("  zoetrope {:<27}{}\n", command.usage, command.summary);
    text += fmt::format("  zoetrope {:<27}{}\n\nEach takes --help.\n", "--version",
                        "version, LibTorch, instruction sets, devices");
    return text;
}

int run(Words words, std::stop_token stop) {
    std::vector<std::string_view> names;
    for (const Subcommand& command : kCommands) names.push_back(command.name);
    const std::string accepted = fmt::format("{}", fmt::join(names, ", "));
    ZT_CHECK(!words.empty(), bad_request,
             "a command is wanted: one of {} (zoetrope --help says more)", accepted);
    const std::string_view wanted = words[0];
    if (wanted == "--help" || wanted == "-h" || wanted == "help") {
        std::cout << usage_text();
        return 0;
    }
    if (wanted == "--version") {
        std::cout << version_text();
        return 0;
    }
    for (const Subcommand& command : kCommands) {
        if (command.name == wanted) return command.run(words.subspan(1), stop);
    }
    for (const std::string_view name : kNotBuilt) {
        ZT_CHECK(wanted != name, unsupported, "zoetrope {} is not built yet: {} run today", name,
                 accepted);
    }
    names.insert(names.end(), {"--version", "--help"});
    fail(ErrorKind::bad_request, "'{}' is no command of zoetrope: accepted are {} and --version{}",
         wanted, accepted, did_you_mean(names, wanted));
}

int exit_code_of(ErrorKind kind) {
    switch (kind) {
        case ErrorKind::bad_request:
        case ErrorKind::not_found:
        case ErrorKind::unsupported: return 2;
        case ErrorKind::cancelled: return kInterrupted;
        case ErrorKind::io:
        case ErrorKind::out_of_memory:
        case ErrorKind::internal: return 1;
    }
    return 1;
}

// The first line of a message, since LibTorch's carry a stack of C++ frames.
std::string first_line(const char* message) {
    const std::string text = message;
    return text.substr(0, text.find('\n'));
}

// The exit code of a run that went well: 1 where its output could not be written, unless the reader
// chose to read no further.
int end_of_stdout() {
    errno = 0;
    std::cout.flush();
    const bool whole = std::fflush(stdout) == 0 && std::cout.good();
    if (whole || errno == EPIPE) return 0;
    std::cerr << "zoetrope: stdout cannot be written: " << std::strerror(errno) << std::endl;
    return 1;
}

// Signals come to this thread alone: the first asks the run to stop, the second ends the program at
// once.
void watch_signals(const sigset_t& signals, std::stop_source& stop) {
    std::thread([signals, &stop] {
        int signal = 0;
        if (sigwait(&signals, &signal) != 0) return;
        stop.request_stop();
        log::info("stopping; once more to end at once");
        if (sigwait(&signals, &signal) == 0) ::_exit(kInterrupted);
    }).detach();
}

}  // namespace
}  // namespace zoetrope::cli

int main(int argc, char** argv) {
    using namespace zoetrope;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any other thread begins
    // A reader of stdout or stderr that goes away does not end a run of hours.
    std::signal(SIGPIPE, SIG_IGN);
    static std::stop_source stop;  // outlives the watching thread, which is never joined
    cli::watch_signals(signals, stop);
    try {
        const std::span<const char* const> words(argv, static_cast<std::size_t>(argc));
        const int code = cli::run(words.subspan(1), stop.get_token());
        return code == 0 ? cli::end_of_stdout() : code;
    } catch (const Error& error) {
        std::cerr << "zoetrope: " << error.what() << std::endl;
        return cli::exit_code_of(error.kind());
    } catch (const std::bad_alloc&) {
        std::cerr << "zoetrope: out of memory: try a smaller size, fewer frames or --dtype bf16"
                  << std::endl;
    } catch (const std::exception& error) {
        std::cerr << "zoetrope: " << cli::first_line(error.what()) << std::endl;
    }
    return 1;
}
