// preprocess without networks: drawing, retargeting, masks, frame rates, identities, the pipeline.
#include "base/json.h"
#include "errors.h"
#include "media/reader.h"
#include "preprocess/cache.h"
#include "preprocess/canvas.h"
#include "preprocess/face_box.h"
#include "preprocess/frame_rate.h"
#include "preprocess/identity.h"
#include "preprocess/mask.h"
#include "preprocess/picture.h"
#include "preprocess/pipeline.h"
#include "preprocess/pose_drawing.h"
#include "preprocess/retarget.h"
#include "preprocess/vitpose.h"
#include "scratch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <numbers>
#include <thread>

namespace zoetrope::preprocess {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::FloatEq;
using testing::HasSubstr;

const fs::path kDrawing = fs::path(ZT_SOURCE_DIR) / "tests" / "golden" / "preprocess_drawing";

template <std::size_t n>
std::array<Point, n> points_of_json(const nlohmann::json& rows) {
    std::array<Point, n> points{};
    EXPECT_EQ(rows.size(), n);
    for (std::size_t i = 0; i < n; ++i)
        points[i] = {rows[i][0].get<float>(), rows[i][1].get<float>(), rows[i][2].get<float>()};
    return points;
}

// What the Wan2.2 repository's drawer, run with OpenCV 4.14, made of the same points.
TEST(PoseDrawing, EqualsTheReferencePixelForPixel) {
    const auto cases = read_json(kDrawing / "cases.json");
    ASSERT_EQ(cases["drawing"].size(), 5U);
    for (const auto& one : cases["drawing"]) {
        DrawnPose pose;
        pose.body = points_of_json<kBodyPoints>(one["body"]);
        pose.left_hand = points_of_json<kHandPoints>(one["lhand"]);
        pose.right_hand = points_of_json<kHandPoints>(one["rhand"]);
        Frame drawn(one["width"], one["height"]);
        draw_pose(drawn, pose);
        const Frame wanted = read_picture(kDrawing / one["picture"].get<std::string>());
        ASSERT_EQ(wanted.rgb.size(), drawn.rgb.size());
        int different = 0;
        int largest = 0;
        for (std::size_t i = 0; i < drawn.rgb.size(); ++i) {
            const int difference = std::abs(drawn.rgb[i] - wanted.rgb[i]);
            different += difference > 0 ? 1 : 0;
            largest = std::max(largest, difference);
        }
        EXPECT_EQ(different, 0) << one["picture"] << ": by at most " << largest;
    }
}

TEST(PoseDrawing, SurvivesPointsThatAreNoPlaces) {
    DrawnPose pose;
    const std::array<float, 6> odd = {NAN, INFINITY, -1e30F, 1e9F, -5, 70};
    for (std::size_t i = 0; i < kBodyPoints; ++i) pose.body[i] = {odd[i % 6], odd[(i + 1) % 6], 1};
    for (std::size_t i = 0; i < kHandPoints; ++i) {
        pose.left_hand[i] = {odd[i % 6], odd[(i + 2) % 6], 1};
        pose.right_hand[i] = {9e5F, -9e5F + static_cast<float>(i) * 1e5F, 1};
    }
    Frame picture(64, 48);
    draw_pose(picture, pose);
    pose.body.fill({1, 1, NAN});
    Frame empty(64, 48);
    draw_pose(empty, pose);
    EXPECT_EQ(empty.rgb[(64 + 1) * 3], 0);  // a score that is no number is none
}

// One frame of the clip by the repository's retarget_pose.py. The files' points are multiples of
// 1/64, sums are taken in double on both sides.
TEST(Retarget, EqualsTheReference) {
    const auto cases = read_json(kDrawing / "cases.json");
    ASSERT_EQ(cases["retarget"].size(), 3U);
    for (const auto& one : cases["retarget"]) {
        const Size clip{one["clip"][0], one["clip"][1]};
        const Size picture{one["character_size"][0], one["character_size"][1]};
        const auto body = [&](const char* key) {
            return points_of_json<kWholeBodyPoints>(one[key]);
        };
        std::optional<PosedPicture> edited;
        if (!one["edited"].is_null()) edited = PosedPicture{body("edited"), picture};
        const Retargeter retargeter({body("first"), clip}, {body("character"), picture}, edited);
        const DrawnPose pose = retargeter.fit(body("frame"));
        std::vector<Point> found(pose.body.begin(), pose.body.end());
        found.insert(found.end(), pose.left_hand.begin(), pose.left_hand.end());
        found.insert(found.end(), pose.right_hand.begin(), pose.right_hand.end());
        const auto wanted = points_of_json<kBodyPoints + 2 * kHandPoints>(one["expected"]);
        for (std::size_t i = 0; i < wanted.size(); ++i) {
            EXPECT_NEAR(found[i].score, wanted[i].score, 1e-5) << i;
            if (wanted[i].score == 0) continue;
            // Hands are cut to whole pixels there: 1 where the cut falls the other way.
            const double tolerance = i < kBodyPoints ? 0.01 : 1.001;
            EXPECT_NEAR(found[i].x, wanted[i].x, tolerance) << i;
            EXPECT_NEAR(found[i].y, wanted[i].y, tolerance) << i;
        }
    }
}

Mask mask_from(const std::vector<std::string>& rows) {
    Mask mask(static_cast<int>(rows[0].size()), static_cast<int>(rows.size()));
    for (std::size_t i = 0; i < mask.inside.size(); ++i)
        mask.inside[i] = rows[i / rows[0].size()][i % rows[0].size()] == '#' ? 1 : 0;
    return mask;
}

TEST(Masks, GrowAndFillBlocks) {
    // cv2.dilate with a square of 2 reaches one pixel to the right and below, twice: two.
    const Mask grown = augmented(mask_from({".....", ".#...", ".....", ".....", "....."}),
                                 {.kernel = 2, .iterations = 2, .columns = 100, .rows = 100});
    EXPECT_EQ(grown.inside, mask_from({".....", ".###.", ".###.", ".###.", "....."}).inside);
    // One block: the whole box but its last row and column, which stay as they were.
    const Mask box = augmented(mask_from({"#....", ".....", "...#.", ".....", "....."}),
                               {.kernel = 1, .iterations = 1});
    EXPECT_EQ(box.inside, mask_from({"###..", "###..", "...#.", ".....", "....."}).inside);
    const Mask untouched = augmented(box, {.iterations = 0});
    EXPECT_EQ(untouched.inside, box.inside);
    const Mask nothing = augmented(Mask(4, 4), {});
    EXPECT_EQ(nothing.inside, Mask(4, 4).inside);
    const auto [kind, message] = error_of([] { augmented(Mask(4, 4), {.columns = 0}); });
    EXPECT_EQ(kind, ErrorKind::bad_request) << message;
}

TEST(Masks, BlankTheFrameAndTurnWithTheRegion) {
    PersonMask outline{
        {.x = 3.5F, .y = 3.5F, .width = 4, .height = 4, .angle = 0}, 2, 2, {255, 0, 0, 0}};
    const Mask mask = mask_of(outline, 8, 8);
    EXPECT_EQ(mask.inside[2 * 8 + 2], 1);
    EXPECT_EQ(mask.inside[2 * 8 + 5], 0);
    outline.region.angle = std::numbers::pi_v<float> / 2;  // a quarter turn clockwise
    const Mask turned = mask_of(outline, 8, 8);
    EXPECT_EQ(turned.inside[2 * 8 + 5], 1);
    EXPECT_EQ(turned.inside[2 * 8 + 2], 0);
    Frame frame(8, 8);
    std::fill(frame.rgb.begin(), frame.rgb.end(), 9);
    const Frame cut = blanked(frame, mask);
    EXPECT_EQ(cut.rgb[(2 * 8 + 2) * 3], 0);
    EXPECT_EQ(cut.rgb[(2 * 8 + 5) * 3], 9);
    EXPECT_EQ(frame_of(mask).rgb[(2 * 8 + 2) * 3 + 1], 255);
}

// resize_by_area of the repository for these sizes.
TEST(Pictures, SizesByAreaAreTheReferences) {
    EXPECT_EQ(size_by_area({1920, 1080}, 1280 * 720), (Size{1280, 720}));
    EXPECT_EQ(size_by_area({1080, 1920}, 1280 * 720), (Size{720, 1280}));
    EXPECT_EQ(size_by_area({350, 350}, 1280 * 720), (Size{960, 960}));
    EXPECT_EQ(size_by_area({176, 144}, 480 * 832), (Size{688, 560}));
    EXPECT_EQ(size_by_area({640, 272}, 320 * 240), (Size{416, 176}));
    EXPECT_EQ(size_by_area({3, 4000}, 64 * 64), (Size{16, 2336}));
}

// cv2.resize of OpenCV 4.14 of the picture v(x, y, c) = (x * 37 + y * 91 + c * 50) % 256, 5x4 ->
// 7x3 (INTER_LINEAR) and 5x4 -> 3x2 (INTER_AREA).
Frame pattern() {
    Frame frame(5, 4);
    for (int y = 0; y < 4; ++y) {
        for (int x = 0; x < 5; ++x) {
            for (int c = 0; c < 3; ++c)
                frame.rgb[static_cast<std::size_t>((y * 5 + x) * 3 + c)] =
                    static_cast<std::uint8_t>((x * 37 + y * 91 + c * 50) % 256);
        }
    }
    return frame;
}

TEST(Pictures, ResizeAsOpenCv) {
    const Frame linear = resize_linear(pattern(), 7, 3);
    EXPECT_THAT(linear.rgb,
                testing::ElementsAreArray(std::vector<int>{
                    15,  65,  115, 36,  86,  136, 63,  113, 150, 89,  139, 146, 115, 165, 173, 142,
                    174, 199, 163, 170, 220, 137, 187, 109, 158, 134, 130, 147, 106, 119, 83,  133,
                    55,  109, 159, 81,  135, 130, 107, 157, 79,  129, 44,  94,  102, 66,  91,  123,
                    80,  99,  149, 76,  126, 176, 102, 152, 202, 129, 179, 137, 150, 200, 36}));
    const Frame area = resize_area(pattern(), 3, 2);
    EXPECT_THAT(area.rgb, testing::ElementsAreArray(std::vector<int>{60, 110, 160, 120, 170, 117,
                                                                     179, 152, 151, 114, 113, 86,
                                                                     71, 96, 146, 105, 155, 128}));
}

TEST(Pictures, PadToTheMiddle) {
    Frame white(4, 2);
    std::fill(white.rgb.begin(), white.rgb.end(), 255);
    const Frame padded = padded_resize(white, 8, 8);
    EXPECT_EQ(padded.rgb[0], 0);
    EXPECT_EQ(padded.rgb[8 * 2 * 3], 255);
    EXPECT_EQ(padded.rgb[8 * 6 * 3], 0);
    EXPECT_EQ(cropped(padded, 1, 2, 3, 5).rgb, std::vector<std::uint8_t>(2 * 3 * 3, 255));
}

std::vector<int> sampled(const std::vector<double>& seconds, double source_fps, double fps) {
    std::size_t next = 0;
    FrameSampler sampler(
        [&]() -> std::optional<TimedFrame> {
            if (next == seconds.size()) return std::nullopt;
            TimedFrame frame{Frame(1, 1), seconds[next]};
            frame.frame.rgb[0] = static_cast<std::uint8_t>(next++);
            return frame;
        },
        source_fps, fps);
    std::vector<int> frames;
    while (const auto frame = sampler.next()) frames.push_back(frame->rgb[0]);
    return frames;
}

std::vector<double> even_times(int count, double fps) {
    std::vector<double> seconds;
    for (int i = 0; i < count; ++i) seconds.push_back(i / fps);
    return seconds;
}

// np.round(np.arange(n) / fps * source_fps), n = int(count / source_fps * fps).
TEST(FrameRate, TakesTheNearestFrame) {
    EXPECT_THAT(sampled(even_times(5, 25), 25, 30), ElementsAre(0, 1, 2, 2, 3, 4));
    EXPECT_THAT(sampled(even_times(8, 24), 24, 16), ElementsAre(0, 2, 3, 4, 6));
    EXPECT_THAT(sampled(even_times(5, 60), 60, 30), ElementsAre(0, 2));
    EXPECT_THAT(sampled(even_times(6, 10), 10, 20),
                ElementsAre(0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 5, 5));
    EXPECT_EQ(sampled(even_times(120, 29.97), 29.97, 30).size(), 120U);
    EXPECT_EQ(sampled(even_times(100, 30), 30, 30).size(), 100U);
}

TEST(FrameRate, FollowsTimesWhereTheRateVaries) {
    EXPECT_THAT(sampled({0, 0.1, 0.5, 0.6}, 10, 10), ElementsAre(0, 1, 1, 2, 2, 2, 3));
    EXPECT_THAT(sampled({0, 0.1, 0.5}, 10, 0), ElementsAre(0, 1, 2));  // 0: as they come
    EXPECT_THAT(sampled({0}, 0, 16), ElementsAre(0));                  // a picture
    EXPECT_THAT(sampled({}, 25, 16), testing::IsEmpty());
}

Person person_at(float x, float y = 50, float side = 20) {
    Person person;
    person.box = {x - side / 2, y - side / 2, x + side / 2, y + side / 2};
    for (std::size_t i = 0; i < kWholeBodyPoints; ++i)
        person.points[i] = {x + static_cast<float>(i % 7), y + static_cast<float>(i % 11), 1};
    return person;
}

// A bright disc on grey, on the left or the right: the same colours in other places.
Frame disc(int x) {
    Frame frame(160, 90);
    for (int row = 0; row < 90; ++row) {
        for (int column = 0; column < 160; ++column) {
            const bool inside = std::hypot(row - 45, column - x) < 40;
            std::fill_n(frame.rgb.begin() + (row * 160 + column) * 3, 3, inside ? 250 : 60);
        }
    }
    return frame;
}

TEST(Cuts, AreWhereColoursOrTheirPlacesChange) {
    const auto cut = [](const Frame& before, const Frame& after) {
        return is_cut(color_shares_of(before), color_shares_of(after));
    };
    EXPECT_FALSE(cut(disc(45), disc(45)));
    EXPECT_FALSE(cut(disc(45), disc(55)));  // a movement
    EXPECT_TRUE(cut(disc(45), disc(115)));
    Frame red(160, 90), blue(160, 90);  // as bright as each other
    for (std::size_t i = 0; i < red.rgb.size(); i += 3) red.rgb[i] = blue.rgb[i + 2] = 200;
    EXPECT_TRUE(cut(red, blue));
    EXPECT_FALSE(cut(Frame(1, 1), Frame(1, 1)));
    EXPECT_FALSE(cut(Frame(), Frame()));
}

FrameAnalysis frame_with(std::vector<Person> people, int colors = 0) {
    FrameAnalysis analysis{std::move(people), {}, 200, 100};
    analysis.colors.shares[static_cast<std::size_t>(colors)] = 1;
    return analysis;
}

// x of the followed person in every frame; -1: nobody.
std::vector<float> followed(const std::vector<FrameAnalysis>& frames, PersonChoice choice,
                            BadFrames bad = BadFrames::hold) {
    IdentityJoiner joiner(choice, bad, 4);
    std::vector<float> x;
    const auto drain = [&] {
        while (static_cast<std::int64_t>(x.size()) < joiner.ready()) {
            const JoinedFrame frame = joiner.take();
            EXPECT_EQ(frame.frame, static_cast<std::int64_t>(x.size()));
            x.push_back(frame.person ? (frame.person->box.x0 + frame.person->box.x1) / 2 : -1);
        }
    };
    for (const auto& frame : frames) {
        joiner.push(frame);
        drain();
    }
    joiner.end();
    drain();
    return x;
}

TEST(Identity, FollowsOnePersonPastOthers) {
    std::vector<FrameAnalysis> frames;
    for (int i = 0; i < 20; ++i) {
        // One walks to the right, the other to the left; the detector's order changes.
        const Person a = person_at(30 + 6.0F * static_cast<float>(i), 40);
        const Person b = person_at(150 - 6.0F * static_cast<float>(i), 75);
        frames.push_back(i % 2 == 0 ? frame_with({a, b}) : frame_with({b, a}));
    }
    const auto first = followed(frames, {.kind = PersonChoice::Kind::nth, .nth = 1});
    const auto second = followed(frames, {.kind = PersonChoice::Kind::nth, .nth = 2});
    for (std::size_t i = 0; i < 20; ++i) {
        EXPECT_FLOAT_EQ(first[i], 30 + 6.0F * static_cast<float>(i));
        EXPECT_FLOAT_EQ(second[i], 150 - 6.0F * static_cast<float>(i));
    }
    EXPECT_FLOAT_EQ(followed({frame_with({person_at(20), person_at(110)})},
                             {.kind = PersonChoice::Kind::center})[0],
                    110);
}

TEST(Identity, FillsBadFrames) {
    const std::vector<FrameAnalysis> frames = {frame_with({}), frame_with({person_at(40)}),
                                               frame_with({}), frame_with({person_at(160)}),
                                               frame_with({person_at(48)})};
    EXPECT_THAT(followed(frames, {}), ElementsAre(40, 40, 40, 40, 48));
    EXPECT_THAT(followed(frames, {}, BadFrames::interpolate),
                ElementsAre(40, 40, FloatEq(40 + 8.0F / 3), FloatEq(40 + 16.0F / 3), 48));
    const auto [kind, message] = error_of([&] { followed(frames, {}, BadFrames::stop); });
    EXPECT_EQ(kind, ErrorKind::bad_request);
    EXPECT_THAT(message, HasSubstr("frame 0"));
    EXPECT_THAT(followed({frame_with({}), frame_with({})}, {}), ElementsAre(-1, -1));
}

TEST(Identity, ChoosesAnewAfterACut) {
    const std::vector<FrameAnalysis> frames = {frame_with({person_at(40)}),
                                               frame_with({person_at(160)}, 5),
                                               frame_with({person_at(161)}, 5)};
    EXPECT_THAT(followed(frames, {}), ElementsAre(40, 160, 161));
    // And after somebody has not been seen for a second (4 frames here).
    std::vector<FrameAnalysis> lost(9, frame_with({person_at(160)}));
    lost[0] = frame_with({person_at(20)});
    EXPECT_THAT(followed(lost, {}), ElementsAre(20, 20, 20, 20, 20, 160, 160, 160, 160));
}

TEST(Identity, CarriesNothingOverACut) {
    const std::vector<FrameAnalysis> frames = {frame_with({person_at(40)}),
                                               frame_with({}),
                                               frame_with({}, 5),
                                               frame_with({}, 5),
                                               frame_with({}, 9),
                                               frame_with({}, 9),
                                               frame_with({person_at(160)}, 9),
                                               frame_with({}, 9)};
    EXPECT_THAT(followed(frames, {}), ElementsAre(40, 40, -1, -1, 160, 160, 160, 160));
    EXPECT_THAT(followed(frames, {}, BadFrames::interpolate),
                ElementsAre(40, 40, -1, -1, 160, 160, 160, 160));
    // Nor beyond a second (4 frames here).
    std::vector<FrameAnalysis> gone(7, frame_with({}));
    gone[0] = frame_with({person_at(40)});
    EXPECT_THAT(followed(gone, {}), ElementsAre(40, 40, 40, 40, 40, -1, -1));
}

Person unsure_at(float x) {
    Person person = person_at(x);
    person.sure = false;
    return person;
}

TEST(Identity, BelievesUnsureOnesOnlyWhereTheyGoOn) {
    // Here and there, for three frames at most: nobody.
    std::vector<FrameAnalysis> frames(20, frame_with({}));
    for (const std::size_t i : {0U, 4U, 5U, 6U, 11U, 19U}) frames[i] = frame_with({unsure_at(40)});
    EXPECT_THAT(followed(frames, {}), testing::Each(-1));
    const auto [kind, message] = error_of([&] { followed(frames, {}, BadFrames::stop); });
    EXPECT_EQ(kind, ErrorKind::bad_request);
    EXPECT_THAT(message, HasSubstr("nobody for sure"));
    // Beside frames that are sure, before and after, with a frame missing between: the same person.
    frames.assign(10, frame_with({}));
    for (const std::size_t i : {1U, 2U, 4U, 6U})
        frames[i] = frame_with({unsure_at(40 + static_cast<float>(i))});
    frames[5] = frame_with({person_at(45), unsure_at(160)});
    EXPECT_THAT(followed(frames, {}), ElementsAre(41, 41, 42, 42, 44, 45, 46, 46, 46, 46));
    // Again and again: somebody, from the first of these frames.
    frames.assign(14, frame_with({unsure_at(160)}));
    frames[0] = frame_with({});
    frames[1] = frame_with({unsure_at(40)});
    EXPECT_THAT(followed(frames, {}), testing::Each(160));
    // In most frames of a shot that is too short for that, until a cut or the end.
    frames.assign(5, frame_with({unsure_at(40)}));
    frames.push_back(frame_with({unsure_at(80)}, 5));
    EXPECT_THAT(followed(frames, {}), ElementsAre(40, 40, 40, 40, 40, 80));
    frames[1] = frame_with({});
    EXPECT_THAT(followed(frames, {}), ElementsAre(40, 40, 40, 40, 40, 80));
    frames[2] = frames[4] = frame_with({});
    EXPECT_THAT(followed(frames, {}), ElementsAre(-1, -1, -1, -1, -1, 80));
}

TEST(Identity, RefusesOtherWords) {
    EXPECT_EQ(parse_person_choice("3").nth, 3);
    for (const char* word : {"", "0", "-1", "tallest", "1x"})
        EXPECT_EQ(error_of([&] { parse_person_choice(word); }).first, ErrorKind::bad_request);
    EXPECT_EQ(error_of([] { parse_bad_frames("skip"); }).first, ErrorKind::bad_request);
}

TEST(FaceBox, IsTheReferences) {
    WholeBody points{};
    for (std::size_t i = 0; i < kFacePoints; ++i)
        points[kFirstFacePoint + i] = {i % 2 == 0 ? 100.0F : 140.0F, i % 3 == 0 ? 50.0F : 100.0F,
                                       1};
    const auto box = face_box_of(points);
    ASSERT_TRUE(box);
    // get_face_bboxes(scale=1.3): sides grow by sqrt(1.3), three quarters of the height above.
    EXPECT_NEAR(box->x0, 97.196, 1e-3);
    EXPECT_NEAR(box->x1, 142.804, 1e-3);
    EXPECT_NEAR(box->y0, 44.743, 1e-3);
    EXPECT_NEAR(box->y1, 101.752, 1e-3);
    EXPECT_FALSE(face_box_of(WholeBody{}));
    const std::array<std::optional<Box>, 3> boxes = {Box{0, 0, 10, 10}, std::nullopt,
                                                     Box{4, 4, 14, 14}};
    EXPECT_NEAR(smoothed(boxes, 0)->x0, 1, 1e-6);  // weights 1 and 1/3
    EXPECT_FALSE(smoothed(std::span(boxes).subspan(1, 1), 0));
}

TEST(Detector, KeepsThePeopleThatCount) {
    const std::vector<float> rows = {10, 4,    50, 60, 0.9F,  0,  // kept
                                     11, 5,    52, 61, 0.8F,  0,  // the first again
                                     2,  2,    6,  8,  0.7F,  0,  // too small beside it
                                     0,  0,    64, 64, 0.9F,  2,  // a car
                                     20, 2,    40, 30, 0.6F,  0,  // kept
                                     0,  0,    60, 60, 0.01F, 0,  NAN, 0,    60,
                                     60, 0.9F, 0,  30, 30,    20, 20,  0.9F, 0};
    const auto people = people_of({rows, 64, 128, 64});
    ASSERT_EQ(people.size(), 2U);
    EXPECT_EQ(people[0].box.x0, 20);
    EXPECT_EQ(people[0].box.x1, 100);
    EXPECT_EQ(people[1].box.y1, 30);
}

// Items end in order although the middle stage takes longer for some; stages in order see them in
// order; the numbers under way are bounded.
TEST(Pipeline, KeepsTheOrder) {
    for (const int threads : {1, 2, 5}) {
        constexpr std::size_t kSlots = 8;
        std::vector<int> item(kSlots);
        std::vector<int> seen, ended;
        std::atomic<int> under_way = 0;
        int next = 0;
        const std::vector<PipelineStage> stages = {
            {.name = "slow",
             .work =
                 [&](std::size_t slot) {
                     EXPECT_LE(++under_way, static_cast<int>(kSlots));
                     std::this_thread::sleep_for(
                         std::chrono::microseconds((item[slot] * 7) % 5 * 400));
                 }},
            {.name = "hold",
             .in_order = true,
             .work = [&](std::size_t slot) { seen.push_back(item[slot]); },
             .released =
                 [](std::int64_t count, bool all) {
                     return all ? count : std::max<std::int64_t>(count - 3, 0);
                 }},
            {.name = "fast", .work = [&](std::size_t) {}},
            {.name = "end", .in_order = true, .work = [&](std::size_t slot) {
                 --under_way;
                 ended.push_back(item[slot]);
             }}};
        const auto report = run_pipeline(
            {.threads = threads, .slots = kSlots},
            [&](std::size_t slot) {
                if (next == 50) return false;
                item[slot] = next++;
                return true;
            },
            stages);
        EXPECT_EQ(report.items, 50);
        ASSERT_EQ(ended.size(), 50U);
        for (int i = 0; i < 50; ++i) {
            EXPECT_EQ(seen[static_cast<std::size_t>(i)], i);
            EXPECT_EQ(ended[static_cast<std::size_t>(i)], i);
        }
        EXPECT_EQ(report.stages.size(), 5U);
    }
}

TEST(Pipeline, EndsWithTheFirstError) {
    std::atomic<int> done = 0;
    const std::vector<PipelineStage> stages = {{.name = "work", .work = [&](std::size_t) {
                                                    if (++done >= 3) fail(ErrorKind::io, "broken");
                                                }}};
    const auto endless = [](std::size_t) { return true; };
    EXPECT_EQ(error_of([&] { run_pipeline({.threads = 3}, endless, stages); }).second, "broken");
    const auto failing = [&](std::size_t) -> bool { fail(ErrorKind::io, "no frame"); };
    EXPECT_EQ(error_of([&] { run_pipeline({.threads = 2}, failing, stages); }).second, "no frame");
}

TEST(Pipeline, EndsWhenItIsAskedTo) {
    std::atomic<int> done = 0;
    std::stop_source stop;
    const std::vector<PipelineStage> stages = {{.name = "work", .work = [&](std::size_t) {
                                                    if (++done >= 50) stop.request_stop();
                                                }}};
    const auto endless = [](std::size_t) { return true; };
    const auto report = run_pipeline({.threads = 2, .stop = stop.get_token()}, endless, stages);
    EXPECT_GE(report.items, 50);
    EXPECT_LT(report.items, 60);
}

TEST(Cache, KeepsFilesUnderTheirContent) {
    ContentHash a, b, c;
    a.add("one");
    b.add("one");
    c.add("on");
    EXPECT_EQ(a.hex(), b.hex());
    EXPECT_NE(a.hex(), c.hex());
    EXPECT_EQ(a.hex().size(), 32U);

    const Scratch folder;
    fs::create_directories(folder / "made");
    std::ofstream(folder / "made" / "x.txt") << "hello";
    EXPECT_FALSE(take_from_cache(folder / "cache", a.hex(), folder / "out"));
    put_into_cache(folder / "cache", a.hex(), {folder / "made" / "x.txt"});
    EXPECT_TRUE(take_from_cache(folder / "cache", a.hex(), folder / "out"));
    EXPECT_TRUE(fs::exists(folder / "out" / "x.txt"));
    EXPECT_FALSE(take_from_cache(folder / "cache", c.hex(), folder / "out"));
}

}  // namespace
}  // namespace zoetrope::preprocess
