// People in one picture: boxes, whole-body points and, where wanted, outlines.
//
// An estimator owns its networks; find() may be called by as many threads at once as it was made
// for. Two exist: MediaPipe's small networks, which come with the program, and the YOLOv10 and
// ViTPose networks of a Wan-Animate checkpoint's process_checkpoint folder; a segmenter may draw
// the outlines of either. Errors: not_found, io, unsupported.
#pragma once

#include "base/frames.h"
#include "preprocess/skeleton.h"

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace zoetrope::preprocess {

// More people than these are not looked at closely: the larger ones stay.
inline constexpr std::size_t kMostPeople = 3;

struct EstimatorOptions {
    int threads = 1;
    bool masks = false;
};

class PersonEstimator {
public:
    virtual ~PersonEstimator() = default;

    // The largest first, at most kMostPeople. A person whose points the networks do not trust is
    // left out.
    virtual std::vector<Person> find(const Frame& picture) const = 0;
};

// folder: pose_detection.tflite, pose_landmark_full.tflite, hand_recrop.tflite,
// hand_landmark_full.tflite, face_detection_short_range.tflite and face_landmark.tflite.
std::unique_ptr<PersonEstimator> make_mediapipe_estimator(const std::filesystem::path& folder,
                                                          const EstimatorOptions& options);

// masks_from: the MediaPipe folder, whose pose network gives the outlines; empty: no masks.
std::unique_ptr<PersonEstimator> make_onnx_estimator(const std::filesystem::path& detector,
                                                     const std::filesystem::path& pose,
                                                     const std::filesystem::path& masks_from,
                                                     const EstimatorOptions& options);

// The people of another estimator with outlines by an ONNX network. Its input is a picture [1, 3,
// height, width] (or [1, height, width, 3]): the surroundings of one person, RGB, normalised by
// ImageNet's means and deviations. The first output of one to three dimensions beside the batch
// says where people are: one channel of probabilities or logits, two of scores (not, person), or
// the 21 of PASCAL VOC.
std::unique_ptr<PersonEstimator> make_segmented_estimator(std::unique_ptr<PersonEstimator> people,
                                                          const std::filesystem::path& segmenter,
                                                          int threads);

// The files of MediaPipe's networks in their folder.
std::vector<std::filesystem::path> mediapipe_files(const std::filesystem::path& folder);

}  // namespace zoetrope::preprocess
