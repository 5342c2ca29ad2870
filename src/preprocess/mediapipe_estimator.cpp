// People by MediaPipe's networks: body, then hands and face from the body's points.
#include "base/error.h"
#include "preprocess/estimator.h"
#include "preprocess/mediapipe.h"
#include "preprocess/picture.h"

#include <future>

namespace zoetrope::preprocess {
namespace {

constexpr int kBodyStrides[] = {8, 16, 32, 32, 32};
constexpr int kFaceStrides[] = {8, 16, 16, 16};
constexpr std::size_t kBodyKeyPoints = 4;
constexpr std::size_t kFaceKeyPoints = 6;
constexpr float kLeastPresence = 0.5F;  // of a body, a hand, a face
// Detection times presence from which a person is believed at once. Of 1,000 frames of 20 clips and
// pictures what is nobody (cars, bicycles, a bus from above) had 0.64 at most; of the clips with
// somebody every one had frames of 0.67 and more, most of them of 0.8.
constexpr float kSure = 0.75F;
constexpr float kLeastWristScore = 0.1F;     // below, no hand is looked for
constexpr float kSamePerson = 0.5F;          // overlap of two people's points
constexpr float kPointCounts = 0.5F;         // score from which a point is part of a person's box
constexpr float kLargestRegionShare = 4.0F;  // of the picture's longer side: no region is larger

// The networks, each read and compiled by a thread of its own: a second and a half for one.
struct Loading {
    Loading(const std::filesystem::path& folder, int threads)
        : people(begin<AnchorDetector>(threads, folder / "pose_detection.tflite",
                                       std::span(kBodyStrides), kBodyKeyPoints)),
          body(begin<BodyNetwork>(threads, folder / "pose_landmark_full.tflite")),
          hand_regions(begin<HandRegionNetwork>(threads, folder / "hand_recrop.tflite")),
          hands(begin<PointNetwork>(threads, folder / "hand_landmark_full.tflite", kHandPoints,
                                    PointNetwork::Presence::probability)),
          faces(begin<AnchorDetector>(threads, folder / "face_detection_short_range.tflite",
                                      std::span(kFaceStrides), kFaceKeyPoints)),
          face(begin<PointNetwork>(threads, folder / "face_landmark.tflite", kMediaPipeFacePoints,
                                   PointNetwork::Presence::logit)) {}

    template <typename Made, typename... Arguments>
    static std::future<Made> begin(int threads, Arguments... arguments) {
        return std::async(threads > 1 ? std::launch::async : std::launch::deferred,
                          [=] { return Made(arguments..., threads); });
    }

    std::future<AnchorDetector> people;
    std::future<BodyNetwork> body;
    std::future<HandRegionNetwork> hand_regions;
    std::future<PointNetwork> hands;
    std::future<AnchorDetector> faces;
    std::future<PointNetwork> face;
};

class MediaPipeEstimator : public PersonEstimator {
public:
    MediaPipeEstimator(Loading loading, bool masks)
        : people_(loading.people.get()),
          body_(loading.body.get()),
          hand_regions_(loading.hand_regions.get()),
          hands_(loading.hands.get()),
          faces_(loading.faces.get()),
          face_(loading.face.get()),
          masks_(masks) {}

    std::vector<Person> find(const Frame& picture) const override {
        std::vector<Person> people;
        for (const Detection& detection : people_.find(picture, whole_picture(picture))) {
            if (people.size() == kMostPeople) break;
            const Region region = body_region(detection);
            if (!usable(region, picture)) continue;
            BodyPoints body = body_.find(picture, region, masks_);
            if (!(body.presence > kLeastPresence)) continue;
            Person person = person_of(body, detection.score);
            person.sure = detection.score * body.presence >= kSure;
            const bool twice = std::any_of(people.begin(), people.end(), [&](const Person& other) {
                return overlap_of(other.box, person.box) > kSamePerson;
            });
            if (twice) continue;
            add_hands(picture, body, person);
            add_face(picture, body, person);
            person.mask = std::move(body.mask);
            people.push_back(std::move(person));
        }
        std::stable_sort(people.begin(), people.end(), [](const Person& a, const Person& b) {
            return a.box.area() > b.box.area();
        });
        return people;
    }

private:
    static bool usable(const Region& region, const Frame& picture) {
        const auto side = static_cast<float>(std::max(picture.width, picture.height));
        return region.width >= 1 && region.width <= kLargestRegionShare * side;
    }

    static Person person_of(const BodyPoints& body, float score) {
        Person person;
        person.score = score;
        for (std::size_t i = 0; i < kFirstFacePoint; ++i)
            person.points[i] = body.points[kBodyFromMediaPipe[i]];
        const auto box = box_around(person.points, kPointCounts);
        if (box) person.box = *box;
        return person;
    }

    void add_hands(const Frame& picture, const BodyPoints& body, Person& person) const {
        struct Side {
            std::size_t wrist, little_finger, index_finger, first_point;
        };
        for (const Side& side :
             {Side{15, 17, 19, kFirstLeftHandPoint}, Side{16, 18, 20, kFirstRightHandPoint}}) {
            const Point& wrist = body.points[side.wrist];
            if (wrist.score < kLeastWristScore) continue;
            const Region guess =
                hand_region(wrist, body.points[side.little_finger], body.points[side.index_finger]);
            if (!usable(guess, picture)) continue;
            const Region region = hand_regions_.find(picture, guess);
            if (!usable(region, picture)) continue;
            const auto points = hands_.find(picture, region);
            if (points.front().score < kLeastPresence) continue;
            std::copy(points.begin(), points.end(),
                      person.points.begin() + static_cast<std::ptrdiff_t>(side.first_point));
        }
    }

    void add_face(const Frame& picture, const BodyPoints& body, Person& person) const {
        const Region search = face_search_region(body.points);
        if (!usable(search, picture)) return;
        const auto found = faces_.find(picture, search);
        if (found.empty()) return;
        const Region region = face_region(found.front());
        if (!usable(region, picture)) return;
        const auto points = face_.find(picture, region);
        if (points.front().score < kLeastPresence) return;
        for (std::size_t i = 0; i < kFacePoints; ++i)
            person.points[kFirstFacePoint + i] = points[kFaceFromMediaPipe[i]];
    }

    AnchorDetector people_;
    BodyNetwork body_;
    HandRegionNetwork hand_regions_;
    PointNetwork hands_;
    AnchorDetector faces_;
    PointNetwork face_;
    bool masks_;
};

}  // namespace

std::unique_ptr<PersonEstimator> make_mediapipe_estimator(const std::filesystem::path& folder,
                                                          const EstimatorOptions& options) {
    return std::make_unique<MediaPipeEstimator>(Loading(folder, options.threads), options.masks);
}

std::vector<std::filesystem::path> mediapipe_files(const std::filesystem::path& folder) {
    std::vector<std::filesystem::path> files;
    for (const char* name :
         {"pose_detection.tflite", "pose_landmark_full.tflite", "hand_recrop.tflite",
          "hand_landmark_full.tflite", "face_detection_short_range.tflite", "face_landmark.tflite"})
        files.push_back(folder / name);
    return files;
}

}  // namespace zoetrope::preprocess
