// Poses with another person's proportions: the bones of the clip's person made as long as the
// character's, standing where the character stands.
//
// As the Wan2.2 repository does it: ratios of bone lengths between the first frame and the
// character's picture, both sides alike; directions of bones kept. Immutable after construction,
// any thread.
#pragma once

#include "preprocess/picture.h"
#include "preprocess/skeleton.h"

#include <array>
#include <optional>

namespace zoetrope::preprocess {

inline constexpr std::size_t kBones = 19;

struct PosedPicture {
    WholeBody points{};
    Size size;  // of the picture that the points are in
};

class Retargeter {
public:
    // first: the clip's first frame; character: the reference picture; edited: the same character
    // in another pose, whose bones are measured instead.
    Retargeter(const PosedPicture& first, const PosedPicture& character,
               const std::optional<PosedPicture>& edited = std::nullopt);

    // The pose of one frame of the clip, in pixels of the character's picture.
    DrawnPose fit(const WholeBody& points) const;

private:
    std::array<double, kBones> ratios_{};
    double scale_ = 1;  // of the clip's person to the character
    double shift_x_ = 0;
    double shift_y_ = 0;
};

}  // namespace zoetrope::preprocess
