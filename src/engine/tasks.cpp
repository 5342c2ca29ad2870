#include "engine/tasks.h"

#include "base/error.h"

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

namespace zoetrope {
namespace {

// A flag of the request that brings pictures in, and the tasks that take it.
struct Input {
    std::string_view flag;
    bool given = false;
    std::vector<Task> tasks;
};

std::vector<Input> inputs_given(const Request& request) {
    std::vector<Input> inputs = {
        {"--image", !request.image.empty(), {Task::i2v, Task::flf2v, Task::animate, Task::replace}},
        {"--last-image", !request.last_image.empty(), {Task::flf2v}},
        {"--reference-image", !request.reference_images.empty(), {Task::vace}},
        {"--video", !request.video.empty(), {Task::v2v, Task::vace, Task::animate, Task::replace}},
        {request.preprocessing_flag,
         !request.preprocessing_flag.empty(),
         {Task::animate, Task::replace}},
        {"--mask-video", !request.mask_video.empty(), {Task::vace, Task::replace}},
        {"--pose-video", !request.pose_video.empty(), {Task::animate, Task::replace}},
        {"--face-video", !request.face_video.empty(), {Task::animate, Task::replace}},
        {"--background-video", !request.background_video.empty(), {Task::replace}},
        {"--strength", request.strength.has_value(), {Task::v2v}},
        {"--conditioning-scale", request.conditioning_scale.has_value(), {Task::vace}},
    };
    std::erase_if(inputs, [](const Input& input) { return !input.given; });
    return inputs;
}

std::span<const Task> tasks_of(ModelKind kind) {
    static constexpr Task kText[] = {Task::t2v, Task::t2i, Task::v2v};
    static constexpr Task kImage[] = {Task::i2v, Task::flf2v};
    static constexpr Task kTextOrImage[] = {Task::t2v, Task::t2i, Task::i2v, Task::v2v};
    static constexpr Task kControl[] = {Task::vace};
    static constexpr Task kAnimate[] = {Task::animate, Task::replace};
    switch (kind) {
        case ModelKind::text: return kText;
        case ModelKind::image: return kImage;
        case ModelKind::text_or_image: return kTextOrImage;
        case ModelKind::control:
        case ModelKind::control_channels: return kControl;
        case ModelKind::animate: return kAnimate;
    }
    return {};
}

Task automatic_task(ModelKind kind, const Request& request, int num_frames) {
    switch (kind) {
        case ModelKind::control:
        case ModelKind::control_channels: return Task::vace;
        case ModelKind::animate:
            return request.background_video.empty() ? Task::animate : Task::replace;
        case ModelKind::image: return request.last_image.empty() ? Task::i2v : Task::flf2v;
        case ModelKind::text:
            if (!request.video.empty()) return Task::v2v;
            break;
        case ModelKind::text_or_image:
            if (!request.image.empty()) return Task::i2v;
            if (!request.video.empty()) return Task::v2v;
            break;
    }
    return num_frames == 1 ? Task::t2i : Task::t2v;
}

bool contains(std::span<const Task> tasks, Task task) {
    return std::find(tasks.begin(), tasks.end(), task) != tasks.end();
}

bool takes(ModelKind kind, Task task, const Input& input) {
    if (kind == ModelKind::control_channels)
        return input.flag == "--video" || input.flag == "--image";
    return contains(input.tasks, task);
}

// Either a driving clip or the videos that are made of one.
void check_driving(ModelKind kind, Task task, const Request& request) {
    if (!request.video.empty()) {
        for (const auto& [flag, path] : {std::pair("--pose-video", &request.pose_video),
                                         std::pair("--face-video", &request.face_video),
                                         std::pair("--background-video", &request.background_video),
                                         std::pair("--mask-video", &request.mask_video)}) {
            ZT_CHECK(path->empty(), bad_request,
                     "--video and {} were both given: the pose, face, background and mask videos "
                     "are made of --video, give it or them",
                     flag);
        }
        return;
    }
    ZT_CHECK(request.preprocessing_flag.empty(), bad_request,
             "{} says how a driving clip is looked at, and --video, the clip, is missing",
             request.preprocessing_flag);
    ZT_CHECK(!request.pose_video.empty() && !request.face_video.empty(), bad_request,
             "--video is missing, or --pose-video and --face-video in its place: this model takes "
             "{}",
             inputs_of(kind));
    ZT_CHECK(
        task != Task::replace || (!request.background_video.empty() && !request.mask_video.empty()),
        bad_request,
        "--background-video or --mask-video is missing: --task replace puts the character "
        "into a video");
}

void check_inputs(ModelKind kind, Task task, bool two_pictures, const Request& request) {
    for (const Input& input : inputs_given(request)) {
        ZT_CHECK(takes(kind, task, input), bad_request,
                 "{} is not for --task {}, which this run is: this model takes {}", input.flag,
                 name_of(task), inputs_of(kind));
    }
    const bool moved = is_driven(task);
    const bool picture_wanted = task == Task::i2v || task == Task::flf2v || moved;
    ZT_CHECK(!picture_wanted || !request.image.empty(), bad_request,
             "--image is missing: --task {} needs a picture; this model takes {}", name_of(task),
             inputs_of(kind));
    ZT_CHECK(task != Task::flf2v || !request.last_image.empty(), bad_request,
             "--last-image is missing: --task flf2v ends with a picture");
    ZT_CHECK(!two_pictures || task == Task::flf2v, bad_request,
             "--last-image is missing: this model was made for a first and a last picture");
    ZT_CHECK(task != Task::v2v || !request.video.empty(), bad_request,
             "--video is missing: --task v2v changes a video");
    ZT_CHECK(kind != ModelKind::control_channels || !request.video.empty(), bad_request,
             "--video is missing: this model takes {}", inputs_of(kind));
    if (moved) check_driving(kind, task, request);
    ZT_CHECK(task == Task::replace || request.mask_video.empty() || !request.video.empty(),
             bad_request,
             "--mask-video says which parts of --video are made anew, and --video is missing");
}

}  // namespace

bool wants_animation(const Request& request) {
    if (request.task != Task::automatic) return is_driven(request.task);
    const bool clip = !request.video.empty() && !request.image.empty();
    const bool prepared = !request.pose_video.empty() || !request.face_video.empty() ||
                          !request.background_video.empty();
    return clip || prepared || !request.preprocessing_flag.empty();
}

std::string_view inputs_of(ModelKind kind) {
    switch (kind) {
        case ModelKind::text: return "a prompt, and --video for video-to-video";
        case ModelKind::image: return "a prompt, --image and perhaps --last-image";
        case ModelKind::text_or_image:
            return "a prompt, and --image for image-to-video or --video for video-to-video";
        case ModelKind::control:
            return "a prompt, and --video, --mask-video and --reference-image as control";
        case ModelKind::control_channels: return "a prompt, a control --video and perhaps --image";
        case ModelKind::animate:
            return "a prompt, --image, and a driving --video (or --pose-video and --face-video, "
                   "and "
                   "to replace a person --background-video and --mask-video)";
    }
    return "";
}

Task resolve_task(ModelKind kind, bool two_pictures, const Request& request, int num_frames) {
    const Task wanted = request.task;
    const Task task =
        wanted == Task::automatic ? automatic_task(kind, request, num_frames) : wanted;
    ZT_CHECK(contains(tasks_of(kind), task), bad_request,
             "--task {} does not fit the model: this model takes {}", name_of(task),
             inputs_of(kind));
    check_inputs(kind, task, two_pictures, request);
    return task;
}

}  // namespace zoetrope
