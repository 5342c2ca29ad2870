// People's outlines by a network of the user's.
#include "base/error.h"
#include "preprocess/estimator.h"
#include "preprocess/network.h"
#include "preprocess/picture.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

namespace zoetrope::preprocess {
namespace {

constexpr std::int64_t kOpenSide = 512;  // pixels: of networks that take any size
constexpr float kMargin = 1.2F;          // sides of what the network sees over the person's box
constexpr float kSeen = 0.3F;            // score from which a point is part of the person
constexpr int kVocClasses = 21;
constexpr int kVocPerson = 15;
constexpr std::array<float, 3> kMean = {0.485F, 0.456F, 0.406F};  // ImageNet's, RGB
constexpr std::array<float, 3> kDeviation = {0.229F, 0.224F, 0.225F};

float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

// Where the numbers of an output [channels, height, width] or [height, width, channels] lie.
struct Planes {
    std::size_t output = 0;
    int channels = 0, width = 0, height = 0;
    std::size_t channel_step = 0, pixel_step = 0;
};

class SegmentedEstimator : public PersonEstimator {
public:
    SegmentedEstimator(std::unique_ptr<PersonEstimator> people, const std::filesystem::path& file,
                       int threads)
        : people_(std::move(people)), network_(file, threads, {1, 3, kOpenSide, kOpenSide}) {
        read_input();
        planes_ = find_planes();
    }

    std::vector<Person> find(const Frame& picture) const override {
        std::vector<Person> people = people_->find(picture);
        for (Person& person : people) person.mask = outline_of(picture, person);
        return people;
    }

private:
    [[noreturn]] void refuse(const char* what) const {
        fail(ErrorKind::io,
             "{}: this is no segmenter: {}; an input [1, 3, height, width] and an output of 1 "
             "(people), 2 "
             "(not, person) or 21 (PASCAL VOC) channels are wanted",
             network_.file().string(), what);
    }

    void read_input() {
        if (network_.inputs().size() != 1) refuse("it has several inputs");
        const auto& shape = network_.inputs()[0].shape;
        if (shape.size() != 4 || shape[0] != 1) refuse("its input is no picture");
        channels_first_ = shape[1] == 3;
        if (!channels_first_ && shape[3] != 3) refuse("its input is no picture of 3 channels");
        height_ = static_cast<int>(shape[channels_first_ ? 2 : 1]);
        width_ = static_cast<int>(shape[channels_first_ ? 3 : 2]);
    }

    static bool known(std::int64_t channels) {
        return channels == 1 || channels == 2 || channels == kVocClasses;
    }

    // The first output that is a picture of a known number of channels.
    Planes find_planes() const {
        for (std::size_t i = 0; i < network_.outputs().size(); ++i) {
            std::vector<std::int64_t> shape = network_.outputs()[i].shape;
            if (shape.size() > 2 && shape.front() == 1) shape.erase(shape.begin());
            if (shape.size() == 2) shape.insert(shape.begin(), 1);
            if (shape.size() != 3) continue;
            const bool first = known(shape[0]) && shape[1] > 1 && shape[2] > 1;
            if (!first && !(known(shape[2]) && shape[0] > 1 && shape[1] > 1)) continue;
            Planes planes{.output = i,
                          .channels = static_cast<int>(shape[first ? 0 : 2]),
                          .width = static_cast<int>(shape[first ? 2 : 1]),
                          .height = static_cast<int>(shape[first ? 1 : 0])};
            const auto pixels =
                static_cast<std::size_t>(planes.width) * static_cast<std::size_t>(planes.height);
            planes.channel_step = first ? pixels : 1;
            planes.pixel_step = first ? 1 : static_cast<std::size_t>(planes.channels);
            return planes;
        }
        refuse("it has no output of such a shape");
    }

    // The person with its surroundings, in the proportions of the network's input.
    Region region_of(const Person& person) const {
        Box box = person.box;
        if (const auto points = box_around(person.points, kSeen)) {
            box = {std::min(box.x0, points->x0), std::min(box.y0, points->y0),
                   std::max(box.x1, points->x1), std::max(box.y1, points->y1)};
        }
        const float aspect = static_cast<float>(width_) / static_cast<float>(height_);
        const float height =
            std::max({kMargin * box.height(), kMargin * box.width() / aspect, 1.0F});
        return {(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, height * aspect, height, 0};
    }

    PersonMask outline_of(const Frame& picture, const Person& person) const {
        const Region region = region_of(person);
        Network::Request request = network_.request();
        fill(picture, region, request.input());
        request.run();
        PersonMask mask{region, planes_.width, planes_.height};
        mask.alpha = alpha_of(request.output(planes_.output));
        return mask;
    }

    void fill(const Frame& picture, const Region& region, std::span<float> input) const {
        std::vector<float> pixels(input.size());
        sample_region(picture, region, {.width = width_, .height = height_}, pixels);
        const std::size_t plane = pixels.size() / 3;
        for (std::size_t i = 0; i < plane; ++i) {
            for (std::size_t c = 0; c < 3; ++c)
                input[channels_first_ ? c * plane + i : i * 3 + c] =
                    (pixels[i * 3 + c] - kMean[c]) / kDeviation[c];
        }
    }

    std::vector<std::uint8_t> alpha_of(std::span<const float> scores) const {
        const std::size_t pixels = scores.size() / static_cast<std::size_t>(planes_.channels);
        const bool logits = std::any_of(scores.begin(), scores.end(),
                                        [](float score) { return score < 0 || score > 1; });
        std::vector<std::uint8_t> alpha(pixels);
        for (std::size_t i = 0; i < pixels; ++i) {
            const float* at = scores.data() + i * planes_.pixel_step;
            float inside = 0;
            if (planes_.channels == 1) {
                inside = logits ? sigmoid(*at) : *at;
            } else {
                const std::size_t person = planes_.channels == 2 ? 1 : kVocPerson;
                float best = -std::numeric_limits<float>::infinity();  // of the others
                for (std::size_t c = 0; c < static_cast<std::size_t>(planes_.channels); ++c)
                    if (c != person) best = std::max(best, at[c * planes_.channel_step]);
                inside = sigmoid(at[person * planes_.channel_step] - best);
            }
            // What is no number is outside.
            alpha[i] = inside > 0
                           ? static_cast<std::uint8_t>(std::lrint(255 * std::min(inside, 1.0F)))
                           : std::uint8_t{0};
        }
        return alpha;
    }

    std::unique_ptr<PersonEstimator> people_;
    mutable Network network_;
    bool channels_first_ = true;
    int width_ = 0, height_ = 0;  // of the input
    Planes planes_;
};

}  // namespace

std::unique_ptr<PersonEstimator> make_segmented_estimator(std::unique_ptr<PersonEstimator> people,
                                                          const std::filesystem::path& segmenter,
                                                          int threads) {
    return std::make_unique<SegmentedEstimator>(std::move(people), segmenter, threads);
}

}  // namespace zoetrope::preprocess
