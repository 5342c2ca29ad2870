#include "engine/request.h"

#include "base/error.h"

#include <array>

namespace zoetrope {
namespace {

struct TaskName {
    Task task;
    std::string_view name;
    std::string_view long_name;  // as Hugging Face's task tags have it
};

constexpr std::array kTasks = {
    TaskName{Task::automatic, "auto", ""},
    TaskName{Task::t2v, "t2v", "text-to-video"},
    TaskName{Task::t2i, "t2i", "text-to-image"},
    TaskName{Task::i2v, "i2v", "image-to-video"},
    TaskName{Task::flf2v, "flf2v", "first-last-frame-to-video"},
    TaskName{Task::v2v, "v2v", "video-to-video"},
    TaskName{Task::vace, "vace", ""},
    TaskName{Task::animate, "animate", ""},
    TaskName{Task::replace, "replace", ""},
};

}  // namespace

std::string_view name_of(Task task) {
    for (const TaskName& row : kTasks) {
        if (row.task == task) return row.name;
    }
    return "unknown";
}

Task parse_task(std::string_view text) {
    std::string names;
    for (const TaskName& row : kTasks) {
        if (text == row.name || (!row.long_name.empty() && text == row.long_name)) return row.task;
        names += (names.empty() ? "" : ", ") + std::string(row.name);
    }
    fail(ErrorKind::bad_request, "--task is '{}': accepted are {}", text, names);
}

OutputType parse_output_type(std::string_view text) {
    if (text == "video") return OutputType::video;
    if (text == "latent") return OutputType::latent;
    if (text == "tensor") return OutputType::tensor;
    fail(ErrorKind::bad_request, "--output-type is '{}': accepted are video, latent, tensor", text);
}

}  // namespace zoetrope
