// Which of MediaPipe's points stands for which of COCO-WholeBody's.
//
// Constant data. Of the body, MediaPipe has 33 points; of the face 468; of a hand the same 21 in
// the same order. It has no small toe: the foot's tip stands for both toes.
#pragma once

#include "preprocess/skeleton.h"

#include <array>
#include <cstdint>

namespace zoetrope::preprocess {

inline constexpr std::size_t kMediaPipeBodyPoints = 33;
inline constexpr std::size_t kMediaPipeFacePoints = 468;

// COCO-WholeBody 0 to 22 (body and feet) -> MediaPipe's body.
inline constexpr std::array<std::uint8_t, kFirstFacePoint> kBodyFromMediaPipe = {
    0,                       // nose
    2,  5,  7,  8,           // eyes, ears, left first
    11, 12, 13, 14, 15, 16,  // shoulders, elbows, wrists
    23, 24, 25, 26, 27, 28,  // hips, knees, ankles
    31, 31, 29,              // left big toe, small toe, heel
    32, 32, 30,              // right
};

// The 68 points of a face (Sagonas et al., 300-W, 2013) -> MediaPipe's face mesh.
inline constexpr std::array<std::uint16_t, kFacePoints> kFaceFromMediaPipe = {
    162, 234, 93,  58,  172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,  // jaw
    71,  63,  105, 66,  107,                                     // right eyebrow
    336, 296, 334, 293, 301,                                     // left eyebrow
    168, 197, 5,   4,   98,  97,  2,   326, 327,                 // nose
    33,  160, 158, 133, 153, 144,                                // right eye
    362, 385, 387, 263, 373, 380,                                // left eye
    61,  39,  37,  0,   267, 269, 291, 405, 314, 17,  84,  181,  // outer lips
    78,  82,  13,  312, 308, 317, 14,  87,                       // inner lips
};

}  // namespace zoetrope::preprocess
