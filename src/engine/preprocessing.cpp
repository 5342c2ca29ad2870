#include "engine/preprocessing.h"

#include "base/error.h"

#include <cstdlib>
#include <system_error>

namespace zoetrope {

namespace fs = std::filesystem;

fs::path pose_models_folder() {
    if (const char* given = std::getenv("ZOETROPE_POSE_MODELS"); given != nullptr) {
        ZT_CHECK(fs::is_directory(given), not_found,
                 "ZOETROPE_POSE_MODELS is '{}': there is no such folder", given);
        return given;
    }
    std::error_code ignored;
    const fs::path program = fs::read_symlink("/proc/self/exe", ignored).parent_path();
    for (const char* beside : {"pose-models", "../pose-models", "../share/zoetrope/pose-models"}) {
        if (fs::is_directory(program / beside)) return fs::canonical(program / beside);
    }
    fail(ErrorKind::not_found,
         "the pose networks were not found (pose-models/ beside the program): run `make setup` and "
         "build again, set ZOETROPE_POSE_MODELS to their folder, or give --det-model and "
         "--pose-model");
}

}  // namespace zoetrope
