// People by YOLOv10 and ViTPose.
#include "base/error.h"
#include "preprocess/estimator.h"
#include "preprocess/mediapipe.h"
#include "preprocess/picture.h"
#include "preprocess/vitpose.h"

namespace zoetrope::preprocess {
namespace {

constexpr float kSeen = 0.3F;  // score from which a point says where the body is
constexpr float kSure = 0.5F;  // score from which a detected person is believed at once

class OnnxEstimator : public PersonEstimator {
public:
    OnnxEstimator(const std::filesystem::path& detector, const std::filesystem::path& pose,
                  const std::filesystem::path& masks_from, const EstimatorOptions& options)
        : detector_(detector, options.threads, {1, 3, 640, 640}),
          pose_(pose, options.threads, {1, 3, 256, 192}) {
        check_detector();
        check_pose();
        if (options.masks && !masks_from.empty())
            outlines_.emplace(masks_from / "pose_landmark_full.tflite", options.threads);
    }

    std::vector<Person> find(const Frame& picture) const override {
        std::vector<Person> people;
        for (const DetectedBox& found : boxes_of(picture)) {
            Person person;
            person.box = found.box;
            person.score = found.score;
            person.sure = found.score >= kSure;
            find_points(picture, person);
            if (outlines_) {
                if (const auto region = body_region(person.points, kSeen))
                    person.mask = outlines_->find(picture, *region, true).mask;
            }
            people.push_back(std::move(person));
        }
        return people;
    }

private:
    void check_detector() {
        const bool fits =
            detector_.inputs().size() == 1 && detector_.inputs()[0].shape.size() == 4 &&
            detector_.inputs()[0].shape[1] == 3 &&
            detector_.inputs()[0].shape[2] == detector_.inputs()[0].shape[3] &&
            detector_.outputs().size() == 1 && detector_.outputs()[0].shape.size() == 3 &&
            detector_.outputs()[0].shape[2] == 6;
        ZT_CHECK(fits, io,
                 "{}: this is no YOLOv10 detector: one input [1, 3, side, side] and one output [1, "
                 "n, 6] "
                 "(box, score, class) are wanted",
                 detector_.file().string());
    }

    void check_pose() {
        const bool fits =
            pose_.inputs().size() == 1 && pose_.inputs()[0].shape.size() == 4 &&
            pose_.inputs()[0].shape[1] == 3 && !pose_.outputs().empty() &&
            pose_.outputs()[0].shape.size() == 4 &&
            pose_.outputs()[0].shape[1] == static_cast<std::int64_t>(kWholeBodyPoints);
        ZT_CHECK(fits, io,
                 "{}: this is no whole-body pose network: one input [1, 3, height, width] and heat "
                 "maps [1, 133, height, width] are wanted",
                 pose_.file().string());
    }

    std::vector<DetectedBox> boxes_of(const Frame& picture) const {
        const auto side = static_cast<int>(detector_.inputs()[0].shape[2]);
        const Frame stretched = resize_linear(picture, side, side);
        Network::Request request = detector_.request();
        const auto input = request.input();
        const std::size_t plane = input.size() / 3;
        for (std::size_t i = 0; i < plane; ++i) {
            for (std::size_t c = 0; c < 3; ++c)
                input[c * plane + i] = static_cast<float>(stretched.rgb[i * 3 + c]) / 255.0F;
        }
        request.run();
        return people_of({.rows = request.output(0),
                          .input_side = side,
                          .picture_width = picture.width,
                          .picture_height = picture.height});
    }

    void find_points(const Frame& picture, Person& person) const {
        constexpr float kSmallest = 10;  // pixels: smaller boxes stand for the whole picture
        const Box whole{0, 0, static_cast<float>(picture.width),
                        static_cast<float>(picture.height)};
        const bool small = person.box.width() < kSmallest || person.box.height() < kSmallest;
        const auto& in = pose_.inputs()[0].shape;
        const auto& out = pose_.outputs()[0].shape;
        const auto width = static_cast<int>(in[3]);
        const auto height = static_cast<int>(in[2]);
        const PoseCrop crop = pose_crop(small ? whole : person.box, width, height);
        Network::Request request = pose_.request();
        sample_crop(picture, crop, width, height, request.input());
        request.run();
        points_of(request.output(0), static_cast<int>(out[3]), static_cast<int>(out[2]), crop,
                  person.points);
    }

    mutable Network detector_;
    mutable Network pose_;
    std::optional<BodyNetwork> outlines_;
};

}  // namespace

std::unique_ptr<PersonEstimator> make_onnx_estimator(const std::filesystem::path& detector,
                                                     const std::filesystem::path& pose,
                                                     const std::filesystem::path& masks_from,
                                                     const EstimatorOptions& options) {
    return std::make_unique<OnnxEstimator>(detector, pose, masks_from, options);
}

}  // namespace zoetrope::preprocess
