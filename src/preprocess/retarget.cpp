#include "preprocess/retarget.h"

#include <algorithm>
#include <cmath>

namespace zoetrope::preprocess {
namespace {

// Names of DrawnPose::body.
enum : std::size_t {
    kNose = 0,
    kNeck = 1,
    kRightShoulder = 2,
    kRightWrist = 4,
    kLeftShoulder = 5,
    kLeftWrist = 7,
    kRightHip = 8,
    kRightAnkle = 10,
    kLeftHip = 11,
    kLeftAnkle = 13,
    kRightEye = 14,
    kLeftEar = 17,
    kLeftToes = 18,
    kRightToes = 19,
};

struct Bone {
    std::uint8_t from;
    std::uint8_t to;
};

// From the neck outwards: a bone's beginning is placed before its end.
constexpr std::array<Bone, kBones> kSkeleton = {{{1, 2},
                                                 {1, 5},
                                                 {2, 3},
                                                 {3, 4},
                                                 {5, 6},
                                                 {6, 7},
                                                 {1, 8},
                                                 {8, 9},
                                                 {9, 10},
                                                 {1, 11},
                                                 {11, 12},
                                                 {12, 13},
                                                 {1, 0},
                                                 {0, 14},
                                                 {14, 16},
                                                 {0, 15},
                                                 {15, 17},
                                                 {13, 18},
                                                 {10, 19}}};

// Places in kSkeleton: both sides of the body get the longer one's ratio, both sides of the face
// the mean.
constexpr std::array<std::array<std::uint8_t, 2>, 7> kLimbPairs = {
    {{0, 1}, {2, 4}, {3, 5}, {6, 9}, {7, 10}, {8, 11}, {17, 18}}};
constexpr std::array<std::array<std::uint8_t, 2>, 2> kFacePairs = {{{13, 15}, {14, 16}}};
constexpr std::size_t kRightCalf = 8;
constexpr std::size_t kLeftCalf = 11;
constexpr std::size_t kLeftFoot = 17;
constexpr std::size_t kRightFoot = 18;

constexpr double kLongestFoot = 0.5;  // of the calf
constexpr float kSure = 0.5F;         // score of points by which people's heights are compared
constexpr float kPresent = 0.4F;      // score of points that are in the picture
constexpr double kUnknown = -1;       // a ratio

struct Place {
    double x = 0;
    double y = 0;
};

using Body = std::array<Place, kBodyPoints>;

double distance(const Place& a, const Place& b) { return std::hypot(a.x - b.x, a.y - b.y); }

// A skeleton with its picture's size, which changes as the picture is thought larger or smaller.
struct Figure {
    DrawnPose pose;
    double width = 0;
    double height = 0;
    Body places{};

    explicit Figure(const PosedPicture& picture)
        : pose(drawn_pose_of(picture.points)),
          width(picture.size.width),
          height(picture.size.height) {
        for (std::size_t i = 0; i < kBodyPoints; ++i) places[i] = {pose.body[i].x, pose.body[i].y};
    }

    void scale(double factor) {
        const double new_width = std::floor(width * factor);  // whole pixels, as the reference
        const double new_height = std::floor(height * factor);
        for (Place& place : places) {
            place.x *= new_width / width;
            place.y *= new_height / height;
        }
        width = new_width;
        height = new_height;
    }

    bool sure(std::initializer_list<std::size_t> points) const {
        return std::all_of(points.begin(), points.end(),
                           [this](std::size_t i) { return pose.body[i].score > kSure; });
    }

    bool inside(std::initializer_list<std::size_t> points) const {
        return std::all_of(points.begin(), points.end(), [this](std::size_t i) {
            return places[i].y <= height && pose.body[i].score >= kPresent;
        });
    }

    double below_nose(std::size_t a, std::size_t b) const {
        return std::abs((places[a].y + places[b].y) / 2 - places[kNose].y);
    }

    double bone(std::size_t i) const {
        return distance(places[kSkeleton[i].from], places[kSkeleton[i].to]);
    }
};

struct Comparison {
    double scale = 1;
    bool by_area = false;  // no points to compare people's heights by
};

// How much taller `a` is than `b`, in pixels.
Comparison compare(const Figure& a, const Figure& b) {
    for (const auto& [right, left] :
         {std::pair{kRightAnkle, kLeftAnkle}, std::pair{kRightHip, kLeftHip}}) {
        if (a.sure({kNose, right, left}) && b.sure({kNose, right, left})) {
            const double scale = a.below_nose(right, left) / b.below_nose(right, left);
            if (std::isfinite(scale) && scale > 0) return {scale, false};
        }
    }
    return {std::sqrt(a.height * a.width) / std::sqrt(b.height * b.width), true};
}

// How much larger the head or the shoulders are than in an edited picture, which may have changed
// them.
double size_ratio(const Figure& figure, const Figure& edited) {
    const auto head = [](const Figure& f) {
        double least = f.places[kNose].x;
        double most = least;
        for (std::size_t i = kRightEye; i <= kLeftEar; ++i) {
            least = std::min(least, f.places[i].x);
            most = std::max(most, f.places[i].x);
        }
        return (most - least) / f.width;
    };
    const auto shoulders = [](const Figure& f) {
        return distance(f.places[kLeftShoulder], f.places[kRightShoulder]);
    };
    const double ratio =
        std::max(head(figure) / head(edited), shoulders(figure) / shoulders(edited));
    return std::isfinite(ratio) ? ratio : 1;
}

// Each bone in its own direction with the given length, from where the neck is.
Body placed(const Body& places, const std::array<double, kBones>& lengths) {
    Body out = places;
    for (std::size_t i = 0; i < kBones; ++i) {
        const auto [from, to] = kSkeleton[i];
        const double length = distance(places[from], places[to]);
        const double share = length > 0 ? lengths[i] / length : 0;
        out[to] = {out[from].x + (places[to].x - places[from].x) * share,
                   out[from].y + (places[to].y - places[from].y) * share};
    }
    return out;
}

void even_out(std::array<double, kBones>& ratios) {
    for (double& ratio : ratios) {
        if (ratio == kUnknown && ratios[0] != kUnknown && ratios[1] != kUnknown)
            ratio = (ratios[0] + ratios[1]) / 2;
    }
    for (const auto& [a, b] : kLimbPairs) ratios[a] = ratios[b] = std::max(ratios[a], ratios[b]);
    for (const auto& [a, b] : kFacePairs) ratios[a] = ratios[b] = (ratios[a] + ratios[b]) / 2;
    for (double& ratio : ratios) {
        if (ratio < 0) ratio = 1;
    }
}

using Hand = std::array<Point, kHandPoints>;

// The hand grown by `ratio` about its root, which is put at `wrist`; points in whole pixels.
Hand moved(const Hand& hand, double ratio, const Place& wrist) {
    Hand out{};
    if (hand[0].score < kPresent) return out;
    for (std::size_t i = 0; i < kHandPoints; ++i) {
        if (hand[i].score < kPresent) continue;
        out[i] = {static_cast<float>(std::trunc(wrist.x + (hand[i].x - hand[0].x) * ratio)),
                  static_cast<float>(std::trunc(wrist.y + (hand[i].y - hand[0].y) * ratio)),
                  hand[i].score};
    }
    return out;
}

}  // namespace

Retargeter::Retargeter(const PosedPicture& first, const PosedPicture& character,
                       const std::optional<PosedPicture>& edited) {
    const Figure source(first);
    Figure target(character);
    scale_ = compare(source, target).scale;
    Figure measured = target;
    double measured_ratio = 1;
    if (edited) {
        measured = Figure(*edited);
        const Comparison comparison = compare(source, measured);
        if (comparison.by_area) measured_ratio = size_ratio(target, measured);
        measured.scale(comparison.scale);
    }
    target.scale(scale_);
    if (!edited) measured = target;
    for (std::size_t i = 0; i < kBones; ++i) {
        const double length = source.bone(i);
        ratios_[i] = length > 0 ? measured.bone(i) * measured_ratio / length : kUnknown;
    }
    even_out(ratios_);

    std::array<double, kBones> lengths{};
    for (std::size_t i = 0; i < kBones; ++i) lengths[i] = source.bone(i) * ratios_[i];
    const Body fitted = placed(source.places, lengths);
    const std::initializer_list<std::size_t> whole = {kRightAnkle, kLeftAnkle, kRightHip, kLeftHip};
    if (source.inside(whole) && target.inside(whole)) {  // stands on the same ground
        const auto& t = target.places;
        const double ground = std::max((t[kRightAnkle].y + t[kRightToes].y) / 2,
                                       (t[kLeftAnkle].y + t[kLeftToes].y) / 2);
        shift_y_ = std::max(fitted[kRightAnkle].y, fitted[kLeftAnkle].y) - ground;
        shift_x_ =
            (fitted[kRightHip].x + fitted[kLeftHip].x) / 2 - (t[kRightHip].x + t[kLeftHip].x) / 2;
    } else {
        shift_x_ = fitted[kNeck].x - target.places[kNeck].x;
        shift_y_ = fitted[kNeck].y - target.places[kNeck].y;
    }
}

DrawnPose Retargeter::fit(const WholeBody& points) const {
    const DrawnPose pose = drawn_pose_of(points);
    Body places{};
    for (std::size_t i = 0; i < kBodyPoints; ++i) places[i] = {pose.body[i].x, pose.body[i].y};
    std::array<double, kBones> lengths{};
    for (std::size_t i = 0; i < kBones; ++i)
        lengths[i] = distance(places[kSkeleton[i].from], places[kSkeleton[i].to]) * ratios_[i];
    lengths[kRightFoot] = std::min(lengths[kRightFoot], lengths[kRightCalf] * kLongestFoot);
    lengths[kLeftFoot] = std::min(lengths[kLeftFoot], lengths[kLeftCalf] * kLongestFoot);
    Body fitted = placed(places, lengths);
    DrawnPose out;
    for (std::size_t i = 0; i < kBodyPoints; ++i) {
        fitted[i] = {(fitted[i].x - shift_x_) / scale_, (fitted[i].y - shift_y_) / scale_};
        out.body[i] = {static_cast<float>(fitted[i].x), static_cast<float>(fitted[i].y),
                       pose.body[i].score};
    }
    const double hand_ratio = std::max(ratios_[0], ratios_[1]) / scale_;
    // Hands that were found at the other wrist change places.
    const auto root = [](const Hand& hand) { return Place{hand[0].x, hand[0].y}; };
    const Hand& right = pose.right_hand;
    const Hand& left = pose.left_hand;
    const bool crossed =
        right[0].score >= kPresent &&
        distance(places[kRightWrist], root(right)) > distance(places[kLeftWrist], root(right));
    // The reference draws the right hand first.
    out.left_hand = moved(crossed ? left : right, hand_ratio, fitted[kRightWrist]);
    out.right_hand = moved(crossed ? right : left, hand_ratio, fitted[kLeftWrist]);
    return out;
}

}  // namespace zoetrope::preprocess
