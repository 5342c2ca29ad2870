#include "engine/request.h"

#include "base/choices.h"

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

constexpr Choices<Carry, 2> kCarries = {{{Carry::pixels, "pixels"}, {Carry::latents, "latents"}}};
constexpr Choices<OverlapFusion, 3> kFusions = {{{OverlapFusion::last, "last"},
                                                 {OverlapFusion::linear, "linear"},
                                                 {OverlapFusion::cosine, "cosine"}}};
constexpr Choices<OutputType, 3> kOutputTypes = {
    {{OutputType::video, "video"}, {OutputType::latent, "latent"}, {OutputType::tensor, "tensor"}}};

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

std::string_view name_of(Carry carry) { return word_of(kCarries, carry); }
Carry parse_carry(std::string_view text) { return parse_choice(kCarries, "--carry", text); }

std::string_view name_of(OverlapFusion fusion) { return word_of(kFusions, fusion); }
OverlapFusion parse_overlap_fusion(std::string_view text) {
    return parse_choice(kFusions, "--overlap-fusion", text);
}

OutputType parse_output_type(std::string_view text) {
    return parse_choice(kOutputTypes, "--output-type", text);
}

}  // namespace zoetrope
