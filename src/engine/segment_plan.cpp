// How a run is cut into segments: plan's numbers with what segments cost here (segment_cost.cpp).
#include "base/error.h"
#include "engine/driving_clip.h"
#include "engine/parts.h"
#include "preprocess/identity.h"

#include <algorithm>
#include <functional>
#include <optional>

namespace zoetrope {
namespace {

bool segments_asked(const Request& request) {
    return request.segment_policy || request.segment_length || request.segment_max_length ||
           request.segment_overlap;
}

// First frames of new shots (preprocess/identity.h), kLeastFramesPerShot apart.
std::vector<int> find_cuts(const std::function<preprocess::ColorShares(int)>& shares_of,
                           int num_frames) {
    std::vector<int> cuts;
    std::optional<preprocess::ColorShares> before;
    int last = 0;
    for (int i = 0; i < num_frames; ++i) {
        const auto shares = shares_of(i);
        const bool far =
            i - last >= plan::kLeastFramesPerShot && num_frames - i >= plan::kLeastFramesPerShot;
        if (before && far && preprocess::is_cut(*before, shares)) {
            cuts.push_back(i);
            last = i;
        }
        before = shares;
    }
    return cuts;
}

std::vector<int> cuts_of(const ResolvedRequest& resolved) {
    if (resolved.clip) {
        const auto colors = resolved.clip->colors();
        const int known = std::min(resolved.num_frames, static_cast<int>(colors.size()));
        return find_cuts([&](int i) { return colors[static_cast<std::size_t>(i)]; }, known);
    }
    const VisualInputs& inputs = resolved.inputs;
    const FrameSequence& video = inputs.background.empty() ? inputs.face : inputs.background;
    return find_cuts([&](int i) { return preprocess::color_shares_of(video.at(i)); },
                     resolved.num_frames);
}

plan::SegmentPlan one_window(int num_frames) {
    plan::SegmentPlan plan;
    plan.num_frames = plan.generated_frames = plan.denoised_frames = num_frames;
    plan.segments = {{.length = num_frames}};
    plan.shots = {{.generated_frames = num_frames, .source_frames = num_frames}};
    return plan;
}

// Throws unless the flags of segments and joins go with the task.
void check_flags(const Request& request, Task task) {
    const bool driven = is_driven(task);
    const bool continues = task == Task::t2v || task == Task::t2i || task == Task::i2v;
    const bool asked = segments_asked(request) && request.segment_policy != "off";
    ZT_CHECK(driven || continues || !asked, unsupported,
             "--task {} runs in one window: segments are for t2v, i2v, animate and replace",
             name_of(task));
    const char* join = request.carry            ? "--carry"
                       : request.overlap_fusion ? "--overlap-fusion"
                       : request.color_match    ? "--color-match"
                                                : nullptr;
    ZT_CHECK(driven || asked || join == nullptr, bad_request,
             "{} says how segments are joined, and --task {} runs in one window: give "
             "--segment-length too",
             join == nullptr ? "" : join, name_of(task));
    ZT_CHECK(!request.color_match || request.carry != Carry::latents, bad_request,
             "--color-match and --carry latents were both given: matched colours do not reach the "
             "latents that a segment goes on from, so that they run away; --color-match goes with "
             "--carry pixels, leave one of the two out");
    ZT_CHECK(driven || !request.cut_policy, bad_request,
             "--cut-policy is about scene changes of a driving video, which --task {} has not",
             name_of(task));
}

// Frames that segments share where nobody says how many. Models that are told of no frames make
// ghosts behind 1 or 5 (docs/guide.md): as many as the segments are long enough for.
int default_overlap(ModelKind kind, int length) {
    if (kind != ModelKind::text) return 1;
    for (const int overlap : {9, 5}) {
        if (length >= overlap + 4) return overlap;
    }
    return 1;
}

// What an embedded model says of its segments, where the user says nothing.
Request with_own_segments(Request request, const std::optional<EmbeddedInfo>& embedded) {
    if (!embedded) return request;
    const bool cut_otherwise = request.segment_policy || request.segment_max_length;
    if (!request.segment_overlap) request.segment_overlap = embedded->number("segment_overlap");
    if (!request.segment_length && !cut_otherwise)
        request.segment_length = embedded->number("segment_length");
    if (!request.segment_length && !request.segment_max_length)
        request.segment_max_length = embedded->number("segment_max_length");
    return request;
}

// What a model makes at a time, where nobody says it.
struct Window {
    int frames = 81;
    bool longest = true;  // no segment is longer; else costs decide
};

plan::SegmentRequest segment_request(const ResolvedRequest& resolved, const Request& request,
                                     ModelKind kind, const Window& window) {
    const bool driven = is_driven(resolved.task);
    plan::SegmentRequest wanted{.num_frames = resolved.num_frames};
    wanted.policy = request.segment_policy   ? plan::parse_segment_policy(*request.segment_policy)
                    : request.segment_length ? plan::SegmentPolicy::vanilla
                    : driven || segments_asked(request) ? plan::SegmentPolicy::exact
                                                        : plan::SegmentPolicy::off;
    const int shortest =
        request.segment_length.value_or(request.segment_max_length.value_or(window.frames));
    wanted.overlap = request.segment_overlap.value_or(default_overlap(kind, shortest));
    wanted.length = request.segment_length;
    const int least = wanted.overlap + 4;  // frames: what a segment of that overlap has
    const int own = std::max(plan::round_down(window.frames), least);
    const int longest = window.longest ? own : wanted.max_length;
    wanted.max_length =
        request.segment_max_length.value_or(std::max(longest, request.segment_length.value_or(0)));
    if (driven) {
        if (request.cut_policy) wanted.cut_policy = plan::parse_cut_policy(*request.cut_policy);
        wanted.cuts = resolved.cuts;
        return wanted;
    }
    if (wanted.policy == plan::SegmentPolicy::vanilla && !wanted.length) wanted.length = own;
    // A video that fits into a window is one, and no longer than it is.
    if (wanted.length && *wanted.length >= resolved.num_frames) {
        wanted.policy = plan::SegmentPolicy::off;
        wanted.length.reset();
    }
    return wanted;
}

}  // namespace

void Engine::Parts::plan_segments(ResolvedRequest& resolved, int window) const {
    const Request& request = resolved.request;
    check_flags(request, resolved.task);
    resolved.joins = {.carry = request.carry.value_or(Carry::pixels),
                      .fusion = request.overlap_fusion.value_or(OverlapFusion::last),
                      .color_match = request.color_match};
    // Pictures' channels and CLIP are made of frames even where latents are carried.
    const bool of_frames = resolved.joins.carry == Carry::pixels ||
                           (kind() != ModelKind::text && kind() != ModelKind::text_or_image);
    resolved.decode_behind =
        !of_frames && request.decode_behind.value_or(vae_compute.device != dit_compute.device);
    if (request.cut_policy) {
        resolved.cuts = cuts_of(resolved);
    }
    const Cost cost = cost_model(resolved.warnings);
    const plan::Workload workload = workload_of(resolved);
    const auto seconds = [&](int length) {
        return plan::predict_seconds(cost.model, plan::work_of(workload, length));
    };
    const plan::SegmentRequest wanted = segment_request(
        resolved, with_own_segments(request, model.embedded), kind(),
        {.frames = window, .longest = !is_driven(resolved.task) || model.embedded.has_value()});
    const bool whole = wanted.policy == plan::SegmentPolicy::off && !is_driven(resolved.task);
    const auto& earlier = request.earlier_segments;
    resolved.segments = earlier && earlier->num_frames == resolved.num_frames ? *earlier
                        : whole ? one_window(resolved.num_frames)
                                : plan::plan_segments(wanted, seconds);
    plan::SegmentPlan& plan = resolved.segments;
    resolved.warnings.insert(resolved.warnings.end(), plan.warnings.begin(), plan.warnings.end());
    if (plan.dropped_frames > 0) {
        resolved.warnings.push_back(
            fmt::format("the last {} frames {} are left out", plan.dropped_frames,
                        is_driven(resolved.task) ? "of the driving video" : "that were asked for"));
        resolved.num_frames -= plan.dropped_frames;
    }
    const bool several = plan.segments.size() > 1;
    resolved.decode_behind = resolved.decode_behind && several;
    ZT_CHECK(!several || vae_config.scale_factor_temporal == 4, unsupported,
             "this model's VAE has {} frames to a latent frame: segments are for those of 4",
             vae_config.scale_factor_temporal);
    ZT_CHECK(request.num_outputs == 1 || (!several && !is_driven(resolved.task)), unsupported,
             "--num-outputs {} with --task {}{}: one video at a time runs today",
             request.num_outputs, name_of(resolved.task), several ? " in segments" : "");
    ZT_CHECK(!several || is_driven(resolved.task) || request.output_type != OutputType::latent,
             bad_request,
             "--output-type latent of a video in {} segments: each segment's latents begin anew; "
             "video and tensor are accepted",
             plan.segments.size());
    resolved.cost_source = cost.source;
    for (const plan::Segment& segment : plan.segments)
        resolved.segment_seconds.push_back(seconds(segment.length));
}

}  // namespace zoetrope
