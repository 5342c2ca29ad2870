// MediaPipe's networks for one person, each with the region of the picture that it wants.
//
// Inside preprocess. After Bazarevsky et al., BlazePose (2020), Zhang et al., MediaPipe Hands
// (2020), and Kartynnik et al., Real-time Facial Surface Geometry (2019). Objects own their
// networks; calls are safe from as many threads as they were made for.
#pragma once

#include "base/frames.h"
#include "preprocess/anchors.h"
#include "preprocess/network.h"
#include "preprocess/whole_body_table.h"

#include <array>
#include <filesystem>
#include <optional>
#include <vector>

namespace zoetrope::preprocess {

// A detector whose people (or faces) carry key points in pixels of the picture.
class AnchorDetector {
public:
    AnchorDetector(const std::filesystem::path& file, std::span<const int> strides,
                   std::size_t key_points, int threads);

    // Looks at a square region of the picture.
    std::vector<Detection> find(const Frame& picture, const Region& region) const;
    const Network& network() const { return network_; }

private:
    mutable Network network_;
    int side_ = 0;
    std::vector<Anchor> anchors_;
    std::size_t regressions_ = 0;  // outputs of the network
    std::size_t scores_ = 0;
};

struct BodyPoints {
    float presence = 0;                                // that there is a person in the region
    std::array<Point, kMediaPipeBodyPoints> points{};  // score: the lesser of seen and present
    PersonMask mask{};                                 // empty unless it was asked for
};

class BodyNetwork {
public:
    BodyNetwork(const std::filesystem::path& file, int threads);
    BodyPoints find(const Frame& picture, const Region& region, bool with_mask) const;
    const Network& network() const { return network_; }

private:
    mutable Network network_;
    std::size_t points_ = 0;
    std::size_t presence_ = 0;
    std::size_t mask_ = 0;
};

// Points of a hand or a face; score: presence of the whole.
class PointNetwork {
public:
    enum class Presence { probability, logit };
    PointNetwork(const std::filesystem::path& file, std::size_t points, Presence presence,
                 int threads);
    std::vector<Point> find(const Frame& picture, const Region& region) const;
    const Network& network() const { return network_; }

private:
    mutable Network network_;
    std::size_t count_;
    Presence presence_kind_;
    std::size_t points_ = 0;
    std::size_t presence_ = 0;
};

// Finds the hand's region from one that the body's points suggest.
class HandRegionNetwork {
public:
    HandRegionNetwork(const std::filesystem::path& file, int threads);
    Region find(const Frame& picture, const Region& region) const;
    const Network& network() const { return network_; }

private:
    mutable Network network_;
};

// The whole picture in a square.
Region whole_picture(const Frame& picture);

// The square around a person, upright along the line from the hips to the top of the circle around
// the body; key points as the pose detector has them.
Region body_region(const Detection& person);

// The same from the points of a skeleton that another network found.
std::optional<Region> body_region(const WholeBody& points, float least_score);

// The squares in which a hand and a face are looked for, from the body's points.
Region hand_region(const Point& wrist, const Point& little_finger, const Point& index_finger);
Region face_search_region(const std::array<Point, kMediaPipeBodyPoints>& body);

// The square that the face network wants, from the face detector's box and eyes.
Region face_region(const Detection& face);

}  // namespace zoetrope::preprocess
