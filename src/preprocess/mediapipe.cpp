#include "preprocess/mediapipe.h"

#include "base/error.h"
#include "preprocess/picture.h"

#include <cmath>
#include <numbers>

namespace zoetrope::preprocess {
namespace {

constexpr float kQuarterTurn = std::numbers::pi_v<float> / 2;
// How much larger than what they are made from the regions are (MediaPipe's graphs).
constexpr float kBodyMargin = 1.25F;
constexpr float kHandMargin = 2.7F;
constexpr float kFaceSearchMargin = 3.0F;
constexpr float kFaceMargin = 1.5F;
// How far a hand's region lies towards the finger tips, in shares of its side.
constexpr float kHandShift = 0.1F;

// The side of the network's input, which is [1, side, side, 3].
int side_of(const Network& network) {
    const auto& inputs = network.inputs();
    const bool fits = inputs.size() == 1 && inputs[0].shape.size() == 4 &&
                      inputs[0].shape[1] == inputs[0].shape[2] && inputs[0].shape[3] == 3;
    ZT_CHECK(fits, io, "{}: the input is no square picture [1, side, side, 3]",
             network.file().string());
    return static_cast<int>(inputs[0].shape[1]);
}

Network::Request run_on(Network& network, const Frame& picture, const Region& region, float low) {
    Network::Request request = network.request();
    const int side = side_of(network);
    sample_region(picture, region, {.width = side, .height = side, .low = low, .high = 1},
                  request.input());
    request.run();
    return request;
}

float distance(const Point& a, const Point& b) { return std::hypot(a.x - b.x, a.y - b.y); }

// The turn that brings the line from `from` to `to` upright.
float upright(const Point& from, const Point& to) {
    return std::atan2(to.y - from.y, to.x - from.x) + kQuarterTurn;
}

// The turn that brings the line from `left` to `right` (on the screen) level.
float level(const Point& left, const Point& right) {
    return std::atan2(right.y - left.y, right.x - left.x);
}

Region square(const Point& centre, float side, float angle) {
    return {centre.x, centre.y, side, side, angle};
}

Point in_picture(const Region& region, float u, float v, float score) {
    Point point = region.to_picture(u, v);
    point.score = score;
    return point;
}

}  // namespace

AnchorDetector::AnchorDetector(const std::filesystem::path& file, std::span<const int> strides,
                               std::size_t key_points, int threads)
    : network_(file, threads), side_(side_of(network_)), anchors_(make_anchors(side_, strides)) {
    const auto count = static_cast<std::int64_t>(anchors_.size());
    const auto width = static_cast<std::int64_t>(4 + 2 * key_points);
    regressions_ = network_.output_of_size(count * width, "boxes");
    scores_ = network_.output_of_size(count, "scores");
}

std::vector<Detection> AnchorDetector::find(const Frame& picture, const Region& region) const {
    const Network::Request request = run_on(network_, picture, region, -1);
    auto found = decode_detections({.regressions = request.output(regressions_),
                                    .logits = request.output(scores_),
                                    .input_side = side_},
                                   anchors_);
    for (Detection& one : found) {
        // A box stays upright in its region; around its centre in the picture it has the same size.
        const Point centre =
            region.to_picture((one.box.x0 + one.box.x1) / 2, (one.box.y0 + one.box.y1) / 2);
        const float half_width = one.box.width() * region.width / 2;
        const float half_height = one.box.height() * region.height / 2;
        one.box = {centre.x - half_width, centre.y - half_height, centre.x + half_width,
                   centre.y + half_height};
        for (Point& point : one.key_points) point = in_picture(region, point.x, point.y, one.score);
    }
    return found;
}

BodyNetwork::BodyNetwork(const std::filesystem::path& file, int threads) : network_(file, threads) {
    constexpr std::int64_t kPoints = 39;  // 33 of the body and 6 helpers, 5 numbers each
    const std::int64_t side = side_of(network_);
    points_ = network_.output_of_size(kPoints * 5, "points of the body");
    presence_ = network_.output_of_size(1, "presence of a person");
    mask_ = network_.output_of_size(side * side, "outline");
}

BodyPoints BodyNetwork::find(const Frame& picture, const Region& region, bool with_mask) const {
    const Network::Request request = run_on(network_, picture, region, 0);
    const int side = side_of(network_);
    const auto raw = request.output(points_);
    BodyPoints body;
    body.presence = request.output(presence_)[0];
    for (std::size_t i = 0; i < kMediaPipeBodyPoints; ++i) {
        const auto row = raw.subspan(i * 5, 5);  // x, y, depth, visibility, presence
        body.points[i] =
            in_picture(region, row[0] / static_cast<float>(side), row[1] / static_cast<float>(side),
                       std::min(sigmoid(row[3]), sigmoid(row[4])));
    }
    if (with_mask) {
        body.mask = {region, side, side};
        const auto logits = request.output(mask_);
        body.mask.alpha.reserve(logits.size());
        for (const float logit : logits) {
            body.mask.alpha.push_back(static_cast<std::uint8_t>(std::lrint(sigmoid(logit) * 255)));
        }
    }
    return body;
}

PointNetwork::PointNetwork(const std::filesystem::path& file, std::size_t points, Presence presence,
                           int threads)
    : network_(file, threads), count_(points), presence_kind_(presence) {
    // A hand's network has two outputs of each size: points in the picture and presence come first.
    const auto first = [this](std::int64_t elements, const char* what) {
        for (std::size_t i = 0; i < network_.outputs().size(); ++i) {
            if (network_.outputs()[i].elements() == elements) return i;
        }
        fail(ErrorKind::io, "{}: no output has {} numbers ({})", network_.file().string(), elements,
             what);
    };
    points_ = first(static_cast<std::int64_t>(points) * 3, "points");
    presence_ = first(1, "presence");
    side_of(network_);
}

std::vector<Point> PointNetwork::find(const Frame& picture, const Region& region) const {
    const Network::Request request = run_on(network_, picture, region, 0);
    const auto side = static_cast<float>(side_of(network_));
    const auto raw = request.output(points_);
    const float value = request.output(presence_)[0];
    const float score = presence_kind_ == Presence::logit ? sigmoid(value) : value;
    std::vector<Point> points;
    for (std::size_t i = 0; i < count_; ++i)
        points.push_back(in_picture(region, raw[i * 3] / side, raw[i * 3 + 1] / side, score));
    return points;
}

HandRegionNetwork::HandRegionNetwork(const std::filesystem::path& file, int threads)
    : network_(file, threads) {
    network_.output_of_size(4, "two points of a hand");
    side_of(network_);
}

Region HandRegionNetwork::find(const Frame& picture, const Region& region) const {
    const Network::Request request = run_on(network_, picture, region, 0);
    const auto raw = request.output(0);
    const auto side = static_cast<float>(side_of(network_));
    const Point centre = in_picture(region, raw[0] / side, raw[1] / side, 1);
    const Point edge = in_picture(region, raw[2] / side, raw[3] / side, 1);
    const float length = 2 * distance(centre, edge);
    // The edge lies on the side of the finger tips.
    Region hand = square(centre, length, upright(centre, edge));
    const Point shifted = hand.to_picture(0.5F, 0.5F - kHandShift);
    hand.x = shifted.x;
    hand.y = shifted.y;
    return hand;
}

Region whole_picture(const Frame& picture) {
    const auto width = static_cast<float>(picture.width);
    const auto height = static_cast<float>(picture.height);
    return square({(width - 1) / 2, (height - 1) / 2, 0}, std::max(width, height), 0);
}

Region body_region(const Detection& person) {
    const Point& hips = person.key_points.at(0);
    const Point& top = person.key_points.at(1);
    return square(hips, 2 * distance(hips, top) * kBodyMargin, upright(hips, top));
}

std::optional<Region> body_region(const WholeBody& points, float least_score) {
    const auto seen = [&](std::size_t i) { return points[i].score >= least_score; };
    const auto middle = [&](std::size_t a, std::size_t b) {
        return Point{(points[a].x + points[b].x) / 2, (points[a].y + points[b].y) / 2, 0};
    };
    if (!seen(5) || !seen(6)) return std::nullopt;
    const Point shoulders = middle(5, 6);
    // Hips that are not seen lie below the shoulders, at one and a half times their width.
    const bool hips_seen = seen(11) && seen(12);
    const float width = distance(points[5], points[6]);
    const Point hips =
        hips_seen ? middle(11, 12) : Point{shoulders.x, shoulders.y + 1.5F * width, 0};
    float radius = distance(hips, shoulders) + width;
    for (std::size_t i = 0; i < kFirstFacePoint; ++i) {
        if (seen(i)) radius = std::max(radius, distance(hips, points[i]));
    }
    return square(hips, 2 * radius * kBodyMargin, upright(hips, shoulders));
}

Region hand_region(const Point& wrist, const Point& little_finger, const Point& index_finger) {
    // About the root of the middle finger.
    const Point middle{(2 * index_finger.x + little_finger.x) / 3,
                       (2 * index_finger.y + little_finger.y) / 3, 0};
    return square(middle, 2 * distance(middle, wrist) * kHandMargin, upright(wrist, middle));
}

Region face_search_region(const std::array<Point, kMediaPipeBodyPoints>& body) {
    constexpr std::size_t kHeadPoints = 11;  // nose, eyes, ears, mouth
    constexpr std::size_t kLeftEye = 2;
    constexpr std::size_t kRightEye = 5;
    Box box{body[0].x, body[0].y, body[0].x, body[0].y};
    for (std::size_t i = 1; i < kHeadPoints; ++i) {
        box = {std::min(box.x0, body[i].x), std::min(box.y0, body[i].y),
               std::max(box.x1, body[i].x), std::max(box.y1, body[i].y)};
    }
    const float side = kFaceSearchMargin * std::max(box.width(), box.height());
    return square({(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, 0}, side,
                  level(body[kRightEye], body[kLeftEye]));
}

Region face_region(const Detection& face) {
    const Point centre{(face.box.x0 + face.box.x1) / 2, (face.box.y0 + face.box.y1) / 2, 0};
    return square(centre, kFaceMargin * std::max(face.box.width(), face.box.height()),
                  level(face.key_points.at(0), face.key_points.at(1)));
}

}  // namespace zoetrope::preprocess
