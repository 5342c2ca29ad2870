#include "preprocess/anchors.h"

#include "base/error.h"

#include <cmath>

namespace zoetrope::preprocess {
namespace {

constexpr int kAnchorsPerLayer = 2;
constexpr float kSameObject = 0.3F;  // overlap above which two detections are one

Detection decode(std::span<const float> row, const Anchor& anchor, float side, float score) {
    const float x = row[0] / side + anchor.x;
    const float y = row[1] / side + anchor.y;
    const float half_width = row[2] / side / 2;
    const float half_height = row[3] / side / 2;
    Detection found{{x - half_width, y - half_height, x + half_width, y + half_height}, score};
    for (std::size_t i = 4; i + 1 < row.size(); i += 2)
        found.key_points.push_back({row[i] / side + anchor.x, row[i + 1] / side + anchor.y, score});
    return found;
}

// The mean of detections, weighted by their scores; the score is the first one's.
Detection mean_of(std::span<const Detection> group) {
    Detection mean = group.front();
    float total = 0;
    for (const Detection& one : group) total += one.score;
    const auto average = [&](auto&& value_of) {
        float sum = 0;
        for (const Detection& one : group) sum += one.score * value_of(one);
        return sum / total;
    };
    mean.box = {average([](const Detection& d) { return d.box.x0; }),
                average([](const Detection& d) { return d.box.y0; }),
                average([](const Detection& d) { return d.box.x1; }),
                average([](const Detection& d) { return d.box.y1; })};
    for (std::size_t i = 0; i < mean.key_points.size(); ++i) {
        mean.key_points[i].x = average([i](const Detection& d) { return d.key_points[i].x; });
        mean.key_points[i].y = average([i](const Detection& d) { return d.key_points[i].y; });
    }
    return mean;
}

}  // namespace

float sigmoid(float logit) { return 1.0F / (1.0F + std::exp(-std::clamp(logit, -100.0F, 100.0F))); }

std::vector<Anchor> make_anchors(int input_side, std::span<const int> strides) {
    std::vector<Anchor> anchors;
    for (std::size_t i = 0; i < strides.size();) {
        int per_cell = 0;
        const int stride = strides[i];
        for (; i < strides.size() && strides[i] == stride; ++i) per_cell += kAnchorsPerLayer;
        const int cells = (input_side + stride - 1) / stride;
        for (int y = 0; y < cells; ++y) {
            for (int x = 0; x < cells; ++x) {
                const auto centre = [cells](int k) {
                    return (static_cast<float>(k) + 0.5F) / static_cast<float>(cells);
                };
                anchors.insert(anchors.end(), static_cast<std::size_t>(per_cell),
                               {centre(x), centre(y)});
            }
        }
    }
    return anchors;
}

std::vector<Detection> decode_detections(const DetectorOutput& output,
                                         std::span<const Anchor> anchors) {
    ZT_CHECK(
        output.logits.size() == anchors.size() && output.regressions.size() % anchors.size() == 0,
        internal, "a detector with {} scores and {} numbers for {} anchors", output.logits.size(),
        output.regressions.size(), anchors.size());
    const std::size_t width = output.regressions.size() / anchors.size();
    std::vector<Detection> found;
    for (std::size_t i = 0; i < anchors.size(); ++i) {
        const float score = sigmoid(output.logits[i]);
        if (!(score >= output.least_score)) continue;
        found.push_back(decode(output.regressions.subspan(i * width, width), anchors[i],
                               static_cast<float>(output.input_side), score));
    }
    std::stable_sort(found.begin(), found.end(),
                     [](const Detection& a, const Detection& b) { return a.score > b.score; });
    std::vector<Detection> kept;
    while (!found.empty()) {
        const Box best = found.front().box;
        const auto others = std::stable_partition(
            found.begin() + 1, found.end(),
            [&best](const Detection& d) { return overlap_of(best, d.box) > kSameObject; });
        kept.push_back(mean_of({found.begin(), others}));
        found.erase(found.begin(), others);
    }
    return kept;
}

}  // namespace zoetrope::preprocess
