// preprocess with networks: points against Python, and whole runs on small clips.
#include "base/json.h"
#include "errors.h"
#include "media/reader.h"
#include "media/writer.h"
#include "preprocess/estimator.h"
#include "preprocess/network.h"
#include "preprocess/picture.h"
#include "preprocess/preprocess.h"
#include "scratch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <fstream>

namespace zoetrope::preprocess {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kGolden = fs::path(ZT_SOURCE_DIR) / "tests" / "golden" / "preprocess_points";
const fs::path kPoseModels = fs::path(ZT_BINARY_DIR) / "pose-models";

class Networks : public testing::Test {
protected:
    void SetUp() override {
        if (openvino_version().empty()) GTEST_SKIP() << "built without OpenVINO";
        if (!fs::exists(kPoseModels)) GTEST_SKIP() << "without MediaPipe's networks";
    }

    // A clip that moves the picture about; frames in `empty` are grey.
    fs::path clip(const char* name, const Frame& picture, int frames,
                  const std::vector<int>& empty = {}) const {
        const fs::path file = folder_ / name;
        VideoWriter writer(file, {.fps = 10, .crf = 4});
        for (int i = 0; i < frames; ++i) {
            Frame frame = picture;
            if (std::find(empty.begin(), empty.end(), i) != empty.end())
                std::fill(frame.rgb.begin(), frame.rgb.end(), 128);
            writer.write(frame);
        }
        writer.finish();
        return file;
    }

    Options options(const fs::path& video) const {
        Options options;
        options.video = video;
        options.output = folder_ / "out";
        options.area = 160 * 160;
        options.fps = 0;
        options.mediapipe = kPoseModels;
        options.threads = 2;
        return options;
    }

    const Scratch scratch_;
    const fs::path folder_ = scratch_.path();
};

Frame dancer() { return read_picture(kGolden / "dance.png"); }

double mean_difference(const Frame& a, const Frame& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.rgb.size(); ++i) sum += std::abs(a.rgb[i] - b.rgb[i]);
    return sum / static_cast<double>(a.rgb.size());
}

// The largest distance from the golden points that count, in pixels.
double largest_distance(const WholeBody& found, const nlohmann::json& wanted) {
    double largest = 0;
    for (std::size_t i = 0; i < kWholeBodyPoints; ++i) {
        EXPECT_NEAR(found[i].score, wanted[i][2].get<float>(), 0.01) << i;
        largest = std::max<double>(largest, std::hypot(found[i].x - wanted[i][0].get<float>(),
                                                       found[i].y - wanted[i][1].get<float>()));
    }
    return largest;
}

TEST_F(Networks, MediaPipeFindsThePointsThatPythonFinds) {
    const auto estimator = make_mediapipe_estimator(kPoseModels, {.threads = 1, .masks = true});
    for (const auto& one : read_json(kGolden / "points.json")) {
        const Frame picture = read_picture(kGolden / one["picture"].get<std::string>());
        const auto people = estimator->find(picture);
        ASSERT_EQ(people.size(), 1U) << one["picture"];
        EXPECT_LT(largest_distance(people[0].points, one["mediapipe"]), 0.5) << one["picture"];
        EXPECT_EQ(people[0].mask.width, 256);
        // The nose lies on the person, the upper corners do not.
        const Mask mask = mask_of(people[0].mask, picture.width, picture.height);
        const auto nose = static_cast<std::size_t>(people[0].points[0].y) *
                              static_cast<std::size_t>(picture.width) +
                          static_cast<std::size_t>(people[0].points[0].x);
        EXPECT_EQ(mask.inside[nose], 1) << one["picture"];
        EXPECT_EQ(mask.inside[0], 0) << one["picture"];
    }
    Frame grey(320, 200);
    std::fill(grey.rgb.begin(), grey.rgb.end(), 128);
    EXPECT_TRUE(estimator->find(grey).empty());
    EXPECT_TRUE(estimator->find(Frame(1, 1)).empty());
}

TEST_F(Networks, OnnxNetworksFindThePointsThatPythonFinds) {
    const auto estimator =
        make_onnx_estimator(kGolden / "detector.onnx", kGolden / "pose.onnx", {}, {.threads = 2});
    for (const auto& one : read_json(kGolden / "points.json")) {
        const auto people =
            estimator->find(read_picture(kGolden / one["picture"].get<std::string>()));
        ASSERT_FALSE(people.empty());
        EXPECT_EQ(people[0].box.x0, one["box"][0].get<float>());
        EXPECT_EQ(people[0].box.y1, one["box"][3].get<float>());
        EXPECT_LT(largest_distance(people[0].points, one["onnx"]), 0.5) << one["picture"];
    }
}

TEST_F(Networks, AreRefusedWithASentence) {
    const auto refusal = [](const fs::path& file) { return error_of([&] { Network(file, 1); }); };
    EXPECT_EQ(refusal(folder_ / "none.onnx").first, ErrorKind::not_found);
    EXPECT_EQ(refusal(folder_).first, ErrorKind::not_found);
    for (const char* name : {"text.onnx", "text.tflite"}) {
        std::ofstream(folder_ / name) << "no network at all";
        const auto [kind, message] = refusal(folder_ / name);
        EXPECT_EQ(kind, ErrorKind::io) << message;
        EXPECT_THAT(message, HasSubstr(name));
    }
    // Cut in the middle.
    const fs::path whole = kPoseModels / "face_landmark.tflite";
    fs::copy_file(whole, folder_ / "half.tflite");
    fs::resize_file(folder_ / "half.tflite", fs::file_size(whole) / 2);
    EXPECT_EQ(refusal(folder_ / "half.tflite").first, ErrorKind::io);
    // A network of another kind.
    const auto [kind, message] = error_of(
        [&] { make_onnx_estimator(kGolden / "pose.onnx", kGolden / "detector.onnx", {}, {}); });
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_THAT(message, HasSubstr("no YOLOv10 detector"));
}

TEST_F(Networks, AClipBecomesPoseAndFace) {
    Options wanted = options(clip("clip.mp4", dancer(), 20));
    int reports = 0;
    RunControl control;
    control.on_progress = [&](const Progress& progress) {
        EXPECT_EQ(progress.step, reports++);
        EXPECT_EQ(progress.steps, 20);
    };
    const Report report = run(wanted, control);
    EXPECT_EQ(report.frames, 20);
    EXPECT_EQ(reports, 21);
    EXPECT_EQ(report.width, 160);
    EXPECT_TRUE(report.bad_frames.empty());
    EXPECT_TRUE(report.cuts.empty());
    ASSERT_EQ(report.files.size(), 2U);
    const MediaInfo pose = probe_media(wanted.output / "src_pose.mp4");
    EXPECT_EQ(pose.frames, 20);
    EXPECT_EQ(pose.fps, 10);
    const MediaInfo face = probe_media(wanted.output / "src_face.mp4");
    EXPECT_EQ(face.width, 512);
    EXPECT_EQ(face.height, 512);
    const Frame drawn = read_picture(wanted.output / "src_pose.mp4");
    EXPECT_GT(*std::max_element(drawn.rgb.begin(), drawn.rgb.end()), 100);

    // The same bytes with any number of threads.
    const auto bytes = [](const fs::path& file) {
        std::ifstream stream(file, std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(stream), {});
    };
    const std::string before = bytes(wanted.output / "src_pose.mp4");
    wanted.threads = 1;
    wanted.output = folder_ / "again";
    run(wanted, {});
    EXPECT_EQ(bytes(wanted.output / "src_pose.mp4"), before);
}

TEST_F(Networks, ReplacementHasBackgroundAndMask) {
    Options wanted = options(clip("clip.mp4", dancer(), 5));
    wanted.replace = true;
    wanted.mask = {.kernel = 3, .iterations = 1, .columns = 8, .rows = 8};
    wanted.image = kGolden / "carphone.png";
    const Report report = run(wanted, {});
    ASSERT_EQ(report.files.size(), 5U);
    const Frame mask = read_picture(wanted.output / "src_mask.mp4");
    const Frame background = read_picture(wanted.output / "src_bg.mp4");
    const auto at = [&](const Frame& f, int x, int y) {
        return f.rgb[static_cast<std::size_t>(y * f.width + x) * 3 + 2];
    };
    EXPECT_GT(at(mask, 70, 80), 240);  // the dancer's skirt
    EXPECT_LT(at(mask, 5, 5), 16);
    EXPECT_LT(at(background, 70, 80), 30);
    EXPECT_GT(at(background, 20, 5), 150);  // the sky
    EXPECT_EQ(read_picture(wanted.output / "src_ref.png").rgb, read_picture(wanted.image).rgb);
}

// segmenter.onnx says 1 where the picture is darker than grey: of a dancer before a light sky, the
// clothes. Its outputs are one channel, two, and none that fits.
TEST_F(Networks, ASegmenterDrawsTheOutline) {
    Options wanted = options(clip("clip.mp4", dancer(), 3));
    wanted.replace = true;
    wanted.mask.iterations = 0;  // as it is
    const auto mask_with = [&](const char* network) {
        wanted.segmenter = kGolden / network;
        wanted.output = folder_ / network;
        run(wanted, {});
        return read_picture(wanted.output / "src_mask.mp4");
    };
    const Frame one = mask_with("segmenter.onnx");
    const Frame two = mask_with("segmenter2.onnx");
    const Frame picture = dancer();
    EXPECT_LT(mean_difference(one, two), 6);  // of 255: edges, at another resolution
    int right = 0, inside = 0;
    for (std::size_t i = 0; i < one.rgb.size(); i += 3) {
        const bool marked = one.rgb[i] > 127;
        const int grey = (picture.rgb[i] + picture.rgb[i + 1] + picture.rgb[i + 2]) / 3;
        inside += marked;
        right += marked && grey < 140;  // its edges are smoothed
    }
    EXPECT_GT(inside, 500);
    EXPECT_GT(right, inside * 9 / 10);

    wanted.segmenter = kGolden / "pose.onnx";
    const auto [kind, message] = error_of([&] { run(wanted, {}); });
    EXPECT_EQ(kind, ErrorKind::io);
    EXPECT_THAT(message, HasSubstr("no segmenter"));
    wanted.replace = false;
    EXPECT_THAT(error_of([&] { run(wanted, {}); }).second, HasSubstr("replacement"));
}

TEST_F(Networks, WhatIsTakenIsWhatAReaderOfTheFilesSees) {
    Options wanted = options(clip("clip.mp4", dancer(), 30));
    wanted.replace = true;
    wanted.max_frames = 25;
    const ClipLength length = length_of(wanted);
    EXPECT_EQ(length.frames, 25);
    EXPECT_EQ(length.fps, 10);
    std::array<std::vector<Frame>, kTracks> frames;
    int seen = 0;
    Listener listener;
    listener.frame = [&](Track track, Frame frame) {  // each track by one thread at a time
        frames.at(static_cast<std::size_t>(track)).push_back(std::move(frame));
    };
    listener.person_seen = [&] { ++seen; };
    const Report report = run(wanted, {}, listener);
    EXPECT_EQ(seen, 1);
    EXPECT_EQ(report.frames, 25);
    const char* names[] = {"src_pose.mp4", "src_face.mp4", "src_bg.mp4", "src_mask.mp4"};
    for (std::size_t track = 0; track < kTracks; ++track) {
        ASSERT_EQ(frames.at(track).size(), 25U);
        VideoReader reader(wanted.output / names[track]);
        for (const Frame& frame : frames.at(track)) {
            const auto read = reader.read();
            ASSERT_TRUE(read);
            ASSERT_EQ(frame.rgb, read->frame.rgb) << names[track];
        }
    }
}

TEST_F(Networks, AClipsLengthIsKnownBeforeItsFrames) {
    Options wanted = options(clip("clip.mp4", dancer(), 20));  // two seconds
    EXPECT_EQ(length_of(wanted).frames, 20);
    for (const double fps : {30.0, 24.0, 7.0, 12.5}) {
        wanted.fps = fps;
        wanted.output = folder_ / std::to_string(fps);
        EXPECT_EQ(length_of(wanted).frames, run(wanted, {}).frames) << fps;
    }
}

TEST_F(Networks, RetargetingFitsTheCharacter) {
    Options wanted = options(clip("clip.mp4", dancer(), 3));
    wanted.image = kGolden / "carphone.png";
    wanted.retarget = true;
    const Report report = run(wanted, {});
    EXPECT_EQ(report.width, 176);  // the character's shape
    EXPECT_EQ(report.height, 144);
    wanted.image = clip("grey.mp4", dancer(), 1, {0});
    const auto [kind, message] = error_of([&] { run(wanted, {}); });
    EXPECT_EQ(kind, ErrorKind::bad_request);
    EXPECT_THAT(message, HasSubstr("nobody was found"));
}

// The dancer painted over, each row by the pixel to the right of her.
Frame hidden_dancer() {
    constexpr std::size_t kFrom = 14, kTo = 106;  // columns
    Frame frame = dancer();
    const auto width = static_cast<std::size_t>(frame.width);
    for (std::size_t y = 0; y < static_cast<std::size_t>(frame.height); ++y) {
        std::uint8_t* row = frame.rgb.data() + y * width * 3;
        for (std::size_t x = kFrom; x < kTo; ++x) std::copy_n(row + kTo * 3, 3, row + x * 3);
    }
    return frame;
}

TEST_F(Networks, BadFramesAreHeldAndReported) {
    const fs::path video = folder_ / "hidden.mp4";
    VideoWriter writer(video, {.fps = 10, .crf = 4});
    for (int i = 0; i < 8; ++i) writer.write(i == 3 || i == 4 ? hidden_dancer() : dancer());
    writer.finish();
    Options held = options(video);
    held.output = folder_ / "held";
    std::vector<JoinedFrame> joined;
    Listener listener;
    listener.joined = [&](const JoinedFrame& frame) { joined.push_back(frame); };
    const Report filled = run(held, {}, listener);
    ASSERT_EQ(filled.bad_frames.size(), 2U);
    EXPECT_EQ(filled.bad_frames[0].frame, 3);
    EXPECT_EQ(filled.bad_frames[0].reason, "nobody");
    EXPECT_EQ(filled.filled_frames, 2);
    EXPECT_EQ(filled.empty_frames, 0);
    EXPECT_TRUE(filled.cuts.empty());
    ASSERT_EQ(joined.size(), 8U);
    ASSERT_TRUE(joined[4].person);
    EXPECT_FALSE(joined[4].found);
    EXPECT_EQ(joined[4].person->points[0].x, joined[2].person->points[0].x);

    // Grey frames between cuts: nothing of the shot before.
    Options wanted = options(clip("clip.mp4", dancer(), 8, {3, 4}));
    const Report report = run(wanted, {});
    ASSERT_EQ(report.bad_frames.size(), 2U);
    EXPECT_EQ(report.empty_frames, 2);
    EXPECT_EQ(report.cuts, (std::vector<std::int64_t>{3, 5}));
    VideoReader reader(wanted.output / "src_pose.mp4");
    for (int i = 0; i < 8; ++i) {
        const auto drawn = reader.read();
        ASSERT_TRUE(drawn);
        const auto brightest = *std::max_element(drawn->frame.rgb.begin(), drawn->frame.rgb.end());
        if (i == 3 || i == 4)
            EXPECT_LT(brightest, 16) << i;
        else
            EXPECT_GT(brightest, 100) << i;
    }
    wanted.bad_frames = BadFrames::stop;
    wanted.output = folder_ / "stopped";
    EXPECT_THAT(error_of([&] { run(wanted, {}); }).second, HasSubstr("frame 3"));
    EXPECT_FALSE(fs::exists(wanted.output / "src_pose.mp4"));
    Options nobody = options(clip("grey.mp4", dancer(), 4, {0, 1, 2, 3}));
    nobody.output = folder_ / "nobody";
    EXPECT_THAT(error_of([&] { run(nobody, {}); }).second, HasSubstr("nobody was found in any"));
    EXPECT_FALSE(fs::exists(nobody.output / "src_pose.mp4"));
}

TEST_F(Networks, ATruncatedClipGivesWhatIsThere) {
    const fs::path whole = clip("clip.mkv", dancer(), 30);
    fs::resize_file(whole, fs::file_size(whole) * 2 / 3);
    const Options wanted = options(whole);
    const auto [kind, message] = error_of([&] {
        const Report report = run(wanted, {});
        EXPECT_GT(report.frames, 0);
        EXPECT_LT(report.frames, 30);
        EXPECT_FALSE(report.damage.empty());
        fail(ErrorKind::unsupported, "ran");
    });
    EXPECT_THAT(message, testing::AnyOf("ran", HasSubstr("no frame")));
}

TEST_F(Networks, ADamagedClipHasOneLength) {
    const fs::path damaged = folder_ / "damaged.mkv";
    VideoWriter writer(damaged, {.fps = 10, .crf = 10});
    for (int i = 0; i < 24; ++i) {
        Frame frame = dancer();  // with lines of noise, so that every frame has something to decode
        for (std::size_t k = 0; k < frame.rgb.size() / 8; ++k)
            frame.rgb[k] = static_cast<std::uint8_t>((k * 2654435761U + 977U * i) >> 13);
        writer.write(frame);
    }
    writer.finish();
    {
        std::fstream file(damaged, std::ios::in | std::ios::out | std::ios::binary);
        const auto size = static_cast<std::streamoff>(fs::file_size(damaged));
        for (std::streamoff at = size / 3; at < size; at += size / 40) {
            file.seekp(at);
            file.put('\x5a');
        }
    }
    const Options wanted = options(damaged);
    const std::int64_t frames = length_of(wanted).frames;
    EXPECT_GT(frames, 1);
    EXPECT_LT(frames, 24);
    for (int i = 0; i < 10; ++i) {
        ASSERT_EQ(length_of(wanted).frames, frames);
        ASSERT_EQ(colors_of(wanted).size(), static_cast<std::size_t>(frames));
    }
    EXPECT_EQ(run(wanted, {}).frames, frames);
}

TEST_F(Networks, TheSecondRunTakesTheFirstOnesFiles) {
    Options wanted = options(clip("clip.mp4", dancer(), 4));
    wanted.cache = folder_ / "cache";
    EXPECT_FALSE(run(wanted, {}).from_cache);
    wanted.output = folder_ / "second";
    const Report second = run(wanted, {});
    EXPECT_TRUE(second.from_cache);
    EXPECT_EQ(second.frames, 4);
    EXPECT_EQ(second.files.size(), 2U);
    const fs::path kept = kept_result(wanted);
    EXPECT_EQ(kept.parent_path(), wanted.cache);
    EXPECT_EQ(report_of(wanted, kept).frames, 4);
    wanted.max_frames = 3;
    EXPECT_TRUE(kept_result(wanted).empty());
    wanted.max_frames = 0;
    wanted.person.kind = PersonChoice::Kind::center;
    EXPECT_FALSE(run(wanted, {}).from_cache);
}

TEST_F(Networks, ImpossibleWishesAreRefused) {
    const fs::path video = clip("clip.mp4", dancer(), 2);
    const auto refused = [&](auto&& change, const char* words) {
        Options wanted = options(video);
        change(wanted);
        const auto [kind, message] = error_of([&] { run(wanted, {}); });
        EXPECT_NE(kind, ErrorKind::internal) << message;
        EXPECT_THAT(message, HasSubstr(words));
    };
    refused([](Options& o) { o.video = "/none.mp4"; }, "--video");
    refused([](Options& o) { o.retarget = true; }, "--image");
    refused([](Options& o) { o.pose = o.video; }, "--det-model");
    refused([](Options& o) { o.area = 100; }, "--resolution-area");
    refused([](Options& o) { o.edited_reference = o.video; }, "--edited-reference");
    refused([](Options& o) { o.mask.columns = 0; }, "blocks");
    std::stop_source stop;
    stop.request_stop();
    RunControl control;
    control.stop = stop.get_token();
    EXPECT_EQ(error_of([&] { run(options(video), control); }).first, ErrorKind::cancelled);
}

}  // namespace
}  // namespace zoetrope::preprocess
