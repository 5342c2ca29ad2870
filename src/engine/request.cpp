#include "engine/request.h"

#include "base/error.h"

#include <array>
#include <utility>

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

constexpr std::array kCarries = {std::pair{Carry::pixels, std::string_view("pixels")},
                                 std::pair{Carry::latents, std::string_view("latents")}};
constexpr std::array kFusions = {std::pair{OverlapFusion::last, std::string_view("last")},
                                 std::pair{OverlapFusion::linear, std::string_view("linear")},
                                 std::pair{OverlapFusion::cosine, std::string_view("cosine")}};

template <typename Table, typename Value>
std::string_view name_in(const Table& table, Value wanted) {
    for (const auto& [value, name] : table) {
        if (value == wanted) return name;
    }
    return "unknown";
}

template <typename Table>
auto parse_in(const Table& table, std::string_view flag, std::string_view text) {
    std::string names;
    for (const auto& [value, name] : table) {
        if (name == text) return value;
        names += (names.empty() ? "" : ", ") + std::string(name);
    }
    fail(ErrorKind::bad_request, "{} is '{}': accepted are {}", flag, text, names);
}

}  // namespace

std::string_view name_of(Task task) {
    for (const TaskName& row : kTasks) {
        if (row.task == task) return row.name;
    }
    return "unknown";
}

bool is_driven(Task task) { return task == Task::animate || task == Task::replace; }

Task parse_task(std::string_view text) {
    std::string names;
    for (const TaskName& row : kTasks) {
        if (text == row.name || (!row.long_name.empty() && text == row.long_name)) return row.task;
        names += (names.empty() ? "" : ", ") + std::string(row.name);
    }
    fail(ErrorKind::bad_request, "--task is '{}': accepted are {}", text, names);
}

std::string_view name_of(Carry carry) { return name_in(kCarries, carry); }
Carry parse_carry(std::string_view text) { return parse_in(kCarries, "--carry", text); }

std::string_view name_of(OverlapFusion fusion) { return name_in(kFusions, fusion); }
OverlapFusion parse_overlap_fusion(std::string_view text) {
    return parse_in(kFusions, "--overlap-fusion", text);
}

OutputType parse_output_type(std::string_view text) {
    if (text == "video") return OutputType::video;
    if (text == "latent") return OutputType::latent;
    if (text == "tensor") return OutputType::tensor;
    fail(ErrorKind::bad_request, "--output-type is '{}': accepted are video, latent, tensor", text);
}

}  // namespace zoetrope
