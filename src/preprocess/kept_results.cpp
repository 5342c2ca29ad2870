#include "preprocess/kept_results.h"

#include "base/error.h"
#include "media/reader.h"
#include "preprocess/cache.h"
#include "preprocess/estimator.h"

#include <string_view>

namespace zoetrope::preprocess {
namespace fs = std::filesystem;
namespace {

// Changes with anything that changes results: kept ones of older programs are then not used.
constexpr std::string_view kVersion = "3";

std::vector<fs::path> network_files(const Options& options) {
    const bool onnx = !options.detector.empty();
    std::vector<fs::path> files;
    if (onnx) files = {options.detector, options.pose};
    const bool outlines = options.replace && options.segmenter.empty();
    if (!onnx || (outlines && !options.mediapipe.empty())) {
        const auto mediapipe = mediapipe_files(options.mediapipe);
        files.insert(files.end(), mediapipe.begin(), mediapipe.end());
    }
    if (!options.segmenter.empty()) files.push_back(options.segmenter);
    return files;
}

}  // namespace

std::string result_key(const Options& options) {
    ContentHash hash;
    hash.add(kVersion);
    hash.add_file(options.video);
    for (const fs::path& picture : {options.image, options.edited_reference}) {
        hash.add(picture.empty() ? "without" : "with");
        if (!picture.empty()) hash.add_file(picture);
    }
    for (const fs::path& file : network_files(options)) {
        ZT_CHECK(fs::is_regular_file(file), not_found,
                 "{}: there is no such network file (ONNX or TFLite)", file.string());
        // Networks of gigabytes are known by name, size and age.
        hash.add(fmt::format("{} {} {}", fs::absolute(file).string(), fs::file_size(file),
                             fs::last_write_time(file).time_since_epoch().count()));
    }
    const MaskOptions& mask = options.mask;
    hash.add(fmt::format("{} {} {} {} {} {} {} {} {} {} {} {}", options.replace, options.retarget,
                         options.area, options.fps, options.max_frames,
                         static_cast<int>(options.person.kind), options.person.nth,
                         static_cast<int>(options.bad_frames), mask.kernel, mask.iterations,
                         mask.columns, mask.rows));
    return hash.hex();
}

fs::path kept_result(const Options& options) {
    check(options);
    return options.cache.empty() ? fs::path() : find_in_cache(options.cache, result_key(options));
}

Report report_of(const Options& options, const fs::path& folder) {
    Report report;
    report.from_cache = true;
    for (int track = 0; track < tracks_of(options); ++track)
        report.files.push_back(folder / file_name_of(static_cast<Track>(track)));
    report.files.push_back(folder / "src_ref.png");
    std::erase_if(report.files, [](const fs::path& file) { return !fs::exists(file); });
    const MediaInfo info = probe_media(folder / file_name_of(Track::pose));
    report.frames = info.frames;
    report.fps = info.fps;
    report.width = info.width;
    report.height = info.height;
    report.networks = options.detector.empty() ? "mediapipe" : "onnx";
    return report;
}

}  // namespace zoetrope::preprocess
